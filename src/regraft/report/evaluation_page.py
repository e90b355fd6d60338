"""The page of a model or of its evaluation: how good it is, on which images it is wrong, how it was trained.

A model and its measures enter, with the evaluated images if there are any; the
text of one HTML file leaves. What is shown is chosen here and put into a `Page`;
the layout is in `evaluation.html`, and for images of several labels in
`multilabel.html`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from regraft.audit.shortcuts import Shortcuts
from regraft.core.text import percent
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import PARTS, Index, Row
from regraft.data.labels import LABEL_SEPARATOR, as_labels
from regraft.evaluation import diagnosis, prediction_sets
from regraft.evaluation.multiclass import Evaluation, confident_mistakes
from regraft.evaluation.multilabel import MultilabelEvaluation
from regraft.evaluation.ranking import Curves, smallest_areas
from regraft.evaluation.words import DASH
from regraft.features import augmentation
from regraft.model.model import Model
from regraft.network.trunk import Tail
from regraft.report import evaluation_tables as tables
from regraft.report import grids, pages, plots
from regraft.report.explained import Explained, explained
from regraft.report.grids import Tile
from regraft.report.pages import Photo, chart, page
from regraft.training.history import History

ANSWERS = 12  # drawn at random
GRID_ANSWERS = 24  # the same, as one figure
MISTAKES = 24
CELL_PICTURES = 96  # of the confusion matrix in all …
WRONG_PICTURES, RIGHT_PICTURES = 12, 4  # … and of a cell at most, off the diagonal and on it
UPRIGHT_CLASSES, UPRIGHT_LENGTH = 6, 8  # with more classes or longer names, those above the matrix stand upright
INPUT_IMAGES, INPUTS_PER_IMAGE = 3, 5  # of what the network sees
MATRIX_CLASSES = 30  # up to here the confusion matrix is readable; the most confused pairs are always listed
LISTED_FILES = 50
OUTCOME = "verdict"  # the key of model.json for the sentence on whether fine-tuning helped
NOT_LISTED = ("tried", "phases", OUTCOME)  # of what training chose: too long for a table, or shown elsewhere
CHOSEN = {"how": "chosen by", "judged_on": "chosen on"}  # what the page calls them
NO_LABEL = "none of the labels"


@dataclass(frozen=True)
class Evaluated:
    """The images of an evaluation.

    index:         its rows, n of them.
    probabilities: (n, n_classes).
    source:        the whole index, with the broken and the ignored rows.
    trained_on:    how many of the rows were trained on.
    """

    index: Index
    probabilities: np.ndarray
    source: Index
    trained_on: int = 0


class Answer(NamedTuple):
    """What the model predicted for one image."""

    path: str
    thumbnail: bytes | None  # JPEG or PNG, see `thumbnail`; None if there is no picture to show
    true: str
    predicted: str
    probability: float | None  # of the predicted class; None where it has several labels
    why: Explained = Explained()

    @property
    def wrong(self) -> bool:
        """Whether the image is of another class."""
        return self.predicted != self.true


class Cell(NamedTuple):
    """One cell of the confusion matrix."""

    column: int
    images: int
    share: float  # of the true class's images
    pictures: Sequence[Answer]


class Phase(NamedTuple):
    """One phase of the training, and its result."""

    name: str
    epochs: int  # 0 if it was solved in one step
    loss: float  # on the validation images, as is the accuracy
    accuracy: float
    kept: bool  # whether its weights are the model's
    outcome: str = ""  # whether it helped, a sentence of `significance.Paired`


class LeftOut(NamedTuple):
    """One file that was not used."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page shows; what is empty is left out of it."""

    title: str
    evaluation: Evaluation | MultilabelEvaluation
    part: str  # what was evaluated, e.g. "test part"
    trained_on: int = 0  # images; where there are any, the accuracy is no headline
    notes: Sequence[str] = ()  # what a reader of the number must know, e.g. that the model was trained on these images
    recipe: Mapping[str, str] = field(default_factory=dict)  # how the model was made: name → value, in order
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # part → class → images
    history: Sequence[Mapping[str, Any]] = ()  # rows as `History.to_list` gives them
    watch: plots.Watch = "loss"  # the measure that chose the best epoch
    phases: Sequence[Phase] = ()
    inputs: Sequence[Tile] = ()  # what the network sees of some training images
    answers: Sequence[Answer] = ()  # to a sample of the images, drawn at random
    cells: Mapping[tuple[int, int], Sequence[Answer]] = field(default_factory=dict)  # (true, predicted) → some of them
    shortcuts: Shortcuts | None = None  # how well what is not the thing itself predicts the class
    rankings: Mapping[str, Curves] = field(default_factory=dict)  # ROC and precision-recall of some classes
    made: Mapping[str, str] = field(default_factory=dict)  # how the page was made, from `pages.made`
    mistakes: Sequence[Answer] = ()  # the most confident first
    broken: Sequence[LeftOut] = ()
    ignored: Sequence[LeftOut] = ()


def render(
    model: Model,
    part: str,
    evaluation: Evaluation | MultilabelEvaluation,
    notes: Sequence[str] = (),
    evaluated: Evaluated | None = None,
    made: Mapping[str, str] | None = None,
    shortcuts: Shortcuts | None = None,
) -> str:
    """Return the page as the text of one HTML file; without `evaluated` it has no photographs.

    part:  what was evaluated: "train", "validation", "test", "all" or "cross-validation".
    notes: what a reader of the number must know.
    made:  how the page was made, from `pages.made`; how the model was made stands below it.
    shortcuts: how well what is not the thing itself predicts the class.
    """
    notes = (*notes, *(shortcuts.warnings() if shortcuts else ()))
    contents = _page(model, part, evaluation, notes, evaluated, made or {})
    return render_page(replace(contents, shortcuts=shortcuts))


def grid(model: Model, evaluated: Evaluated, count: int = GRID_ANSWERS) -> Figure:
    """Return a sample of the images, drawn at random, with the model's answers, the wrong ones marked."""
    rows = grids.sample(len(evaluated.index), count, model.options.get("seed", 0))
    images = {row: pixels for row in rows if (pixels := _pixels(evaluated.index.rows[row])) is not None}
    labels = np.array(evaluated.index.label_codes(model.classes))
    readable = list(images)
    tiles = grids.predictions(list(images.values()), evaluated.probabilities[readable], labels[readable], model.classes)
    return grids.grid(tiles)


def render_page(contents: Page) -> str:
    """Return a page as the text of one HTML file, to be written as UTF-8."""
    classes = contents.evaluation if isinstance(contents.evaluation, Evaluation) else None
    return page(
        "evaluation.html" if classes else "multilabel.html",
        page=contents,
        evaluation=contents.evaluation,
        means=tables.means(contents.evaluation),
        scores=tables.scores(contents.evaluation),
        ranking=tables.ranking(contents.evaluation),
        shortcuts=contents.shortcuts.rows() if contents.shortcuts else (),
        rankings=chart(partial(plots.ranking_curves, contents.rankings)),
        inputs=[Photo(pages.thumbnail(Image.fromarray(tile.image)), tile.caption) for tile in contents.inputs],
        diagnosis=diagnosis.sentence(
            History.from_list(contents.history), diagnosis.chance(contents.counts) if classes else None
        ),
        counts=chart(partial(plots.class_counts, contents.counts)) if contents.counts else None,
        counts_in_words=_counts_in_words(contents.counts),
        curves=chart(partial(plots.training_curves, contents.history, contents.watch)),
        phases=_phase_rows(contents.phases),
        listed_files=LISTED_FILES,
        made={**contents.made, **contents.recipe},
        **(_of_classes(classes, contents.cells) if classes else {}),
    )


def _of_classes(evaluation: Evaluation, pictures: Mapping[tuple[int, int], Sequence[Answer]]) -> dict[str, Any]:
    """Return what `evaluation.html` shows where each image is of one class."""
    names, readable = evaluation.classes, len(evaluation.classes) <= MATRIX_CLASSES
    return {
        "always_largest": max(scores["n"] for scores in evaluation.per_class.values()) / evaluation.n,
        "confused": tables.confused(evaluation),
        "measures": tables.measures(evaluation),
        "coverage": tables.coverage(evaluation),
        "reliability": chart(partial(plots.reliability, evaluation.reliability or ())),
        "prediction_sets": prediction_sets.rows(evaluation.prediction_sets or ()),
        "matrix": _matrix(evaluation, pictures) if readable else [],
        "cells": pictures,
        "upright": len(names) > UPRIGHT_CLASSES or max(map(len, names)) > UPRIGHT_LENGTH,
    }


def _matrix(evaluation: Evaluation, pictures: Mapping[tuple[int, int], Sequence[Answer]]) -> list[list[Cell]]:
    """Return the rows of the confusion matrix, one for each true class."""
    return [
        [
            Cell(column, images, images / max(1, sum(counts)), pictures.get((row, column), ()))
            for column, images in enumerate(counts)
        ]
        for row, counts in enumerate(evaluation.confusion)
    ]


def _phase_rows(phases: Sequence[Phase]) -> list[list[str]]:
    rows = [
        [
            phase.name + (" (kept)" if phase.kept else ""),
            f"{phase.epochs:,}" if phase.epochs else DASH,
            f"{phase.loss:.3f}",
            percent(phase.accuracy),
            phase.outcome or DASH,
        ]
        for phase in phases
    ]
    return [["Phase", "Epochs", "Loss", "Accuracy %", "Did it help?"], *rows]


def _counts_in_words(counts: Mapping[str, Mapping[str, int]]) -> str:
    totals = ", ".join(f"{sum(images.values()):,} {part}" for part, images in counts.items())
    return f"Bars of how many images each class has: {totals}."


# What is shown


def _page(
    model: Model,
    part: str,
    evaluation: Evaluation | MultilabelEvaluation,
    notes: Sequence[str],
    evaluated: Evaluated | None,
    made: Mapping[str, str],
) -> Page:
    left_out = evaluated.source if evaluated else Index(())
    return Page(
        title=" · ".join(model.classes) if len(model.classes) <= 5 else f"{len(model.classes)} classes",
        evaluation=evaluation,
        trained_on=evaluated.trained_on if evaluated else 0,
        part=f"{part} part" if part in PARTS else "whole source" if part == "all" else part,
        notes=notes,
        recipe=_recipe(model),
        counts=_counts(model),
        history=model.history.to_list(),
        watch=model.options.get("watch", "loss"),
        phases=_phases(model),
        inputs=_inputs(model, evaluated.source) if evaluated else (),
        answers=_answers(model, evaluated) if evaluated else (),
        mistakes=_mistakes(model, evaluated) if evaluated else (),
        cells=_cells(model, evaluated) if evaluated else {},
        rankings=smallest_areas(
            evaluation.ranking or {}, evaluated.probabilities, evaluated.index.label_flags(model.classes), plots.RANKED
        )
        if evaluated
        else {},
        made=made,
        broken=[LeftOut(row.path, row.reason) for row in left_out.broken],
        ignored=[LeftOut(row.path, row.reason) for row in left_out.ignored],
    )


def _counts(model: Model) -> dict[str, Mapping[str, int]]:
    """Return how many images of each class each part has, for parts that have any."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in PARTS}
    for label, part in model.images.values():
        counts[part].update(as_labels(label) if model.loss.multilabel else [label])
    return {part: classes for part, classes in counts.items() if classes}


def _recipe(model: Model) -> dict[str, str]:
    """Return how a model was made, in words and in order."""
    recipes = [trunk.recipe for trunk in model.trunks]
    chosen = {name: str(value) for name, value in model.chosen.items() if name not in NOT_LISTED}
    return {
        "backbone": _listed(recipe.architecture for recipe in recipes),
        "weights": _listed(f"{recipe.weights['source']} {recipe.weights['name']}".strip() for recipe in recipes),
        "cut": _listed(recipe.cut for recipe in recipes)
        + (f", the network above it {_up_to(model.tail)}trained as well" if model.tail else ""),
        "input": _listed(f"{recipe.preprocess.size} pixels, {recipe.preprocess.resize}" for recipe in recipes),
        "head": model.head_name,
        **{CHOSEN.get(name, name.replace("_", " ")): value for name, value in chosen.items()},
        "seed": str(model.options.get("seed", "")),
        "trained with": pages.listed_versions(model.versions),
    }


def _listed(values: Iterable[str]) -> str:
    """Return a value of each backbone, in order; equal ones once."""
    return " + ".join(dict.fromkeys(values))


def _up_to(tail: Tail) -> str:
    return f"up to {tail.end} " if tail.end else ""


def _phases(model: Model) -> list[Phase]:
    """Return the phases of a fine-tuning; the last one with the sentence on whether it helped."""
    phases = model.chosen.get("phases", ())
    return [
        Phase(
            name=_phase_name(phase),
            epochs=phase["epochs"],
            loss=phase["loss"],
            accuracy=phase["accuracy"],
            kept=phase["phase"] == model.chosen["kept"],
            outcome=model.chosen.get(OUTCOME, "") if phase is phases[-1] else "",
        )
        for phase in phases
    ]


def _phase_name(phase: Mapping[str, Any]) -> str:
    share = phase.get("share", 1)
    return phase["phase"] if share == 1 else f"{phase['phase']}, {share:.0%} of the way to its weights"


def _inputs(model: Model, source: Index) -> list[Tile]:
    """Return what the network saw of some of the images that it was trained on, and of their views."""
    rows = [row for row in source.used if model.part_of(row.id) == "train"]
    options = {"views": 0, "augmentation": "standard", "seed": 0, **model.options}
    counts = list(source.with_rows(rows).class_counts.values())
    views = augmentation.wanted(options["views"], options["augmentation"], options["seed"], counts)
    views = views[: INPUTS_PER_IMAGE - 1]
    tiles: list[Tile] = []
    for number in grids.sample(len(rows), INPUT_IMAGES * (1 if views else INPUTS_PER_IMAGE), options["seed"]):
        row = rows[number]
        if (pixels := _pixels(row)) is not None:
            tiles += grids.inputs(str(row.label), pixels, model.trunks[0].preprocess, row.id, views)
    return tiles


def _answers(model: Model, evaluated: Evaluated) -> list[Answer]:
    """Return the answers to a sample of the images, drawn at random."""
    rows = grids.sample(len(evaluated.index), ANSWERS, model.options.get("seed", 0))
    return [_answer(model, evaluated, row) for row in rows]


def _mistakes(model: Model, evaluated: Evaluated) -> list[Answer]:
    """Return the most confident wrong answers; none where an image may have several labels."""
    if model.loss.multilabel:
        return []
    codes = evaluated.index.label_codes(model.classes)
    numbers = [row for row, _, _ in confident_mistakes(evaluated.probabilities, codes, MISTAKES)]
    mistakes = [_answer(model, evaluated, number) for number in numbers]
    rows = [evaluated.index.rows[number] for number in numbers]
    reasons = explained(model, rows, [mistake.predicted for mistake in mistakes])
    return [mistake._replace(why=why) for mistake, why in zip(mistakes, reasons, strict=True)]


def _cells(model: Model, evaluated: Evaluated) -> dict[tuple[int, int], list[Answer]]:
    """Return images for the cells of the confusion matrix, the most confident of each: wrong ones first, as room is."""
    if model.loss.multilabel or len(model.classes) > MATRIX_CLASSES:
        return {}
    numbers: dict[tuple[int, int], list[int]] = {}
    codes, predicted = evaluated.index.label_codes(model.classes), evaluated.probabilities.argmax(axis=1).tolist()
    for number in np.argsort(-evaluated.probabilities.max(axis=1), kind="stable").tolist():
        numbers.setdefault((codes[number], predicted[number]), []).append(number)
    cells, room = {}, CELL_PICTURES
    for cell in sorted(numbers, key=lambda cell: (cell[0] == cell[1], -len(numbers[cell]), cell)):
        chosen = numbers[cell][: min(room, RIGHT_PICTURES if cell[0] == cell[1] else WRONG_PICTURES)]
        room -= len(chosen)
        cells[cell] = [_answer(model, evaluated, number) for number in chosen]
    return cells


def _answer(model: Model, evaluated: Evaluated, number: int) -> Answer:
    row, probabilities = evaluated.index.rows[number], evaluated.probabilities[number]
    image = pages.thumbnail_of(row)
    if model.loss.multilabel:
        (labels,) = model.predicted_labels(probabilities[None])
        return Answer(row.path, image, row.label or NO_LABEL, LABEL_SEPARATOR.join(labels) or NO_LABEL, None)
    best = int(probabilities.argmax())
    return Answer(row.path, image, str(row.label), model.classes[best], float(probabilities[best]))


def _pixels(row: Row) -> np.ndarray | None:
    """Return a row's picture; None if its file is missing or changed by now."""
    try:
        return decode(row.location.read())
    except (OSError, BrokenImage):
        return None
