"""Near-duplicates: files that show one picture, in equal bytes or as another version of it.

Candidates are images whose features are near each other; `similarity` compares
their pixels. In memory are the thumbnails of the candidates alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.audit import similarity
from regraft.audit.neighbours import connected
from regraft.core import threads
from regraft.core.machine import cores
from regraft.core.progress import progress
from regraft.core.text import equated, shorten
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import PARTS, Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regraft.audit.images import Images
    from regraft.audit.neighbours import Cosines, Numbers

    Thumbnail = NDArray[np.uint8]

COSINE = 0.7  # of their features, from which two images are candidates, …
NEAREST = 5  # … and only if one is among so many nearest of the other


@dataclass(frozen=True)
class Duplicates:
    """Files that show one picture; the one to keep stands first, see `of`."""

    rows: tuple[Row, ...]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Duplicates:
        """Return them in order: those of the test part first, then the largest, then by path."""
        later = (None, *PARTS).index
        return cls(tuple(sorted(rows, key=lambda row: (-later(row.part), -row.size[0] * row.size[1], row.path))))

    @property
    def equal(self) -> bool:
        """Whether all have equal bytes."""
        return len({row.id for row in self.rows}) == 1

    @property
    def labels(self) -> list[str]:
        """The labels of the files, sorted."""
        return sorted({row.label or "" for row in self.rows})

    @property
    def parts(self) -> list[str]:
        """The parts of the files, training first."""
        return sorted({row.part for row in self.rows if row.part}, key=PARTS.index)

    def action(self, row: Row) -> str:
        """Return what to do about one of the files."""
        return "decide the label" if len(self.labels) > 1 else "keep" if row is self.rows[0] else "remove"

    def files(self) -> list[dict[str, Any]]:
        """Return the files as JSON-able data."""
        return [
            {"path": row.path, "label": row.label, "part": row.part, "action": self.action(row)} for row in self.rows
        ]

    def lines(self, width: int) -> list[str]:
        """Return lines for a terminal: the first two files, and the labels or parts if there are several."""
        names = [*(self.labels if len(self.labels) > 1 else ()), *(self.parts if len(self.parts) > 1 else ())]
        files = "  " + equated([row.path for row in self.rows], width - 2)
        return [files, *(["      in " + shorten(", ".join(names), width - 9)] if names else [])]

    def records(self) -> Iterator[tuple[Row, str, str, str, str]]:
        """Yield row, action, suggested label, score and file to compare with, for a CSV."""
        first = self.rows[0]
        for row in self.rows:
            yield row, self.action(row), "", "", "" if row is first else first.path


def find(images: Images, pairs: Sequence[tuple[int, int]]) -> list[Duplicates]:
    """Return the files that show one picture together; those under several labels first, then in several parts."""
    files: defaultdict[int, list[Row]] = defaultdict(list)
    for group, rows in zip(connected(len(images), pairs).tolist(), images.files, strict=True):
        files[group] += rows
    groups = [Duplicates.of(rows) for rows in files.values() if len(rows) > 1]
    return sorted(groups, key=lambda duplicates: (len(duplicates.labels) == 1, len(duplicates.parts) <= 1))


def find_pairs(rows: Sequence[Row], numbers: Numbers, cosines: Cosines) -> list[tuple[int, int]]:
    """Return pairs of rows that show one picture, by their bytes or their pixels, enough to connect all such rows.

    numbers, cosines: (n, k) of each row's neighbours, see `neighbours.nearest`.
    """
    from scipy.cluster.hierarchy import DisjointSet

    firsts: dict[str, int] = {}
    pairs = [(first, at) for at, row in enumerate(rows) if (first := firsts.setdefault(row.id, at)) != at]
    known = DisjointSet(range(len(rows)))
    for one, other in pairs:
        known.merge(one, other)
    candidates = _candidates(numbers, cosines)
    thumbnails = _thumbnails(rows, sorted({number for pair in candidates for number in pair}))
    with progress("comparing pictures", len(candidates)) as advance:
        for one, other in candidates:
            advance(1)
            if known.connected(one, other) or not {one, other} <= thumbnails.keys():
                continue
            if similarity.same_picture(thumbnails[one], thumbnails[other]):
                known.merge(one, other)
                pairs.append((one, other))
    return pairs


def _candidates(numbers: Numbers, cosines: Cosines) -> list[tuple[int, int]]:
    """Return the pairs whose features are near enough, each once, the nearest first."""
    rows, columns = np.nonzero(cosines[:, :NEAREST] >= COSINE)
    order = np.argsort(-cosines[rows, columns], kind="stable")
    pairs = zip(rows[order].tolist(), numbers[rows, columns][order].tolist(), strict=True)
    return list(dict.fromkeys((min(pair), max(pair)) for pair in pairs))


def _thumbnails(rows: Sequence[Row], numbers: Sequence[int]) -> dict[int, Thumbnail]:
    """Return the thumbnails of these rows, without files that are missing or changed by now."""
    thumbnails: dict[int, Thumbnail] = {}
    with threads.pool(cores()) as pool, progress("reading pictures", len(numbers)) as advance:
        for number, image in zip(numbers, pool.map(lambda number: _thumbnail(rows[number]), numbers), strict=True):
            if image is not None:
                thumbnails[number] = image
            advance(1)
    return thumbnails


def _thumbnail(row: Row) -> Thumbnail | None:
    try:
        return similarity.thumbnail(decode(row.location.read(), min_side=similarity.SIDE))
    except (OSError, ValueError, BrokenImage):
        return None
