"""The images of a source as an audit looks at them: files of equal bytes and label are one image, examined once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.data.index import Row

if TYPE_CHECKING:
    from regraft.features.extract import Features


@dataclass(frozen=True)
class Images:
    """Distinct images of a source.

    features: a row for each image, that of its first file.
    files:    the rows of all its files.
    """

    features: Features
    files: list[tuple[Row, ...]]

    @classmethod
    def of(cls, features: Features) -> Images:
        """Return the distinct images among the rows of features."""
        files: defaultdict[tuple[str, str | None], list[Row]] = defaultdict(list)
        for row in features.rows:
            files[row.id, row.label].append(row)
        firsts = features.index.with_rows(rows[0] for rows in files.values())
        return cls(features.without_views().with_index(firsts), [tuple(rows) for rows in files.values()])

    def __len__(self) -> int:
        return len(self.files)

    @property
    def rows(self) -> Sequence[Row]:
        """The first file of each image."""
        return self.features.rows

    def take(self, numbers: Iterable[int]) -> Features:
        """Return the features of the images with these numbers."""
        return self.features.with_index(self.features.index.with_rows(self.rows[number] for number in numbers))
