"""Outliers: pictures that are farther from all others than most pictures are from theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.core.text import shorten
from regraft.data.index import Row

if TYPE_CHECKING:
    from regraft.audit.images import Images
    from regraft.audit.neighbours import Cosines, Neighbours, Numbers

FENCE = 1.5  # interquartile ranges above the upper quartile: Tukey's "outside"


@dataclass(frozen=True)
class Outlier:
    """A picture that is unlike all others.

    rows:     its files under one label.
    distance: mean cosine distance to the nearest other pictures, 0 to 2.
    nearest:  the pictures most like it all the same.
    """

    rows: tuple[Row, ...]
    distance: float
    nearest: tuple[Row, ...] = ()

    def files(self) -> list[dict[str, Any]]:
        """Return the files as JSON-able data."""
        return [
            {"path": row.path, "label": row.label, "part": row.part, "distance": self.distance} for row in self.rows
        ]

    def lines(self, width: int) -> list[str]:
        """Return lines for a terminal: the first file."""
        return [f"  {shorten(self.rows[0].path, width - 2)}"]

    def records(self) -> Iterator[tuple[Row, str, str, str, str]]:
        """Yield row, action, suggested label, score and file to compare with, for a CSV."""
        beside = self.nearest[0].path if self.nearest else ""
        for row in self.rows:
            yield row, "look", "", f"{self.distance:.4f}", beside


def find(images: Images, neighbours: Neighbours) -> list[Outlier]:
    """Return the outliers, the farthest first."""
    distances = mean_distances(neighbours)
    return [
        Outlier(
            images.files[number],
            float(distances[number]),
            tuple(images.rows[other] for other in neighbours.outside_group(number)),
        )
        for number in beyond_fence(distances).tolist()
    ]


def mean_distances(neighbours: Neighbours) -> Cosines:
    """Return the mean cosine distance (n,), 0 to 2, of each image to its neighbours outside its group.

    20 neighbours reveal an odd picture that came with a few of its kind, 5 do not. An image whose neighbours are all of
    its own group gets 0.
    """
    outside = neighbours.groups[neighbours.numbers] != neighbours.groups[:, None]
    sums = ((1 - neighbours.cosines) * outside).sum(axis=1)
    return np.asarray(sums / np.maximum(outside.sum(axis=1), 1), np.float32)


def beyond_fence(distances: Cosines) -> Numbers:
    """Return the rows whose distance is more than FENCE interquartile ranges above the upper quartile, farthest first.

    Source: Tukey, Exploratory Data Analysis, 1977.
    """
    if not len(distances):
        return np.empty(0, np.int64)
    lower, upper = np.quantile(distances, [0.25, 0.75])
    rows = np.flatnonzero(distances > upper + FENCE * (upper - lower))
    return rows[np.argsort(-distances[rows], kind="stable")]
