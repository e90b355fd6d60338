"""Which images are near which, by the cosine of their features, and which of them count as one.

Features enter, row numbers leave. Every finding compares an image with its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]
    Cosines = NDArray[np.float32]

NEIGHBOURS = 20  # of each image
COMPARED = 3  # nearest images that are shown beside a finding


@dataclass(frozen=True)
class Neighbours:
    """The nearest images of each of n images.

    numbers: (n, k) which they are, the nearest first.
    cosines: (n, k) of the two images' features.
    groups:  (n,) equal for images that count as one: duplicates, and what the source groups together.
    """

    numbers: Numbers
    cosines: Cosines
    groups: Numbers

    def outside_group(self, number: int, limit: int = COMPARED) -> list[int]:
        """Return the nearest images of image `number` that are not of its group."""
        nearest = self.numbers[number]
        return [int(other) for other in nearest[self.groups[nearest] != self.groups[number]][:limit]]


def nearest(features: NDArray[np.float32], count: int = NEIGHBOURS) -> tuple[Numbers, Cosines]:
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
