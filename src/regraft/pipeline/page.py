"""A model, or the Report of an evaluation, in; a page out, or a picture: what is to be shown is chosen here.

How it looks is left to `measure/report`. Apart from `evaluate`, as matplotlib is slow to import and most evaluations
draw nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from regraft.core.errors import DataError
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import PARTS, Index, Row
from regraft.data.labels import LABEL_SEPARATOR, as_labels
from regraft.evaluation import metrics
from regraft.evaluation.metrics import Evaluation
from regraft.evaluation.multilabel import MultilabelEvaluation
from regraft.features import augmentation
from regraft.model.model import Model
from regraft.pipeline.report import CROSS_VALIDATION, SHOWN_ANSWERS, Report, measured
from regraft.report import grids, pages
from regraft.report.grids import Tile
from regraft.report.pages import Answer, LeftOut, Page, Phase, thumbnail

SHOWN_MISTAKES = 24
SEEN_ROWS, SEEN_A_ROW = 3, 5  # of what the network sees: images, and the squares of each with its views
TOLD = ("tried", "phases", "verdict")  # of what a model chose: too long for a table, or shown elsewhere
NONE = "none of the labels"


def of_model(model: Model) -> str:
    """Return what a model folder tells of itself as one HTML file, without photographs."""
    if not model.measures:
        raise DataError("This model was saved without measures; use `regraft evaluate MODEL SOURCE --report FILE`.")
    part, measures = next(iter(model.measures.items()))
    return pages.render(_page(model, part, measured(model, part), measures["notes"]))


def of_report(found: Report) -> str:
    """Return an evaluation as one HTML file, with the surest mistakes as thumbnails."""
    return pages.render(_page(found.model, found.part, found.evaluation, found.notes, found))


def grid(found: Report, count: int) -> Figure:
    """Return a sample of the images as `Report.grid` does."""
    drawn = grids.sample(len(found.index), count, found.model.options.get("seed", 0))
    shown = {row: pixels for row in drawn if (pixels := _pixels(found.index.rows[row])) is not None}
    labels = np.array(found.index.label_codes(found.model.classes))
    rows = list(shown)
    return grids.grid(grids.answers(list(shown.values()), found.probabilities[rows], labels[rows], found.model.classes))


def _page(
    model: Model,
    part: str,
    evaluation: Evaluation | MultilabelEvaluation,
    notes: Sequence[str],
    found: Report | None = None,
) -> Page:
    counts: dict[str, Counter[str]] = {name: Counter() for name in PARTS}
    for label, row_part in model.images.values():
        counts[row_part].update(as_labels(label) if model.loss.multilabel else [label])
    left_out = found.source if found else Index(())
    return Page(
        title=" · ".join(model.classes) if len(model.classes) <= 5 else f"{len(model.classes)} classes",
        evaluation=evaluation,
        part={"all": "source", CROSS_VALIDATION: CROSS_VALIDATION}.get(part, f"{part} part"),
        notes=notes,
        made=_made(model),
        counts={name: counted for name, counted in counts.items() if counted},
        history=model.history.to_list(),
        watch=model.options.get("watch", "loss"),
        phases=_phases(model),
        seen=_seen(found) if found else (),
        answers=_answers(found) if found else (),
        mistakes=_mistakes(found) if found else (),
        broken=[LeftOut(row.path, row.reason) for row in left_out.broken],
        ignored=[LeftOut(row.path, row.reason) for row in left_out.ignored],
    )


def _made(model: Model) -> dict[str, str]:
    """Return how a model was made, in words and in order."""
    recipe = model.trunk.describe()
    chosen = {name.replace("_", " "): str(value) for name, value in model.chosen.items() if name not in TOLD}
    return {
        "backbone": recipe["architecture"],
        "weights": " ".join(filter(None, (recipe["weights"]["source"], recipe["weights"]["name"]))),
        "cut": recipe["cut"] + (f", the network above it {_up_to(recipe)}trained as well" if model.trunk.tail else ""),
        "input": f"{model.trunk.preprocess.size} pixels, {model.trunk.preprocess.resize}",
        "head": model.head_name,
        **chosen,
        "seed": str(model.options.get("seed", "")),
        "versions": ", ".join(f"{name} {version}" for name, version in model.versions.items()),
    }


def _up_to(recipe: Mapping[str, Any]) -> str:
    return f"up to {recipe['end']} " if recipe["end"] else ""


def _phases(model: Model) -> list[Phase]:
    """Return the phases of a fine-tuning; the last one with the verdict on what it brought."""
    done = model.chosen.get("phases", ())
    return [
        Phase(
            name=_phase_name(phase),
            epochs=phase["epochs"],
            loss=phase["loss"],
            accuracy=phase["accuracy"],
            kept=phase["phase"] == model.chosen["kept"],
            verdict=model.chosen.get("verdict", "") if phase is done[-1] else "",
        )
        for phase in done
    ]


def _phase_name(phase: Mapping[str, Any]) -> str:
    share = phase.get("share", 1)
    return phase["phase"] if share == 1 else f"{phase['phase']}, {share:.0%} of the way to its weights"


def _seen(found: Report) -> list[Tile]:
    """Return what the network saw of some of the images that it learnt from, and of their views."""
    model = found.model
    learnt = [row for row in found.source.used if model.part_of(row.id) == "train"]
    options = {"views": 0, "augmentation": "standard", "seed": 0, **model.options}
    counts = list(found.source.with_rows(learnt).class_counts.values())
    drawn = augmentation.wanted(options["views"], options["augmentation"], options["seed"], counts)[: SEEN_A_ROW - 1]
    tiles: list[Tile] = []
    for number in grids.sample(len(learnt), SEEN_ROWS if drawn else SEEN_ROWS * SEEN_A_ROW, options["seed"]):
        row = learnt[number]
        if (pixels := _pixels(row)) is not None:
            tiles += grids.seen(str(row.label), pixels, model.trunk.preprocess, row.id, drawn)
    return tiles


def _answers(found: Report) -> list[Answer]:
    """Return the answers to a sample of the images, drawn at random."""
    seed = found.model.options.get("seed", 0)
    best = found.probabilities.argmax(axis=1)
    return [_answer(found, number, int(best[number])) for number in grids.sample(len(found.index), SHOWN_ANSWERS, seed)]


def _mistakes(found: Report) -> list[Answer]:
    """Return the wrong answers that the model was surest of; none where an image may have several labels."""
    if found.model.loss.multilabel:
        return []
    codes = found.index.label_codes(found.model.classes)
    mistakes = metrics.confident_mistakes(found.probabilities, codes, SHOWN_MISTAKES)
    return [_answer(found, number, code) for number, code, _ in mistakes]


def _answer(found: Report, number: int, code: int) -> Answer:
    row, pixels, shares = found.index.rows[number], _pixels(found.index.rows[number]), found.probabilities[number]
    picture = None if pixels is None else thumbnail(Image.fromarray(pixels))
    if found.model.loss.multilabel:
        (said,) = found.model.said(shares[None])
        return Answer(row.path, picture, row.label or NONE, LABEL_SEPARATOR.join(said) or NONE, None)
    return Answer(row.path, picture, str(row.label), found.model.classes[code], float(shares[code]))


def _pixels(row: Row) -> np.ndarray | None:
    """Return a row's picture; None if its file has gone or changed since."""
    try:
        return decode(row.location.read())
    except (OSError, BrokenImage):
        return None
