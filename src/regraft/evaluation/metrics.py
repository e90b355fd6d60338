"""Metrics: numbers from labels and probabilities, or from the confusion matrix that they give.

Arrays enter, numbers leave, each metric as scikit-learn has it; importing
scikit-learn takes longer than all of them. What a user reads is put together in
`multiclass` and `multilabel`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from regraft.evaluation.significance import interval

CALIBRATION_BINS = 15

Probabilities = NDArray[np.float64]
Labels = NDArray[np.integer[Any]]
Counts = NDArray[np.int64]


class Scores(TypedDict):
    """Precision, recall and F1, in [0, 1]; one whose denominator is 0 is given as 0.0."""

    precision: float
    recall: float
    f1: float


class CountedScores(Scores):
    """Scores of one class or label, with what they are shares of."""

    n: int  # images that are of it
    n_predicted: int  # images that were predicted as it


class Means(TypedDict):
    """Mean scores of the classes that have images, and how many those are; None where there is no such class."""

    precision: float | None  # of those of them that were predicted at all: of the others there is none
    recall: float | None
    f1: float | None
    classes: int
    precision_classes: int


def scores(n: int, n_predicted: int, n_correct: int) -> Scores:
    """Return precision, recall and F1 of one class: of its images, of those predicted as it, and of those in both."""
    return {
        "precision": n_correct / n_predicted if n_predicted else 0.0,
        "recall": n_correct / n if n else 0.0,
        "f1": 2 * n_correct / (n + n_predicted) if n + n_predicted else 0.0,
    }


def means(of_classes: Sequence[CountedScores], *, weighted: bool = False) -> Means:
    """Return the mean precision, recall and F1 of the classes that have images.

    weighted: each class counts by its images; otherwise all count alike.
    """
    rows = [one for one in of_classes if one["n"]]
    predicted = [one for one in rows if one["n_predicted"]]
    return {
        "precision": _mean([one["precision"] for one in predicted], predicted, weighted),
        "recall": _mean([one["recall"] for one in rows], rows, weighted),
        "f1": _mean([one["f1"] for one in rows], rows, weighted),
        "classes": len(rows),
        "precision_classes": len(predicted),
    }


def _mean(values: Sequence[float], of_classes: Sequence[CountedScores], weighted: bool) -> float | None:
    weights = [one["n"] for one in of_classes] if weighted else None
    return float(np.average(values, weights=weights)) if values else None


def confusion_matrix(labels: Labels, predicted: Labels, n_classes: int) -> Counts:
    """Return counts (n_classes, n_classes): rows are the true classes, columns the predicted ones."""
    counts = np.bincount(labels * n_classes + predicted, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def log_loss(probabilities: NDArray[np.floating[Any]], labels: Labels) -> float:
    """Return the mean negative log probability of the true class, in nats per image; 0 is best.

    probabilities: (n, n_classes) float, rows sum to 1; 0 counts as the machine epsilon of their type.
    labels:        (n,) class indices.
    """
    epsilon = np.finfo(probabilities.dtype).eps
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.clip(of_label, epsilon, 1 - epsilon)).mean())


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean squared error of the probabilities (n, n_classes), summed over the classes, in [0, 2]."""
    return float(((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1).mean())


def calibration_error(probabilities: NDArray[Any], labels: NDArray[Any] | Sequence[int]) -> float:
    """Return the expected calibration error, in [0, 1]: how far confidence is from accuracy; 0 is best.

    probabilities: (n_images, n_classes) float, rows sum to 1 (not logits).
    labels:        (n_images,) int class indices.

    Confidence is the highest probability of an image, in 15 bins of equal width; empty bins add nothing.
    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    confidence, correct = rows.max(axis=1), rows.argmax(axis=1) == np.asarray(labels)
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int)  # a bin holds its upper end, as in the paper
    return float(np.abs(np.bincount(bins, weights=correct - confidence)).sum() / len(rows))


class Bin(TypedDict):
    """The images whose confidence is in one of the bins of `calibration_error`."""

    n: int
    confidence: float  # their mean
    accuracy: float
    accuracy_interval: tuple[float, float]  # 95 %


def reliability(probabilities: Probabilities, labels: Labels, pictures: Labels) -> list[Bin]:
    """Return the bins that have images, from the lowest confidence up: confidence beside accuracy.

    pictures: (n,), equal for versions of one picture, which count once in intervals.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * CALIBRATION_BINS).astype(int)
    members = [bins == number for number in np.unique(bins)]
    return [
        {
            "n": int(of.sum()),
            "confidence": float(confidence[of].mean()),
            "accuracy": float(correct[of].mean()),
            "accuracy_interval": interval(correct[of], pictures[of]),
        }
        for of in members
    ]


class Answered(TypedDict):
    """What is left if only answers of at least this confidence are given."""

    confidence: float
    n: int
    n_correct: int


def coverage(probabilities: Probabilities, labels: Labels, confidences: Sequence[float]) -> list[Answered]:
    """Return for each confidence how many images have a highest probability of at least it, and how many are right."""
    confident, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    return [
        {"confidence": least, "n": int((confident >= least).sum()), "n_correct": int(correct[confident >= least].sum())}
        for least in confidences
    ]


def top_k_accuracy(probabilities: Probabilities, labels: Labels, k: int) -> float:
    """Return how often the true class is among the `k` most probable; of equals the first, as for the top one."""
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > of_label) | ((probabilities == of_label) & earlier)
    return float((ahead.sum(axis=1) < k).mean())


def cohen_kappa(confusion: Counts) -> float | None:
    """Return the agreement beyond that of chance, up to 1; None where all images are of one class.

    Source: Cohen 1960, doi:10.1177/001316446002000104.
    """
    counts = confusion.astype(np.float64)
    n, agreed = counts.sum(), counts.trace()
    by_chance = float(counts.sum(axis=0) @ counts.sum(axis=1)) / n
    return float((agreed - by_chance) / (n - by_chance)) if counts.sum(axis=1).max() < n else None


def matthews_correlation(confusion: Counts) -> float | None:
    """Return the correlation of labels and predictions, -1 to 1; None where all images are of one class.

    It is 0 where all predictions are of one class.
    Source: Gorodkin 2004, doi:10.1016/j.compbiolchem.2004.09.006.
    """
    counts = confusion.astype(np.float64)
    n, true, predicted = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    if true.max() == n:
        return None
    of_both = counts.trace() * n - true @ predicted
    of_each = (n * n - true @ true) * (n * n - predicted @ predicted)
    return float(of_both / math.sqrt(of_each)) if of_each else 0.0


def roc_auc(probabilities: Probabilities, labels: Labels) -> float | None:
    """Return how often an image of class 1 is ranked above one of class 0, a tie as one half; None without both.

    probabilities: (n,) of class 1.
    labels:        (n,) of 0 and 1.
    """
    ones = int(labels.sum())
    zeros = len(labels) - ones
    if not (ones and zeros):
        return None
    _, rank, count = np.unique(probabilities, return_inverse=True, return_counts=True)
    mean_ranks = count.cumsum() - (count - 1) / 2  # from 1; equal probabilities share theirs
    return float((mean_ranks[rank][labels == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))


class Levels(NamedTuple):
    """What each threshold on a label's probability would give: the different probabilities, falling, (k,) each.

    Everything at least as probable as a level is predicted: so many images, of which so many are correct.
    """

    probabilities: Probabilities
    n_predicted: Counts
    n_correct: Counts


def levels(probabilities: Probabilities, truth: NDArray[np.bool_]) -> Levels:
    """Return the levels of one label: probabilities (n,) and whether each image has it (n,)."""
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))  # of equal probabilities
    return Levels(falling[last], last + 1, np.cumsum(truth[order], dtype=np.int64)[last])


def average_precision(probabilities: Probabilities, truth: NDArray[np.bool_]) -> float | None:
    """Return the mean precision over the images that have a label, whatever the threshold; None where no image has it.

    probabilities, truth: (n,) of one label.
    """
    if not truth.any():
        return None
    _, n_predicted, n_correct = levels(probabilities, truth)
    gained = np.diff(n_correct, prepend=0)
    return float((gained * n_correct / n_predicted).sum() / truth.sum())
