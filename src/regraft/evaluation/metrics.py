"""Measures: how good the probabilities are that a model gave to images of known class.

Probabilities and labels enter, an `Evaluation` leaves: as a dictionary for
machines, as lines for the terminal. scikit-learn does the counting. Pictures are left to `curves`, pages to `report`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from regraft.core.errors import DataError
from regraft.core.text import percent, shorten, table
from regraft.evaluation.significance import wilson

MATRIX_CLASSES = 12  # the terminal shows the confusion matrix up to here …
LISTED_CLASSES = 30  # … and every class up to here
DASH = "\N{EN DASH}"
NAME_WIDTH = 40  # in cells of the terminal
TOP = 5  # an answer counts as near if the true class is among so many; said only of more classes than that
CALIBRATION_BINS = 15
SUM_TOLERANCE = 1e-3  # how far from 1 the probabilities of an image may sum; half precision stays within


class Scores(TypedDict):
    """Three shares; one whose denominator is 0 is given as 0.0."""

    precision: float
    recall: float
    f1: float


class ClassScores(Scores):
    """Measures of one class; n or n_predicted tells whether a share of 0.0 was counted."""

    n: int  # images of this class
    n_predicted: int  # images that were called this class
    recall_interval: tuple[float, float]  # 95 %; (0, 1) where the class has no image: nothing is known


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` found.

    macro:      precision, recall and f1 as plain means over the classes that occur, as a label or as a prediction.
    confusion:  counts; rows are the true classes, columns the predicted ones, both in the order of `classes`.

    From `weighted` on a measure is None where it is not defined, and in what was measured before there was it.
    """

    n: int
    accuracy: float
    accuracy_interval: tuple[float, float]  # 95 %, Wilson
    log_loss: float  # in nats per image
    macro: dict[str, float]
    per_class: dict[str, ClassScores]
    confusion: list[list[int]]
    classes: tuple[str, ...]
    weighted: dict[str, float] | None = None  # as macro, each class counted by its images
    balanced_accuracy: float | None = None  # mean recall of the classes that have images
    top_5_accuracy: float | None = None  # share whose class is among the five most probable; None up to five classes
    cohen_kappa: float | None = None  # agreement beyond that of chance, up to 1
    matthews: float | None = None  # correlation of labels and predictions, -1 to 1
    roc_auc: float | None = None  # of two classes alone
    brier: float | None = None  # mean squared error of the probabilities, summed over the classes, 0 to 2
    calibration_error: float | None = None  # see `calibration_error`

    @property
    def correct(self) -> int:
        """How many images were classified right."""
        return sum(self.confusion[code][code] for code in range(len(self.classes)))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings, lists and dictionaries; no number is NaN or infinite."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_dict` gave; what else is in `values` is left."""
        found = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
        return cls(**{**found, "classes": tuple(found["classes"])})

    def text(self) -> str:
        """Return the lines for the terminal; classes beyond the thirty with the lowest F1 are only counted."""
        blocks = [_headline(self), _class_lines(self)]
        if len(self.classes) <= MATRIX_CLASSES:
            blocks.append(_confusion_lines(self))
        return "\n\n".join("\n".join(lines) for lines in blocks)


def evaluate(probabilities: NDArray[Any], labels: NDArray[Any] | Sequence[int], classes: Sequence[str]) -> Evaluation:
    """Return the measures of a model's answers; the answer to an image is its most probable class.

    probabilities: (n_images, n_classes) float, rows sum to 1 (not logits).
    labels:        (n_images,) int, each image's true class as its place in `classes`.
    classes:       names, all different; a class need not have an image here.
    Raises DataError if shapes, labels or probabilities can't be meant.
    """
    from sklearn.metrics import confusion_matrix, log_loss

    shares, codes = _checked(probabilities, labels, classes)
    every, predicted = range(len(classes)), shares.argmax(axis=1)
    confusion = confusion_matrix(codes, predicted, labels=every)
    per_class = _per_class(codes, predicted, classes)
    correct = int(confusion.trace())
    return Evaluation(
        n=len(codes),
        accuracy=correct / len(codes),
        accuracy_interval=wilson(correct, len(codes)),
        log_loss=float(log_loss(codes, shares, labels=every)),
        macro=means([scores for scores in per_class.values() if scores["n"] or scores["n_predicted"]]),
        per_class=per_class,
        confusion=confusion.tolist(),
        classes=tuple(classes),
        weighted=means([*per_class.values()], [scores["n"] for scores in per_class.values()]),
        balanced_accuracy=float(np.mean([scores["recall"] for scores in per_class.values() if scores["n"]])),
        top_5_accuracy=_top(shares, codes) if len(classes) > TOP else None,
        **_agreement(codes, predicted),
        roc_auc=_roc_auc(shares, codes),
        brier=float(((shares - np.eye(len(classes))[codes]) ** 2).sum(axis=1).mean()),
        calibration_error=calibration_error(shares, codes),
    )


def calibration_error(probabilities: NDArray[Any], labels: NDArray[Any] | Sequence[int]) -> float:
    """Return the expected calibration error, in [0, 1]: how far the model's sureness is from its accuracy; 0 is best.

    probabilities: (n_images, n_classes) float, rows sum to 1 (not logits).
    labels:        (n_images,) int class indices.

    In 15 bins of equal width of the sureness; empty ones add nothing. Source: Guo et al. 2017, arXiv:1706.04599.
    """
    shares = np.asarray(probabilities, dtype=np.float64)
    sureness, right = shares.max(axis=1), shares.argmax(axis=1) == np.asarray(labels)
    bins = np.ceil(sureness * CALIBRATION_BINS).astype(int)  # a bin holds its upper end, as in the paper
    return float(np.abs(np.bincount(bins, weights=right - sureness)).sum() / len(shares))


def means(scores: Sequence[Scores], weights: Sequence[int] | None = None) -> dict[str, float]:
    """Return the mean precision, recall and f1 of several classes or labels; zeros where there are none."""
    rows = [(one["precision"], one["recall"], one["f1"]) for one in scores] or [(0.0, 0.0, 0.0)]
    found = np.average(rows, axis=0, weights=weights).tolist()
    return dict(zip(("precision", "recall", "f1"), found, strict=True))


def confident_mistakes(
    probabilities: NDArray[Any], labels: NDArray[Any] | Sequence[int], limit: int
) -> list[tuple[int, int, float]]:
    """Return (row, predicted class, its probability) of wrong answers, the surest first, at most `limit`."""
    shares, codes = np.asarray(probabilities), np.asarray(labels)
    predicted = shares.argmax(axis=1)
    wrong = np.flatnonzero(predicted != codes)
    sureness = shares[wrong, predicted[wrong]]
    order = np.argsort(-sureness, kind="stable")[:limit]
    return [(int(wrong[at]), int(predicted[wrong[at]]), float(sureness[at])) for at in order]


class Confusion(NamedTuple):
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    images: int
    share: float  # of the true class's images


def most_confused(evaluation: Evaluation, limit: int) -> list[Confusion]:
    """Return the pairs of classes that were mixed up most often, at most `limit`."""
    counts = np.array(evaluation.confusion)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    places = [divmod(int(at), len(evaluation.classes)) for at in order]
    return [
        Confusion(evaluation.classes[true], evaluation.classes[guess], int(counts[true, guess]), share)
        for true, guess in places
        if counts[true, guess]
        for share in [float(counts[true, guess] / totals[true])]
    ]


def _checked(
    probabilities: NDArray[Any], labels: NDArray[Any] | Sequence[int], classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    shares, codes = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise DataError(f"Classes are {list(classes)!r}; expected at least two, all different.")
    if not len(codes) or shares.shape != (len(codes), len(classes)):
        raise DataError(
            f"Probabilities have the shape {shares.shape} for {len(codes)} labels and {len(classes)} classes; "
            "expected a row for each image, at least one, and a column for each class."
        )
    if codes.ndim != 1 or codes.dtype.kind not in "iu" or codes.min() < 0 or codes.max() >= len(classes):
        raise DataError(f"Labels must be whole numbers from 0 to {len(classes) - 1}, one an image; got {codes!r}.")
    sums = shares.sum(axis=1)
    off = np.flatnonzero(~((shares >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE)))  # NaN is off as well
    if len(off):
        raise DataError(
            f"Row {off[0]} of the probabilities is {shares[off[0]]!r}; expected numbers from 0 that sum to 1. "
            f"{len(off)} of {len(shares)} rows are off; logits must go through softmax first."
        )
    return shares / sums[:, np.newaxis], codes.astype(np.int64)


def _per_class(
    labels: NDArray[np.int64], predicted: NDArray[np.intp], classes: Sequence[str]
) -> dict[str, ClassScores]:
    from sklearn.metrics import precision_recall_fscore_support

    scores = precision_recall_fscore_support(labels, predicted, labels=range(len(classes)), zero_division=0)
    called = np.bincount(predicted, minlength=len(classes))
    right = np.bincount(labels[labels == predicted], minlength=len(classes))
    return {
        name: ClassScores(
            n=int(n),
            n_predicted=int(called[code]),
            precision=float(precision),
            recall=float(recall),
            f1=float(f1),
            recall_interval=wilson(int(right[code]), int(n)) if n else (0.0, 1.0),
        )
        for code, (name, precision, recall, f1, n) in enumerate(zip(classes, *scores, strict=True))
    }


def _top(shares: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    from sklearn.metrics import top_k_accuracy_score

    return float(top_k_accuracy_score(codes, shares, k=TOP, labels=range(shares.shape[1])))


def _agreement(codes: NDArray[np.int64], predicted: NDArray[np.intp]) -> dict[str, float | None]:
    """Return Cohen's kappa and Matthews's correlation; None where all images are and are called one class."""
    from sklearn.metrics import cohen_kappa_score, matthews_corrcoef

    if len({*codes.tolist(), *predicted.tolist()}) < 2:
        return {"cohen_kappa": None, "matthews": None}
    return {
        "cohen_kappa": float(cohen_kappa_score(codes, predicted)),
        "matthews": float(matthews_corrcoef(codes, predicted)),
    }


def _roc_auc(shares: NDArray[np.float64], codes: NDArray[np.int64]) -> float | None:
    from sklearn.metrics import roc_auc_score

    if shares.shape[1] != 2 or len(np.unique(codes)) < 2:
        return None
    return float(roc_auc_score(codes, shares[:, 1]))


def _headline(evaluation: Evaluation) -> list[str]:
    low, high = map(percent, evaluation.accuracy_interval)
    macro = {name: percent(share) for name, share in evaluation.macro.items()}
    return [
        f"accuracy  {percent(evaluation.accuracy)} % "
        f"(95 %: {low}{DASH}{high}, {evaluation.correct:,} of {evaluation.n:,})",
        f"macro     precision {macro['precision']} %, recall {macro['recall']} %, F1 {macro['f1']} %",
        f"log loss  {evaluation.log_loss:.3f}",
        *_also(evaluation),
    ]


def _also(evaluation: Evaluation) -> list[str]:
    """Return lines of the further measures, those that there are: shares in percent, then the rest."""
    shares = {
        "balanced accuracy": evaluation.balanced_accuracy,
        f"top-{TOP}": evaluation.top_5_accuracy,
        "calibration error": evaluation.calibration_error,
    }
    numbers = {
        "kappa": evaluation.cohen_kappa,
        "Matthews": evaluation.matthews,
        "ROC AUC": evaluation.roc_auc,
        "Brier": evaluation.brier,
    }
    lines = [
        ", ".join(f"{name} {percent(share)} %" for name, share in shares.items() if share is not None),
        ", ".join(f"{name} {number:.3f}" for name, number in numbers.items() if number is not None),
    ]
    return [f"also      {line}" for line in lines if line]


def _class_lines(evaluation: Evaluation) -> list[str]:
    ranked = sorted(evaluation.classes, key=lambda name: evaluation.per_class[name]["f1"])
    shown = set(ranked[:LISTED_CLASSES])
    rows = [
        [shorten(name, NAME_WIDTH), f"{scores['n']:,}", *_shares(scores)]
        for name, scores in evaluation.per_class.items()
        if name in shown
    ]
    lines = table([["class", "images", "precision", "recall", "F1"], *rows])
    hidden = len(ranked) - len(shown)
    return [*lines, f"and {hidden:,} classes with a higher F1; --json lists all"] if hidden else lines


def _shares(scores: ClassScores) -> list[str]:
    """Return precision, recall and F1 in percent, with a dash where there is nothing to divide by."""
    return [
        percent(scores["precision"]) if scores["n_predicted"] else DASH,
        percent(scores["recall"]) if scores["n"] else DASH,
        percent(scores["f1"]) if scores["n"] or scores["n_predicted"] else DASH,
    ]


def _confusion_lines(evaluation: Evaluation) -> list[str]:
    letters = [chr(ord("a") + code) for code in range(len(evaluation.classes))]
    names = [
        f"{letter} = {shorten(name, NAME_WIDTH)}" for letter, name in zip(letters, evaluation.classes, strict=True)
    ]
    rows = [[name, *(f"{count:,}" for count in row)] for name, row in zip(names, evaluation.confusion, strict=True)]
    return table([["true \\ predicted", *letters], *rows])
