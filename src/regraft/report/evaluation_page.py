"""The page of a model or of its evaluation: how good it is, on which images it is wrong, how it was trained.

A model and its measures enter, with the evaluated images if there are any; the
text of one HTML file leaves. What is shown is chosen here and put into a `Page`;
the layout is in `evaluation.html`, and for images of several labels in
`multilabel.html`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from regraft.core.text import percent
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import PARTS, Index, Row
from regraft.data.labels import LABEL_SEPARATOR, as_labels
from regraft.evaluation import diagnosis
from regraft.evaluation.multiclass import Evaluation, confident_mistakes, most_confused
from regraft.evaluation.multilabel import MultilabelEvaluation
from regraft.evaluation.words import score_words
from regraft.features import augmentation
from regraft.model.model import Model
from regraft.network.trunk import Tail
from regraft.report import grids, plots
from regraft.report.grids import Tile
from regraft.report.pages import page, picture, thumbnail
from regraft.training.history import History

ANSWERS = 24  # drawn at random
MISTAKES = 24
INPUT_IMAGES, INPUTS_PER_IMAGE = 3, 5  # of what the network sees
MATRIX_CLASSES = 30  # up to here the confusion matrix is readable; the most confused pairs are always listed
LISTED_FILES = 50
LISTED_PAIRS = 10
OUTCOME = "verdict"  # the key of model.json for the sentence on whether fine-tuning helped
NOT_LISTED = ("tried", "phases", OUTCOME)  # of what training chose: too long for a table, or shown elsewhere
CHOSEN = {"how": "chosen by", "judged_on": "chosen on"}  # what the page calls them
NO_LABEL = "none of the labels"

# Further measures: the field of Evaluation, its name, its unit, its meaning.
MEASURES = (
    ("log_loss", "Log loss", "", "0 is best; being wrong with high confidence costs most"),
    ("balanced_accuracy", "Balanced accuracy", "%", "mean recall of the classes with images, each counted alike"),
    ("top_5_accuracy", "Top-5 accuracy", "%", "how often the true class is among the five most probable"),
    ("cohen_kappa", "Cohen's kappa", "", "agreement beyond that of chance; 1 is perfect, 0 is chance"),
    ("matthews", "Matthews correlation", "", "correlation of labels and predictions, from \N{MINUS SIGN}1 to 1"),
    ("roc_auc", "ROC AUC", "", "how often an image of one class is ranked above one of the other"),
    ("brier", "Brier score", "", "mean squared error of the probabilities, from 0 to 2; 0 is best"),
    ("calibration_error", "Calibration error", "%", "how far confidence is from accuracy, in 15 bins; 0 is best"),
)


@dataclass(frozen=True)
class Evaluated:
    """The images of an evaluation.

    index:         its rows, n of them.
    probabilities: (n, n_classes).
    source:        the whole index, with the broken and the ignored rows.
    """

    index: Index
    probabilities: np.ndarray
    source: Index


class Answer(NamedTuple):
    """What the model predicted for one image."""

    path: str
    thumbnail: bytes | None  # JPEG or PNG, see `thumbnail`; None if there is no picture to show
    true: str
    predicted: str
    probability: float | None  # of the predicted class; None where it has several labels

    @property
    def wrong(self) -> bool:
        """Whether the image is of another class."""
        return self.predicted != self.true


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
    notes: Sequence[str] = ()  # what a reader of the number must know, e.g. that the model was trained on these images
    recipe: Mapping[str, str] = field(default_factory=dict)  # how the model was made: name → value, in order
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # part → class → images
    history: Sequence[Mapping[str, Any]] = ()  # rows as `History.to_list` gives them
    watch: plots.Watch = "loss"  # the measure that chose the best epoch
    phases: Sequence[Phase] = ()
    inputs: Sequence[Tile] = ()  # what the network sees of some training images
    answers: Sequence[Answer] = ()  # to a sample of the images, drawn at random
    mistakes: Sequence[Answer] = ()  # the most confident first
    broken: Sequence[LeftOut] = ()
    ignored: Sequence[LeftOut] = ()


def render(
    model: Model,
    part: str,
    evaluation: Evaluation | MultilabelEvaluation,
    notes: Sequence[str] = (),
    evaluated: Evaluated | None = None,
) -> str:
    """Return the page as the text of one HTML file; without `evaluated` it has no photographs.

    part:  what was evaluated: "train", "validation", "test", "all" or "cross-validation".
    notes: what a reader of the number must know.
    """
    return render_page(_page(model, part, evaluation, notes, evaluated))


def grid(model: Model, evaluated: Evaluated, count: int = ANSWERS) -> Figure:
    """Return a sample of the images, drawn at random, with the model's answers, the wrong ones marked."""
    rows = grids.sample(len(evaluated.index), count, model.options.get("seed", 0))
    images = {row: pixels for row in rows if (pixels := _pixels(evaluated.index.rows[row])) is not None}
    labels = np.array(evaluated.index.label_codes(model.classes))
    readable = list(images)
    tiles = grids.predictions(list(images.values()), evaluated.probabilities[readable], labels[readable], model.classes)
    return grids.grid(tiles)


def render_page(contents: Page) -> str:
    """Return a page as the text of one HTML file, to be written as UTF-8."""
    curves = plots.training_curves(contents.history, contents.watch)
    classes = contents.evaluation if isinstance(contents.evaluation, Evaluation) else None
    return page(
        "evaluation.html" if classes else "multilabel.html",
        page=contents,
        evaluation=contents.evaluation,
        means=_means(contents.evaluation),
        inputs=[(tile.caption, thumbnail(Image.fromarray(tile.image))) for tile in contents.inputs],
        diagnosis=diagnosis.sentence(
            History.from_list(contents.history), diagnosis.chance(contents.counts) if classes else None
        ),
        counts=picture(plots.class_counts(contents.counts)) if contents.counts else "",
        curves=picture(curves) if curves else "",
        listed_files=LISTED_FILES,
        **(_of_classes(classes) if classes else {}),
    )


def _of_classes(evaluation: Evaluation) -> dict[str, Any]:
    """Return what `evaluation.html` shows where each image is of one class."""
    readable = len(evaluation.classes) <= MATRIX_CLASSES
    return {
        "always_largest": max(scores["n"] for scores in evaluation.per_class.values()) / evaluation.n,
        "confused": most_confused(evaluation, LISTED_PAIRS),
        "measures": _measures(evaluation),
        "confusion": picture(plots.confusion_matrix(evaluation)) if readable else "",
    }


def _means(evaluation: Evaluation | MultilabelEvaluation) -> str:
    """Return the mean scores, and over how many classes or labels they are."""
    scores = score_words(evaluation.macro)
    return f"{scores[0].upper()}{scores[1:]}: {evaluation.means()}"


def _measures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of the further measures that the evaluation has."""
    return [
        (name, f"{percent(value)} %" if unit else f"{value:.3f}", meaning)
        for measure, name, unit, meaning in MEASURES
        if (value := getattr(evaluation, measure)) is not None
    ]


# What is shown


def _page(
    model: Model,
    part: str,
    evaluation: Evaluation | MultilabelEvaluation,
    notes: Sequence[str],
    evaluated: Evaluated | None,
) -> Page:
    left_out = evaluated.source if evaluated else Index(())
    return Page(
        title=" · ".join(model.classes) if len(model.classes) <= 5 else f"{len(model.classes)} classes",
        evaluation=evaluation,
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
    recipe = model.trunk.describe()
    chosen = {name: str(value) for name, value in model.chosen.items() if name not in NOT_LISTED}
    return {
        "backbone": recipe["architecture"],
        "weights": " ".join(filter(None, (recipe["weights"]["source"], recipe["weights"]["name"]))),
        "cut": recipe["cut"] + (f", the network above it {_up_to(model.tail)}trained as well" if model.tail else ""),
        "input": f"{model.trunk.preprocess.size} pixels, {model.trunk.preprocess.resize}",
        "head": model.head_name,
        **{CHOSEN.get(name, name.replace("_", " ")): value for name, value in chosen.items()},
        "seed": str(model.options.get("seed", "")),
        "versions": ", ".join(f"{name} {version}" for name, version in model.versions.items()),
    }


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
            tiles += grids.inputs(str(row.label), pixels, model.trunk.preprocess, row.id, views)
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
    mistakes = confident_mistakes(evaluated.probabilities, codes, MISTAKES)
    return [_answer(model, evaluated, row) for row, _, _ in mistakes]


def _answer(model: Model, evaluated: Evaluated, number: int) -> Answer:
    row, probabilities = evaluated.index.rows[number], evaluated.probabilities[number]
    pixels = _pixels(row)
    image = None if pixels is None else thumbnail(Image.fromarray(pixels))
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
