"""Evaluation: a model and labelled images in, a Report out, for the terminal, for machines and as a page.

Which rows are evaluated is decided here, from what the model remembers of its
own run; the counting is left to `measure`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from regraft.core.errors import DataError
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import PARTS, Index, Row
from regraft.features.extract import Features
from regraft.measure import metrics, report
from regraft.measure.metrics import Evaluation
from regraft.measure.report import LeftOut, Mistake, Page, thumbnail
from regraft.serve.model import Model

SHOWN_MISTAKES = 24


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """What a model did on one part of a source.

    index:         the rows that were evaluated.
    probabilities: (n, n_classes), a row for each of them.
    notes:         what a reader must know before believing the numbers.
    source:        the whole index, with the broken and the ignored rows.
    """

    model: Model
    part: str
    index: Index
    probabilities: np.ndarray
    evaluation: Evaluation
    notes: tuple[str, ...]
    source: Index

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Report: {self.accuracy:.1%} of {self.evaluation.n} images, part {self.part}>"

    @property
    def accuracy(self) -> float:
        """The share of images whose most probable label is the true one."""
        return self.evaluation.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Return the measures, and which files of the source were left out, as JSON-able data."""
        left_out = [row for row in self.source if row.status != "used"]
        files = [{"path": row.path, "status": row.status, "reason": row.reason} for row in left_out]
        return {**self.measures(), "left_out": files}

    def measures(self) -> dict[str, Any]:
        """Return the measures as JSON-able data."""
        return {"part": self.part, "notes": list(self.notes), **self.evaluation.to_dict()}

    def text(self) -> str:
        """Return the measures as lines for a terminal."""
        broken, ignored = len(self.source.broken), len(self.source.ignored)
        left_out = [f"Left out of the source: {broken} broken, {ignored} ignored"] if broken or ignored else []
        notes = [f"Note: {note}" for note in self.notes]
        return "\n".join([*notes, *left_out, f"Part: {self.part}", self.evaluation.text()])

    def html(self) -> str:
        """Return the report as one HTML file, with the surest mistakes as thumbnails."""
        return report.render(_page(self.model, self.part, self.evaluation, self.notes, self))


def measure(model: Model, features: Features, *, part: str, notes: Sequence[str], source: Index) -> Report:
    """Return the Report of a model on features of labelled images."""
    shares = model.probabilities(features)
    return Report(
        model=model,
        part=part,
        index=features.index.with_rows(features.rows),
        probabilities=shares,
        evaluation=metrics.evaluate(shares, features.labels(model.classes), model.classes),
        notes=(*notes, *_notes(model, features.rows)),
        source=source,
    )


def choose_part(model: Model, index: Index, part: str | None) -> tuple[str, Index, tuple[str, ...]]:
    """Return the part to evaluate, its rows, and what must be said about the choice."""
    index = _with_known_parts(model, index)
    if part == "all" or (part is None and all(row.part is None for row in index.used)):
        return "all", index.used, ()
    for name in (part,) if part else ("test", "validation"):
        if chosen := index.part(name):
            return name, chosen, _notes_on_choice(name, index) if part is None else ()
    counts = Counter(row.part or "new" for row in index.used)
    found = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    raise DataError(f"No image of {index.name} is in the part {part or 'test'!r}; there are {found}. Try --part all.")


def _with_known_parts(model: Model, index: Index) -> Index:
    """Return the index with the parts that the model's run gave; a copy in another part than that is left out again."""
    in_place = {row.id for row in index.used if row.part == model.part_of(row.id)}

    def known(row: Row) -> Row:
        part = model.part_of(row.id)
        if row.status != "used" or part in (None, row.part):
            return row
        if row.part and row.id in in_place:
            return row.marked("ignored", f"the same picture is in the {part} part")
        return dataclasses.replace(row, part=part)

    return index.with_rows(known(row) for row in index)


def _notes_on_choice(name: str, index: Index) -> tuple[str, ...]:
    """Return what the choice of a part by itself has passed over."""
    new = sum(row.part is None for row in index.used)
    left = (
        [f"{new} images are new to the model, in no part, and not evaluated; --part all takes them in"] if new else []
    )
    return (*left, *(["there is no test part; the validation part is evaluated"] if name == "validation" else []))


def _notes(model: Model, rows: Iterable[Row]) -> tuple[str, ...]:
    """Return what makes the number better than it would be on new photographs."""
    rows = list(rows)
    seen = Counter(model.part_of(row.id) for row in rows)
    notes = []
    if copies := len(rows) - len({row.id for row in rows}):
        notes.append(f"{copies} of these {len(rows)} images are copies of others among them, and count all the same")
    if seen["train"]:
        notes.append(
            f"{seen['train']} of these {seen.total()} images were trained on: new photographs will do worse than this"
        )
    if seen["validation"] and model.chosen.get("judged_on") == "validation":
        notes.append(f"{seen['validation']} of these images helped to choose the model")
    return tuple(notes)


def model_report(model: Model) -> str:
    """Return what a model folder tells of itself as one HTML file, without photographs."""
    if not model.measures:
        raise DataError("This model was saved without measures; use `regraft evaluate MODEL SOURCE --report FILE`.")
    part, measures = next(iter(model.measures.items()))
    return report.render(_page(model, part, metrics.Evaluation.from_dict(measures), measures["notes"]))


def _page(model: Model, part: str, evaluation: Evaluation, notes: Sequence[str], found: Report | None = None) -> Page:
    counts: dict[str, dict[str, int]] = {name: {} for name in PARTS}
    for label, row_part in model.images.values():
        counts[row_part][label] = counts[row_part].get(label, 0) + 1
    left_out = found.source if found else Index(())
    return Page(
        title=" · ".join(model.classes) if len(model.classes) <= 5 else f"{len(model.classes)} classes",
        evaluation=evaluation,
        part="source" if part == "all" else f"{part} part",
        notes=notes,
        made=_made(model),
        counts={name: counted for name, counted in counts.items() if counted},
        history=model.history.to_list(),
        mistakes=_mistakes(found) if found else (),
        broken=[LeftOut(row.path, row.reason) for row in left_out.broken],
        ignored=[LeftOut(row.path, row.reason) for row in left_out.ignored],
    )


def _made(model: Model) -> dict[str, str]:
    """Return how a model was made, in words and in order."""
    recipe = model.trunk.describe()
    chosen = {name.replace("_", " "): str(value) for name, value in model.chosen.items() if name != "tried"}
    return {
        "backbone": recipe["architecture"],
        "weights": " ".join(filter(None, (recipe["weights"]["source"], recipe["weights"]["name"]))),
        "cut": recipe["cut"] + (", the network above it trained as well" if model.trunk.tail else ""),
        "input": f"{model.trunk.preprocess.size} pixels, {model.trunk.preprocess.resize}",
        "head": model.head_name,
        **chosen,
        "seed": str(model.options.get("seed", "")),
        "versions": ", ".join(f"{name} {version}" for name, version in model.versions.items()),
    }


def _mistakes(found: Report) -> list[Mistake]:
    """Return the wrong answers that the model was surest of, with thumbnails."""
    classes = found.model.classes
    labels = found.index.label_codes(classes)
    return [
        Mistake(
            path=(row := found.index.rows[number]).path,
            thumbnail=_thumbnail(row),
            true=classes[labels[number]],
            predicted=classes[code],
            probability=share,
        )
        for number, code, share in metrics.confident_mistakes(found.probabilities, labels, SHOWN_MISTAKES)
    ]


def _thumbnail(row: Row) -> bytes | None:
    """Return a small picture of a row; None if its file has gone or changed since."""
    try:
        return thumbnail(Image.fromarray(decode(row.place.read())))
    except (OSError, BrokenImage):
        return None
