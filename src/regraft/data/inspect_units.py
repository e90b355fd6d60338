"""What is in a source of any size, unit by unit, wherever the units are read.

Each unit's images are decoded by whoever gets it, and a row for each comes back. The rows are brought together by id on
this machine's disk (some 100 bytes each), so that copies and conflicts are found across units in bounded memory.
"""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.core import remote, threads
from regraft.core.errors import DataError
from regraft.core.machine import cores
from regraft.core.progress import log, progress
from regraft.core.results import Result
from regraft.core.text import count
from regraft.data import inspect as inspection
from regraft.data import units as listing
from regraft.data import usable
from regraft.data.index import PARTS, Row
from regraft.data.read import read_file
from regraft.data.rows_by_id import RowsById
from regraft.data.shards import Unit
from regraft.data.units import Plan

LISTED = 1000  # files of a list


@dataclass(frozen=True)
class Look:
    """Looks at a unit's images.

    source: the folder of the source's files, a path or a URL.
    cores:  that one process of it may use; None: all of its own.
    """

    source: str
    cores: int | None = None

    def __call__(self, unit: Unit) -> Any:
        """Return a table with a row for each image of a unit, or why it can't be read."""
        return listing.attempted(lambda: self._table(unit))

    def _table(self, unit: Unit) -> Any:
        import pyarrow

        tables = []
        with threads.pool(self.cores or cores(), "look") as pool:
            for rows in listing.batches(listing.rows(unit, remote.storage_path(self.source))):
                looked = [_columns(row) for row in pool.map(_look, rows)]
                tables.append(pyarrow.Table.from_pylist(looked, schema=_schema()))
        return pyarrow.concat_tables([_schema().empty_table(), *tables])


@dataclass(frozen=True, repr=False)
class UnitInspection(Result):
    """The counts and lists of a source that was inspected unit by unit; the lists hold the first 1,000 files each."""

    values: Mapping[str, Any]

    def __repr__(self) -> str:
        """Return one line, for a session."""
        used, copies, conflicts = (self.values[name] for name in ("used", "copies", "conflicts"))
        counts = f"{used:,} used, {copies} pictures in more than one file, {conflicts} conflicts"
        return f"<UnitInspection of {self.values['source']}: {counts}>"

    def text(self, width: int = 80) -> str:
        """Return the findings as text, no line wider than `width` columns (40 at least)."""
        return inspection.text(self.values, width)

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, with the files that they count under "files", for JSON."""
        return dict(self.values)


def inspect(
    plan: Plan, run: Callable[[Any, Sequence[Unit]], Iterable[Any]], conflicts: str = "ignore"
) -> UnitInspection:
    """Return what is in the units of a source.

    run:       of an executor.
    conflicts: what becomes of pictures under two labels: "ignore", "keep" or "error".
    Raises DataError for a conflict where it is an error.
    """
    counts = _Counts()
    with tempfile.TemporaryDirectory() as scratch:
        rows, failed = RowsById(Path(scratch)), 0
        with progress("units", len(plan.units)) as advance:
            for outcome in run(Look(plan.folder.url), plan.units):
                if isinstance(outcome, str):
                    failed += 1
                    log.warning("A unit can't be read: %s", outcome)
                else:
                    rows.add(outcome)
                advance(1)
        for bucket in rows.buckets():
            counts.add(bucket, conflicts)
    if conflicts == "error" and counts.conflicts:
        pictures = count(counts.conflicts, "picture")
        raise DataError(
            f"{pictures} in {plan.folder} with two labels. Remove the wrong ones, or choose --conflicts ignore or keep."
        )
    return UnitInspection({"source": str(plan.folder), **counts.values(failed)})


def _look(row: Row) -> Row:
    """Return the row with what its bytes say, and whether they can be decoded."""
    row = read_file(row, is_named=False)
    reason = inspection.broken_reason(row) if row.status == "used" else ""
    return row.marked("broken", reason) if reason else row


def _schema() -> Any:
    import pyarrow

    text, number = pyarrow.string(), pyarrow.int32()
    texts = ((name, text) for name in ("id", "path", "label", "part", "status", "reason", "format"))
    return pyarrow.schema([*texts, ("width", number), ("height", number), ("remarks", pyarrow.list_(text))])


def _columns(row: Row) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in ("id", "path", "label", "part", "status", "reason", "format")}
    return {**values, "width": row.size[0], "height": row.size[1], "remarks": list(row.remarks)}


# Counting


@dataclass
class _Counts:
    """What is counted and listed of the rows of all buckets."""

    statuses: Counter[str] = field(default_factory=Counter)
    used: dict[str, Counter[Any]] = field(default_factory=dict)  # by column
    labels: Counter[str] = field(default_factory=Counter)  # of all rows
    reasons: Counter[str] = field(default_factory=Counter)  # why rows are ignored
    copies: int = 0
    conflicts: int = 0
    lists: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, rows: Any, rule: str) -> None:
        """Count the rows of a bucket; `rule` is for the pictures under two labels."""
        from pyarrow import array, compute, string

        of = compute.field
        known = of("id").isin(array(self._add_copies(rows, rule), string()))
        used = rows.filter((of("status") == "used") & ~known)
        others = rows.filter((of("status") != "used") | known)
        self.statuses += _counter(used["status"]) + _counter(rows.filter(of("status") != "used")["status"])
        self.statuses["ignored"] += others.filter(of("status") == "used").num_rows
        self.labels += _counter(rows["label"])
        for name in ("label", "part", "format", "width", "height"):
            self.used[name] = self.used.get(name, Counter()) + _counter(used[name])
        self.used["remarks"] = self.used.get("remarks", Counter()) + _counter(compute.list_flatten(used["remarks"]))
        ignored = others.filter(of("status") == "ignored")
        self.reasons += _counter(ignored["reason"])
        self._list("ignored", _reasons(ignored))
        self._list("broken", _reasons(others.filter(of("status") == "broken")))
        remarked = used.filter(compute.list_value_length(of("remarks")) > 0).slice(0, LISTED).to_pylist()
        self._list("remarks", [{"path": row["path"], "reason": each} for row in remarked for each in row["remarks"]])

    def _add_copies(self, rows: Any, rule: str) -> list[str]:
        """Count the copies; return the ids of those that are ignored, as they are under two labels."""
        from pyarrow import compute

        of = compute.field
        seen = rows.filter((of("id") != "") & (of("format") != "") & (of("status") != "broken"))
        numbers = seen.group_by("id").aggregate([("id", "count")]).filter(of("id_count") > 1)
        copies = seen.select(["id", "path", "label"]).filter(of("id").isin(numbers["id"].combine_chunks()))
        ordered = sorted(copies.to_pylist(), key=lambda row: (row["id"], row["path"]))
        groups = [list(group) for _, group in itertools.groupby(ordered, key=lambda row: row["id"])]
        conflicts = [group for group in groups if len({row["label"] for row in group}) > 1]
        self.copies += len(groups)
        self.conflicts += len(conflicts)
        self._list("copies", [[row["path"] for row in group] for group in groups])
        shown = [[{"path": row["path"], "label": row["label"]} for row in group] for group in conflicts]
        self._list("conflicts", shown)
        if rule != "ignore":
            return []
        self._list("ignored", [_other_label(row, group) for group in conflicts for row in group])
        return [group[0]["id"] for group in conflicts]

    def _list(self, name: str, items: Sequence[Any]) -> None:
        known = self.lists.setdefault(name, [])
        known += items[: LISTED - len(known)]

    def values(self, failed: int) -> dict[str, Any]:
        """Return it under the names that an `Inspection` has; `failed` units could not be read."""
        used = self.used
        return {
            **{name: self.statuses[name] for name in ("used", "ignored", "broken")},
            "classes": dict(sorted(used.get("label", {}).items())),
            "parts": {part: number for part in PARTS if (number := used.get("part", Counter())[part])},
            "copies": self.copies,
            "conflicts": self.conflicts,
            "notes": self._notes(failed),
            "near_duplicates": 0,
            "formats": dict(used.get("format", Counter()).most_common()),
            "sizes": {side: _sides(used[side]) for side in ("width", "height") if used.get(side)},
            "remarks": dict(used.get("remarks", Counter()).most_common()),
            "reasons": dict(self.reasons.most_common()),
            "files": {name: self._sorted(name) for name in inspection.LISTS},
        }

    def _sorted(self, name: str) -> list[Any]:
        return sorted(self.lists.get(name, []), key=str)

    def _notes(self, failed: int) -> list[str]:
        lost = sorted(set(self.labels) - set(self.used.get("label", ())))
        return [
            *([f"{count(failed, 'unit')} could not be read."] if failed else []),
            *(f"The class {name!r} has no usable image." for name in lost),
            "Near-duplicates are not looked for when a source is inspected unit by unit.",
        ]


def _counter(column: Any) -> Counter[Any]:
    return Counter(
        {each["values"]: each["counts"] for each in column.value_counts().to_pylist() if each["values"] is not None}
    )


def _reasons(rows: Any) -> list[dict[str, str]]:
    return list(rows.slice(0, LISTED).select(["path", "reason"]).to_pylist())


def _other_label(row: Mapping[str, str], group: Sequence[Mapping[str, str]]) -> dict[str, str]:
    other = next(each for each in group if each["label"] != row["label"])
    return {"path": row["path"], "reason": f"{usable.OTHER_LABEL}{other['label']!r} in {other['path']}"}


def _sides(sizes: Counter[int]) -> dict[str, int]:
    ordered = sorted(sizes.items())
    middle = (sum(sizes.values()) + 1) // 2  # the lower median
    ends = itertools.accumulate(number for _, number in ordered)
    median = next(side for (side, _), end in zip(ordered, ends, strict=True) if end >= middle)
    return {"min": ordered[0][0], "median": median, "max": ordered[-1][0]}
