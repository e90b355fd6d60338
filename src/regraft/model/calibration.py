"""Calibration: what rows that were not trained on say of the probabilities.

Their logits enter, with their labels. The temperature leaves, one number by which
all logits are divided, so that probabilities mean what they say; it changes no
order of the labels of an image. And what each row gave to its true label leaves,
from which follow the prediction sets: all labels from a least probability on,
which hold the true label as often as is asked. Which rows may say this is decided
in `pipeline/calibrate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from regraft.core.errors import DataError
from regraft.core.options import require
from regraft.training.losses import Loss

SPREAD = 0.2  # of the logarithm of temperatures before any row is seen, as a standard deviation
MOST = math.log(20)
COVERAGES = (0.9, 0.95, 0.99)  # of the prediction sets that a report measures


def fit_temperature(logits: np.ndarray, labels: np.ndarray, loss: Loss, pictures: float | None = None) -> float:
    """Return the temperature above 0 with the lowest log loss; 1.0 if there is no row, or one that is not finite.

    logits: (n, outputs), of rows that were not trained on.
    labels: (n,), or (n, classes) where an image may have several.
    pictures: how many independent rows they are worth; None: all are.

    Few rows that are all right would make every answer certain; so the logarithm has a normal prior around 0, of the
    width SPREAD, which some hundreds of rows outweigh.
    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    worth = 1.0 if pictures is None else pictures / max(1, len(logits))
    if not len(logits) or not np.isfinite(logits).all():
        return 1.0
    logits = logits.astype(np.float64)  # float32 would make steps of the valley

    def cost(logarithm: float) -> float:
        losses = loss.plain.of_rows(logits / math.exp(logarithm), labels)
        return float(worth * losses.sum() + logarithm**2 / (2 * SPREAD**2))

    return math.exp(_lowest(cost, -MOST, MOST))


def _lowest(cost: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function with one valley is lowest, to 1e-8; scipy.optimize loads longer than a head is trained.

    Source: golden-section search, Kiefer 1953.
    """
    inner = (math.sqrt(5) - 1) / 2
    left, right = high - inner * (high - low), low + inner * (high - low)
    costs = cost(left), cost(right)
    while high - low > 1e-8:
        if costs[0] < costs[1]:
            high, right, left = right, left, right - inner * (right - low)
            costs = cost(left), costs[0]
        else:
            low, left, right = left, right, left + inner * (high - left)
            costs = costs[1], cost(right)
    return (low + high) / 2


def uncalibrated(probabilities: np.ndarray, temperature: float | np.ndarray, loss: Loss) -> np.ndarray:
    """Return what probabilities (n, n_classes) would be without the temperature that they were given with.

    temperature: of all, or of each, (n, 1).
    """
    powers = probabilities**temperature
    totals = powers + (1 - probabilities) ** temperature if loss.multilabel else powers.sum(axis=1, keepdims=True)
    result: np.ndarray = powers / totals
    return result


class Calibrations(NamedTuple):
    """By what the probabilities of n images were calibrated; in a cross-validation each fold has its own.

    temperatures: (n,) float64.
    least:        (n, coverages) float64, the least probability in a prediction set of each of COVERAGES; NaN where too
                  few rows were known for it.
    """

    temperatures: np.ndarray
    least: np.ndarray


def of_images(n: int, temperature: float, true_probabilities: np.ndarray | None) -> Calibrations:
    """Return by what the probabilities of `n` images of one model are calibrated."""
    true_probabilities = np.empty(0) if true_probabilities is None else true_probabilities
    possible = [coverage <= highest_coverage(len(true_probabilities)) for coverage in COVERAGES]
    least = [
        least_probability(true_probabilities, coverage) if can else math.nan
        for coverage, can in zip(COVERAGES, possible, strict=True)
    ]
    return Calibrations(np.full(n, float(temperature)), np.tile(least, (n, 1)))


def highest_coverage(n: int) -> float:
    """Return the highest coverage that `n` rows which were not trained on allow."""
    return n / (n + 1)


def of_true_labels(probabilities: np.ndarray, labels: np.ndarray, pictures: np.ndarray | None) -> np.ndarray:
    """Return what rows gave to their true labels, rising, of each picture its first version: copies count once.

    probabilities: (n, n_classes), of rows that were not trained on; labels, pictures: (n,).
    """
    firsts = np.arange(len(labels)) if pictures is None else np.unique(pictures, return_index=True)[1]
    rising: np.ndarray = np.sort(probabilities[firsts, labels[firsts]])
    return rising


def least_probability(true_probabilities: np.ndarray, coverage: float) -> float:
    """Return the probability from which a label is in the set, so that the true one is in it as often as `coverage`.

    true_probabilities: (n,), from `of_true_labels`. Of n + 1 exchangeable rows the last one's rank among all is equally
    likely any; so the ⌈(n + 1) · coverage⌉-th largest of n is reached by the last one at least so often.
    Raises DataError where n is too small for that, UsageError for a coverage out of range.
    Source: Sadinle, Lei and Wasserman 2019, doi:10.1080/01621459.2017.1395341 (least ambiguous sets); Vovk et al. 2005.
    """
    require(0 < coverage < 1, "coverage", coverage, "a number above 0 and below 1, such as 0.95")
    n = len(true_probabilities)
    if coverage > highest_coverage(n):
        raise DataError(
            f"A coverage of {coverage:g} needs {math.ceil(round(coverage / (1 - coverage), 6)):,} pictures that the "
            f"model was not trained on, and it was calibrated on {n:,} (copies count once). At most "
            f"{math.floor(1000 * highest_coverage(n)) / 1000:g} can be asked for; or train it again with more pictures."
        )
    return float(true_probabilities[n - math.ceil(round((n + 1) * coverage, 9))])


def prediction_sets(probabilities: np.ndarray, least: np.ndarray | float) -> np.ndarray:
    """Return which labels (n, n_classes) are in the sets of images: from `least` on, and always the most probable.

    least: of all images, or of each (n,).
    """
    sets: np.ndarray = probabilities >= np.reshape(least, (-1, 1))
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    return sets
