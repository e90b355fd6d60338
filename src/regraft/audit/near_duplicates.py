"""Near-duplicates: files that show one picture, in equal bytes or as another version of it.

Which these are is known before (`Row.picture`); here they become a finding: which one to keep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.core.text import equated, shorten
from regraft.data.index import PARTS, Row


@dataclass(frozen=True)
class Duplicates:
    """Files that show one picture; the one to keep stands first, see `of`.

    certain: False where they may, and a person decides.
    """

    rows: tuple[Row, ...]
    certain: bool = True

    @classmethod
    def of(cls, rows: Sequence[Row], *, certain: bool = True) -> Duplicates:
        """Return them in order: those of the test part first, then the largest, then by path."""
        later = (None, *PARTS).index
        ordered = sorted(rows, key=lambda row: (-later(row.part), -row.size[0] * row.size[1], row.path))
        return cls(tuple(ordered), certain)

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
        if not self.certain:
            return "compare"
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


def find(rows: Iterable[Row]) -> list[Duplicates]:
    """Return the files that show one picture together; those under several labels first, then in several parts."""
    files: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        files[row.picture].append(row)
    groups = [Duplicates.of(versions) for versions in files.values() if len(versions) > 1]
    return sorted(groups, key=lambda duplicates: (len(duplicates.labels) == 1, len(duplicates.parts) <= 1))
