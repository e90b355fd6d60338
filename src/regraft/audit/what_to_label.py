"""Which photographs without a label would teach a model most: those that it is unsure of, and unlike each other.

Certainties and features enter, row numbers leave, the least certain first. The least certain are clustered, each with
the weight of what it lacks of certainty, into as many clusters as photographs are wanted, and of each the one nearest
to the centre is taken.
Source: Zhdanov 2019, "Diverse mini-batch active learning", arXiv:1901.05954.
"""

from __future__ import annotations

import numpy as np

PREFILTER = 10  # times as many as are wanted are clustered


def certainties(probabilities: np.ndarray, thresholds: np.ndarray | None = None) -> np.ndarray:
    """Return (n,) how certain each row of probabilities (n, classes) is, from 0 to 1.

    It is the margin, by which the largest probability leads; where an image may have several labels, with their
    thresholds (classes,), how far the least certain label is from its threshold.
    """
    if thresholds is not None:
        return np.asarray(np.abs(probabilities - thresholds).min(axis=1))
    ordered = np.sort(probabilities, axis=1)
    return np.asarray(ordered[:, -1] - ordered[:, -2])


def candidates(certainty: np.ndarray, count: int) -> np.ndarray:
    """Return the numbers of the rows among which `count` are chosen, the least certain first."""
    return np.argsort(certainty, kind="stable")[: PREFILTER * count]


def spread(directions: np.ndarray, certainty: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the numbers of `count` rows that are unlike each other, the least certain first; all if there are no more.

    directions: (n, width) float32, features of unit length.
    certainty:  (n,) from 0 to 1.
    """
    chosen = np.arange(len(directions))
    if len(directions) > count:
        chosen = _nearest_to_centres(directions, 1 - certainty + 1e-6, count, seed)
    result: np.ndarray = chosen[np.argsort(certainty[chosen], kind="stable")]
    return result


def _nearest_to_centres(points: np.ndarray, weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the row nearest to the centre of each of `count` clusters, and what these lack of equal rows."""
    import warnings

    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of points that are fewer than the clusters
        clusters = KMeans(count, n_init=1, random_state=seed).fit(points, sample_weight=weights)
    distances = np.linalg.norm(points - clusters.cluster_centers_[clusters.labels_], axis=1)
    order = np.lexsort((distances, clusters.labels_))
    chosen = order[np.unique(clusters.labels_[order], return_index=True)[1]]
    rest = np.setdiff1d(np.arange(len(points)), chosen)[: count - len(chosen)]
    return np.concatenate([chosen, rest])
