"""Ranking: how well the probabilities of one class tell its images from all others, whatever the threshold.

Probabilities and truth of each class enter; the areas under the ROC and the precision-recall curve leave, with their
intervals, and the curves for a plot. Where an image may have several labels, a class is a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regraft.evaluation import metrics
from regraft.evaluation.significance import LEVEL, effective_number, wilson

MOST_CLASSES = 100  # of which the areas are computed: each class sorts all images
POINTS = 200  # of a curve at most
STEPS = 50  # of a bisection

Interval = tuple[float, float]


class RankingScores(TypedDict):
    """The areas of one class, with their 95 % intervals; None where it has all images or none."""

    roc_auc: float | None
    roc_auc_interval: Interval | None
    average_precision: float | None
    average_precision_interval: Interval | None


class Curves(NamedTuple):
    """The curves of one class, points (k, 2) each: false positive rate and recall; recall and precision."""

    roc: NDArray[np.float64]
    precision: NDArray[np.float64]


def scores(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], classes: Sequence[str], pictures: NDArray[np.integer]
) -> dict[str, RankingScores] | None:
    """Return the areas of each class by name; None if there are more than MOST_CLASSES.

    probabilities, truth: (n, n_classes); pictures: (n,), equal for versions of one picture, which count once.
    """
    if len(classes) > MOST_CLASSES:
        return None
    columns = zip(classes, probabilities.T, truth.T, strict=True)
    return {name: _scores(column, has, pictures) for name, column, has in columns}


def _scores(
    probabilities: NDArray[np.float64], truth: NDArray[np.bool_], pictures: NDArray[np.integer]
) -> RankingScores:
    auc = metrics.roc_auc(probabilities, truth.astype(np.int64))
    precision = metrics.average_precision(probabilities, truth)
    if auc is None or precision is None:
        return dict.fromkeys(RankingScores.__annotations__)  # type: ignore[return-value]
    ones, others = effective_number(pictures[truth]), effective_number(pictures[~truth])
    return {
        "roc_auc": auc,
        "roc_auc_interval": auc_interval(auc, ones, others),
        "average_precision": precision,
        "average_precision_interval": wilson(precision * ones, ones),
    }


def auc_interval(auc: float, ones: float, others: float) -> Interval:
    """Return the 95 % interval of an area under the ROC curve.

    ones, others: how many independent images are of the class, and how many are not.
    It holds all areas from which this one is not further than chance: Newcombe's method 5 (2006, Statistics in Medicine
    25:559), by the variance of Hanley and McNeil (1982). That of an average precision is Wilson's, of the images of the
    class alone, as Boyd, Eng and Page (2013, doi:10.1007/978-3-642-40994-3_55) take a binomial one.
    """
    z, more = NormalDist().inv_cdf((1 + LEVEL) / 2), (ones + others) / 2 - 1

    def near(area: float) -> bool:
        spread = 1 + more * (1 - area) / (2 - area) + more * area / (1 + area)
        return (auc - area) ** 2 <= z * z * area * (1 - area) * spread / (ones * others)

    def reach(beyond: float) -> float:
        inside = auc
        for _ in range(STEPS):
            middle = (inside + beyond) / 2
            inside, beyond = (middle, beyond) if near(middle) else (inside, middle)
        return inside

    return reach(0.0), reach(1.0)


def curves(probabilities: NDArray[np.float64], truth: NDArray[np.bool_]) -> Curves | None:
    """Return the curves of one class, probabilities and truth (n,) each; None where it has all images or none."""
    ones, others = int(truth.sum()), int((~truth).sum())
    if not (ones and others):
        return None
    _, n_predicted, n_correct = metrics.levels(probabilities, truth)
    recall, false_positives = n_correct / ones, (n_predicted - n_correct) / others
    roc = np.stack([np.append(0, false_positives), np.append(0, recall)], axis=1)
    return Curves(_thinned(roc), _thinned(np.stack([recall, n_correct / n_predicted], axis=1)))


def smallest_areas(
    scores: Mapping[str, RankingScores], probabilities: NDArray[np.float64], truth: ArrayLike, count: int
) -> dict[str, Curves]:
    """Return the curves of the `count` classes with the smallest areas under the ROC curve, in the classes' order.

    scores:               of all classes, in order.
    probabilities, truth: (n, n_classes).
    """
    has, areas = np.asarray(truth, bool), [one["roc_auc"] for one in scores.values()]
    chosen = sorted((at for at, area in enumerate(areas) if area is not None), key=lambda at: areas[at] or 0.0)[:count]
    names = list(scores)
    known = {names[at]: curves(probabilities[:, at], has[:, at]) for at in sorted(chosen)}
    return {name: both for name, both in known.items() if both}


def _thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return at most POINTS of the points, the first and the last among them."""
    kept: NDArray[np.float64] = points[np.unique(np.linspace(0, len(points) - 1, POINTS).astype(int))]
    return kept
