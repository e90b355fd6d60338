"""The evaluation of a model where each image is of one class.

Probabilities and labels enter, an `Evaluation` leaves: as a dictionary for
machines, as lines for the terminal. The numbers are those of `metrics`; pictures
and pages are left to `report`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft.core.errors import DataError
from regraft.core.text import percent, shorten, table
from regraft.evaluation import metrics, prediction_sets, ranking
from regraft.evaluation.metrics import Answered, Bin, CountedScores, Means
from regraft.evaluation.prediction_sets import SetScores
from regraft.evaluation.ranking import RankingScores
from regraft.evaluation.significance import interval
from regraft.evaluation.words import (
    DASH,
    INDENT,
    NAME_WIDTH,
    SCORES_EXPLAINED,
    Mistake,
    means_words,
    most_frequent,
    pictures_words,
    quoted,
    score_cells,
    score_words,
    sentence_lines,
)

MATRIX_CLASSES = 12  # the terminal shows the confusion matrix up to here …
LISTED_CLASSES = 30  # … and every class up to here
TOP = 5  # of more classes than this, how often the true class is among the most probable is measured too
CONFIDENCES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
SUM_TOLERANCE = 1e-3  # how far from 1 the probabilities of an image may sum; half precision stays within


class ClassScores(CountedScores):
    """Scores of one class; a score of 0.0 was measured only if n or n_predicted, its denominator, is not 0."""

    recall_interval: tuple[float, float]  # 95 %; (0, 1) where the class has no image: nothing is known


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` measured.

    macro:      precision, recall and f1 as plain means over the classes that have images, see `metrics.Means`.
    confusion:  counts; rows are the true classes, columns the predicted ones, both in the order of `classes`.

    From `weighted` on a measure is None where it is not defined, and in models of before it was measured.
    """

    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]  # 95 %, see `significance.interval`
    log_loss: float  # in nats per image
    macro: Means
    per_class: dict[str, ClassScores]
    confusion: list[list[int]]
    classes: tuple[str, ...]
    weighted: Means | None = None  # as macro, each class weighted by its images
    balanced_accuracy: float | None = None  # mean recall of the classes that have images
    top_5_accuracy: float | None = None  # how often the class is among the five most probable; None up to five classes
    cohen_kappa: float | None = None  # agreement beyond that of chance, up to 1
    matthews: float | None = None  # correlation of labels and predictions, -1 to 1
    roc_auc: float | None = None  # of two classes alone
    brier: float | None = None  # mean squared error of the probabilities, summed over the classes, 0 to 2
    calibration_error: float | None = None  # see `metrics.calibration_error`
    uncalibrated_error: float | None = None  # the same without the model's temperature
    uncalibrated_log_loss: float | None = None
    coverage: list[Answered] | None = None  # by the least confidence that is answered, see CONFIDENCES
    reliability: list[Bin] | None = None  # confidence beside accuracy, see `metrics.reliability`
    ranking: dict[str, RankingScores] | None = None  # of each class against the rest; None of very many classes
    prediction_sets: list[SetScores] | None = None  # by the coverage that they are to have
    pictures: int | None = None  # how many the images show, where copies and near-duplicates count once
    learned_from: float = 1.0  # the fraction of the images that each model of a cross-validation was trained on

    @property
    def correct(self) -> int:
        """How many images were classified correctly."""
        return sum(self.confusion[code][code] for code in range(len(self.classes)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dictionaries; no number is NaN or infinite."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_dict` gave; whatever else is in `values` is ignored."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
        macro = metrics.means([*known["per_class"].values()])  # older ones counted classes without images
        return cls(**{**known, "classes": tuple(known["classes"]), "macro": macro})

    def means(self) -> str:
        """Return over how many classes the means are, as a clause."""
        return means_words(self.macro, len(self.classes), "classes")

    def repeats(self) -> str:
        """Return how many pictures the images show, as a clause; "" if each image shows another one."""
        return pictures_words(self.pictures, self.n)

    def summary(self) -> str:
        """Return in one sentence how many are right, and which class is taken for which most often."""
        if self.correct == self.n:
            return f"All {self.n:,} right."
        mistakes = [
            Mistake(pair.images, f"{quoted(pair.true)} taken for {quoted(pair.predicted)}")
            for pair in most_confused(self)
        ]
        return f"{self.correct:,} of {self.n:,} right; {most_frequent(mistakes)}."

    def text(self) -> str:
        """Return the lines for the terminal; classes beyond the thirty with the lowest F1 are only counted."""
        blocks = [_headline(self), _class_lines(self)]
        if len(self.classes) <= MATRIX_CLASSES:
            blocks.append(_confusion_lines(self))
        if self.coverage:
            blocks.append(_coverage_lines(self.coverage))
        if self.prediction_sets:
            blocks.append(table(prediction_sets.rows(self.prediction_sets)))
        return "\n\n".join("\n".join(lines) for lines in blocks)


def evaluate(
    probabilities: NDArray[Any],
    labels: NDArray[Any] | Sequence[int],
    classes: Sequence[str],
    uncalibrated: NDArray[Any] | None = None,
    pictures: NDArray[np.integer] | None = None,
    sets: Mapping[float, NDArray[np.bool_]] | None = None,
    learned_from: float = 1.0,
) -> Evaluation:
    """Return how good a model's predictions are; the prediction for an image is its most probable class.

    probabilities: (n_images, n_classes) float, rows sum to 1 (not logits).
    labels:        (n_images,) int, each image's true class as an index of `classes`.
    classes:       names, all different; a class need not have an image here.
    uncalibrated:  the probabilities without the model's temperature, if it has one.
    pictures:      (n_images,) int, equal for versions of one picture, which count once in intervals; None: all differ.
    learned_from:  in a cross-validation, the fraction of the images that each model was trained on; see
                   `significance.interval`.
    sets:          prediction sets, (n_images, n_classes) bool, by the coverage that they are to have.
    Raises DataError if shapes, labels or probabilities are invalid.
    """
    rows, codes = _checked(probabilities, labels, classes)
    pictures = np.arange(len(codes)) if pictures is None else pictures
    correct = rows.argmax(axis=1) == codes
    confusion = metrics.confusion_matrix(codes, rows.argmax(axis=1), len(classes))
    intervals = [
        interval(correct[of], pictures[of], learned_from) for of in (codes == code for code in range(len(classes)))
    ]
    per_class = _per_class(confusion, intervals, classes)
    return Evaluation(
        n=len(codes),
        accuracy=float(correct.mean()),
        accuracy_interval=interval(correct, pictures, learned_from),
        log_loss=metrics.log_loss(rows, codes),
        macro=metrics.means([*per_class.values()]),
        per_class=per_class,
        confusion=confusion.tolist(),
        classes=tuple(classes),
        weighted=metrics.means([*per_class.values()], weighted=True),
        balanced_accuracy=metrics.means([*per_class.values()])["recall"],
        top_5_accuracy=metrics.top_k_accuracy(rows, codes, TOP) if len(classes) > TOP else None,
        cohen_kappa=metrics.cohen_kappa(confusion),
        matthews=metrics.matthews_correlation(confusion),
        roc_auc=metrics.roc_auc(rows[:, 1], codes) if len(classes) == 2 else None,
        brier=metrics.brier_score(rows, codes),
        calibration_error=metrics.calibration_error(rows, codes),
        uncalibrated_error=None if uncalibrated is None else metrics.calibration_error(uncalibrated, codes),
        uncalibrated_log_loss=None if uncalibrated is None else metrics.log_loss(uncalibrated, codes),
        coverage=metrics.coverage(rows, codes, CONFIDENCES),
        reliability=metrics.reliability(rows, codes, pictures),
        ranking=ranking.scores(rows, np.eye(len(classes), dtype=bool)[codes], classes, pictures),
        prediction_sets=[prediction_sets.measure(coverage, held, codes, pictures) for coverage, held in sets.items()]
        if sets
        else None,
        pictures=len(np.unique(pictures)),
        learned_from=learned_from,
    )


def confident_mistakes(
    probabilities: NDArray[Any], labels: NDArray[Any] | Sequence[int], limit: int
) -> list[tuple[int, int, float]]:
    """Return (row, predicted class, its probability) of wrong predictions, most confident first, at most `limit`."""
    rows, codes = np.asarray(probabilities), np.asarray(labels)
    predicted = rows.argmax(axis=1)
    wrong = np.flatnonzero(predicted != codes)
    confidence = rows[wrong, predicted[wrong]]
    order = np.argsort(-confidence, kind="stable")[:limit]
    return [(int(wrong[at]), int(predicted[wrong[at]]), float(confidence[at])) for at in order]


class Confusion(NamedTuple):
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    images: int
    share: float  # of the true class's images


def most_confused(evaluation: Evaluation, limit: int | None = None) -> list[Confusion]:
    """Return the pairs of classes that were confused, the most frequent first, at most `limit`."""
    counts = np.array(evaluation.confusion)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    pairs = np.argwhere(counts)
    order = np.argsort(-counts[tuple(pairs.T)], kind="stable")[:limit]
    return [
        Confusion(
            evaluation.classes[true],
            evaluation.classes[predicted],
            int(counts[true, predicted]),
            float(counts[true, predicted] / totals[true]),
        )
        for true, predicted in pairs[order].tolist()
    ]


def _checked(
    probabilities: NDArray[Any], labels: NDArray[Any] | Sequence[int], classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows, codes = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise DataError(f"Classes are {shorten(repr(list(classes)), 200)}; expected at least two, all different.")
    if not len(codes) or rows.shape != (len(codes), len(classes)):
        raise DataError(
            f"Probabilities have the shape {rows.shape} for {len(codes)} labels and {len(classes)} classes; "
            "expected a row for each image, at least one, and a column for each class."
        )
    if codes.ndim != 1 or codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= len(classes):
        raise DataError(f"Labels must be whole numbers from 0 to {len(classes) - 1}, one per image; got {codes!r}.")
    sums = rows.sum(axis=1)
    off = np.flatnonzero(~((rows >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE)))  # NaN is off as well
    if len(off):
        raise DataError(
            f"Row {off[0]} of the probabilities is {shorten(repr(rows[off[0]]), 200)}; expected numbers from 0 "
            f"that sum to 1. {len(off)} of {len(rows)} rows are off; logits must go through softmax first."
        )
    return rows / sums[:, np.newaxis], codes.astype(np.int64)


def _per_class(
    confusion: NDArray[np.int64], intervals: Sequence[tuple[float, float]], classes: Sequence[str]
) -> dict[str, ClassScores]:
    n, n_predicted, n_correct = (
        counts.tolist() for counts in (confusion.sum(axis=1), confusion.sum(axis=0), confusion.diagonal())
    )
    return {
        name: {
            **metrics.scores(n[code], n_predicted[code], n_correct[code]),
            "n": n[code],
            "n_predicted": n_predicted[code],
            "recall_interval": intervals[code],
        }
        for code, name in enumerate(classes)
    }


# Text


def _headline(evaluation: Evaluation) -> list[str]:
    low, high = map(percent, evaluation.accuracy_interval)
    return [
        f"accuracy  {percent(evaluation.accuracy)} % (95 % interval: {low}{DASH}{high})",
        *sentence_lines(evaluation.summary()),
        *sentence_lines(evaluation.repeats()),
        f"macro     {score_words(evaluation.macro)}",
        *sentence_lines(evaluation.means()),
        *sentence_lines(SCORES_EXPLAINED),
        f"log loss  {evaluation.log_loss:.3f}; 0 is best, confident mistakes cost most",
        *(f"{'' if line else 'also':{INDENT}}{words}" for line, words in enumerate(_further(evaluation))),
    ]


def _further(evaluation: Evaluation) -> list[str]:
    """Return the further measures that the evaluation has, with what they mean."""
    measures = [
        ({"balanced accuracy": evaluation.balanced_accuracy}, " %", "mean recall, classes with images"),
        ({f"top-{TOP}": evaluation.top_5_accuracy}, " %", "the true class is among the five most probable"),
        ({"kappa": evaluation.cohen_kappa, "Matthews": evaluation.matthews}, "", "1 is perfect, 0 is chance"),
        ({"ROC AUC": evaluation.roc_auc}, "", "1 is perfect, 0.5 is chance"),
        ({"calibration error": evaluation.calibration_error}, " %", "confidence against accuracy; 0 is best"),
        ({"without its temperature": evaluation.uncalibrated_error}, " %", "that error as the head gives it"),
        ({"Brier": evaluation.brier}, "", "squared error of the probabilities; 0 is best"),
    ]
    return [f"{_numbers(values, unit)}; {meaning}" for values, unit, meaning in measures if _numbers(values, unit)]


def _numbers(values: Mapping[str, float | None], unit: str) -> str:
    known = {name: value for name, value in values.items() if value is not None}
    return ", ".join(f"{name} {percent(value) if unit else f'{value:.3f}'}{unit}" for name, value in known.items())


def _coverage_lines(coverage: Sequence[Answered]) -> list[str]:
    rows = [[row["confidence"], row["n"], row["n_correct"]] for row in coverage]
    total = coverage[0]["n"]
    cells = [[f"{100 * least:g}", percent(n / total), percent(right / n) if n else DASH] for least, n, right in rows]
    return table([["confident from %", "answered %", "of these right %"], *cells])


def _class_lines(evaluation: Evaluation) -> list[str]:
    ranked = sorted(evaluation.classes, key=lambda name: evaluation.per_class[name]["f1"])
    listed = set(ranked[:LISTED_CLASSES])
    rows = [
        [shorten(name, NAME_WIDTH), f"{scores['n']:,}", *score_cells(scores)]
        for name, scores in evaluation.per_class.items()
        if name in listed
    ]
    hidden = len(ranked) - len(listed)
    more = [f"and {hidden:,} classes with a higher F1; --json lists all"] if hidden else []
    return [*table([["class", "images", "precision", "recall", "F1"], *rows]), *more]


def _confusion_lines(evaluation: Evaluation) -> list[str]:
    letters = [chr(ord("a") + code) for code in range(len(evaluation.classes))]
    names = [
        f"{letter} = {shorten(name, NAME_WIDTH)}" for letter, name in zip(letters, evaluation.classes, strict=True)
    ]
    rows = [[name, *(f"{count:,}" for count in row)] for name, row in zip(names, evaluation.confusion, strict=True)]
    return table([["true \\ predicted", *letters], *rows])
