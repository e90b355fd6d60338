"""What a deep inspection found: pictures that are there twice, labels in doubt, pictures that are like no other.

Rows of an index enter; JSON, lines for a terminal and a CSV to act on leave. Finding
them is left to `suspects` and `near_duplicates`, the page with the pictures to `report/deep`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from regraft.core import files
from regraft.core.errors import UsageError
from regraft.core.text import count, shorten
from regraft.data import inspect as inspection
from regraft.data.index import PARTS, Row
from regraft.data.inspect import Inspection

COLUMNS = ("finding", "number", "path", "label", "part", "action", "suggested", "score", "beside")
LISTED = 10  # of each finding on a terminal


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
        """The labels that they stand under, sorted."""
        return sorted({row.label or "" for row in self.rows})

    @property
    def parts(self) -> list[str]:
        """The parts that they stand in, training first."""
        return sorted({row.part for row in self.rows if row.part}, key=PARTS.index)

    def action(self, row: Row) -> str:
        """Return what to do about one of them."""
        return "decide the label" if len(self.labels) > 1 else "keep" if row is self.rows[0] else "remove"


@dataclass(frozen=True)
class LabelError:
    """A picture whose label the others contradict.

    rows:        its files under this label.
    suggested:   the class that is seen in it,
    probability: and the cross-validated probability of that,
    of_label:    and of its own label.
    nearest:     the pictures most like it.
    """

    rows: tuple[Row, ...]
    suggested: str
    probability: float
    of_label: float
    nearest: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Outlier:
    """A picture that is far from all others.

    rows:     its files under one label.
    distance: mean cosine distance to the nearest other pictures, 0 to 2.
    nearest:  the pictures most like it all the same.
    """

    rows: tuple[Row, ...]
    distance: float
    nearest: tuple[Row, ...] = ()


@dataclass(frozen=True, repr=False)
class Audit:
    """What there is to say about labelled images once a frozen network has looked at them.

    inspection:   what there is to say without it.
    duplicates:   those under several labels first, then those in several parts, then in the source's order.
    label_errors: the surest first.
    outliers:     the farthest first.
    notes:        what was not looked at, and why.
    """

    inspection: Inspection
    duplicates: tuple[Duplicates, ...] = ()
    label_errors: tuple[LabelError, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Audit of {self.inspection.index.name}: {'; '.join(self.counts)}>"

    @property
    def near_duplicates(self) -> tuple[Duplicates, ...]:
        """The copies that do not all have equal bytes."""
        return tuple(copies for copies in self.duplicates if not copies.equal)

    @property
    def counts(self) -> tuple[str, str, str]:
        """How many there are of each finding, in words."""
        return (
            count(self.near_duplicates, "picture") + " in more than one version",
            count(self.label_errors, "label") + " in doubt",
            count(self.outliers, "picture") + " far from all others",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what the plain inspection gives, and the counts and files of these findings, as JSON-able data.

        Files that all have equal bytes stand under "copies" alone.
        """
        found = self.inspection.to_dict()
        lists = {
            "near_duplicates": [
                [{**_file(row), "action": copies.action(row)} for row in copies.rows] for copies in self.near_duplicates
            ],
            "label_errors": [
                {**_file(row), "suggested": it.suggested, "probability": it.probability, "of_label": it.of_label}
                for it in self.label_errors
                for row in it.rows
            ],
            "outliers": [{**_file(row), "distance": it.distance} for it in self.outliers for row in it.rows],
        }
        counts = (self.near_duplicates, self.label_errors, self.outliers)
        return {
            **found,
            **{name: len(things) for name, things in zip(lists, counts, strict=True)},
            "notes": list(self.notes),
            "files": {**found["files"], **lists},
        }

    def text(self, width: int = 80) -> str:
        """Return all findings as plain text, no line wider than `width` columns (40 at least)."""
        width = max(width, 40)
        lines = (
            [line for copies in self.near_duplicates[:LISTED] for line in _copies_lines(copies, width)],
            [line for suspect in self.label_errors[:LISTED] for line in _suspect_lines(suspect, width)],
            [f"  {shorten(outlier.rows[0].path, width - 2)}" for outlier in self.outliers[:LISTED]],
        )
        blocks = [inspection.text(self.inspection, width).rstrip("\n")]
        for title, some, things in zip(
            self.counts, lines, (self.near_duplicates, self.label_errors, self.outliers), strict=True
        ):
            more = [f"  and {len(things) - LISTED:,} more; --json lists all"] if len(things) > LISTED else []
            blocks.append("\n".join([title, *some, *more]))
        blocks += ["\n".join(shorten(line, width) for line in wrap(f"Note: {note}", width)) for note in self.notes]
        return "\n\n".join(blocks) + "\n"

    def write_csv(self, path: Path) -> None:
        """Write a row for each file of each finding, with what to do about it.

        Raises UsageError if something else is there, StoreError if it can't be written.
        """
        if path.exists() and not path.read_bytes().startswith(",".join(COLUMNS).encode()):
            raise UsageError(f"{path} is there and holds no findings; nothing was written. Name another file.")
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([COLUMNS, *self._records()])
        files.write_file(path, text.getvalue().encode("utf-8", "surrogateescape"))

    def _records(self) -> Iterator[tuple[object, ...]]:
        for number, copies in enumerate(self.duplicates, start=1):
            kind, first = "duplicate" if copies.equal else "near-duplicate", copies.rows[0]
            for row in copies.rows:
                yield kind, number, *_where(row), copies.action(row), "", "", "" if row is first else first.path
        for number, it in enumerate(self.label_errors, start=1):
            for row in it.rows:
                score = f"{it.probability:.4f}"
                yield "label error", number, *_where(row), "check the label", it.suggested, score, _first(it.nearest)
        for number, far in enumerate(self.outliers, start=1):
            for row in far.rows:
                yield "outlier", number, *_where(row), "look", "", f"{far.distance:.4f}", _first(far.nearest)


def _copies_lines(copies: Duplicates, width: int) -> list[str]:
    """Return what they are, and below it the first two files."""
    several = [*(copies.labels if len(copies.labels) > 1 else ()), *(copies.parts if len(copies.parts) > 1 else ())]
    more = f" and {len(copies.rows) - 2} more" if len(copies.rows) > 2 else ""
    room = (width - 5 - len(more)) // 2
    line = "  " + " = ".join(shorten(row.path, room) for row in copies.rows[:2]) + more
    return [line, *(["      in " + shorten(", ".join(several), width - 9)] if several else [])]


def _suspect_lines(suspect: LabelError, width: int) -> list[str]:
    seen = f"{suspect.rows[0].label}, seen as {suspect.suggested} ({100 * suspect.probability:.0f} %)"
    return ["  " + shorten(suspect.rows[0].path, width - 2), "      " + shorten(seen, width - 6)]


def _where(row: Row) -> tuple[str, str, str]:
    return row.path, row.label or "", row.part or ""


def _file(row: Row) -> dict[str, str | None]:
    return {"path": row.path, "label": row.label, "part": row.part}


def _first(rows: Sequence[Row]) -> str:
    return rows[0].path if rows else ""
