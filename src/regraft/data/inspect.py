"""What is in a source, before anything is computed on it.

An index enters; every used image is decoded, those that fail are marked
broken, and the counts leave as JSON or as text for a terminal. A broken file
is a finding here, never an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from textwrap import wrap
from typing import Any

from rich.cells import cell_len

from regraft.core import threads
from regraft.core.machine import cores
from regraft.core.progress import progress
from regraft.core.results import Result
from regraft.core.text import count, equated, printable, rest_line, shorten, table
from regraft.data import usable
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import PARTS, Index, Row

_LISTED = 10  # files a list shows
_BARS = 50
LISTS = ("ignored", "broken", "remarks", "copies", "near_duplicates", "conflicts")  # of files


@dataclass(frozen=True, repr=False)
class Inspection(Result):
    """An index whose images were all decoded, and its counts and lists.

    refusal: why nothing would be trained on it; empty if something would.
    warnings: what else to know before training.
    """

    index: Index
    refusal: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def copies(self) -> list[list[Row]]:
        """The groups of rows with equal bytes, in the order of their first rows; broken files left out."""
        groups: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self.index:
            if row.id and row.format and row.status != "broken":
                groups[row.id].append(row)
        return [rows for rows in groups.values() if len(rows) > 1]

    @property
    def conflicts(self) -> list[list[Row]]:
        """The groups of copies that have more than one label."""
        return [rows for rows in self.copies if len({row.label for row in rows}) > 1]

    @property
    def near_duplicates(self) -> list[list[Row]]:
        """The groups of used rows that show one picture in versions of other bytes, one row of each version."""
        versions: defaultdict[str, dict[str, Row]] = defaultdict(dict)
        for row in self.index.used:
            versions[row.picture].setdefault(row.id, row)
        return [list(rows.values()) for rows in versions.values() if len(rows) > 1]

    @property
    def notes(self) -> list[str]:
        """What to know before training: classes without a usable image, and why nothing would be trained."""
        refusal = [f"`regraft train` would refuse this: {self.refusal}."] if self.refusal else []
        return [
            *usable.notes(self.index),
            *(f"{warning[0].upper()}{warning[1:]}." for warning in self.warnings),
            *refusal,
        ]

    def text(self, width: int = 80, *, near_duplicates: bool = True) -> str:
        """Return the findings as text, no line wider than `width` columns (40 at least); long lists are shortened.

        near_duplicates: whether they are listed too.
        """
        values = self.to_dict()
        return text(values if near_duplicates else {**values, "near_duplicates": 0}, width)

    def __repr__(self) -> str:
        """Return one line, for a session."""
        copies, conflicts = len(self.copies), len(self.conflicts)
        return f"<Inspection of {self.index!r}: {copies} pictures in more than one file, {conflicts} conflicts>"

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, with the files that they count under "files", for JSON."""
        used, ignored, broken = self.index.used, self.index.ignored, self.index.broken
        copies, conflicts, near_duplicates = self.copies, self.conflicts, self.near_duplicates
        return {
            "source": self.index.name,
            "used": len(used),
            "ignored": len(ignored),
            "broken": len(broken),
            "classes": self.index.class_counts,
            "parts": {part: len(rows) for part in PARTS if (rows := self.index.part(part))},
            "copies": len(copies),
            "conflicts": len(conflicts),
            "notes": self.notes,
            "near_duplicates": len(near_duplicates),
            "formats": dict(Counter(row.format for row in used).most_common()),
            "sizes": _sizes(used.rows),
            "remarks": dict(Counter(remark for row in used for remark in row.remarks).most_common()),
            "reasons": dict(Counter(row.reason for row in ignored if not _has_other_label(row)).most_common()),
            "files": {
                "ignored": [{"path": row.path, "reason": row.reason} for row in ignored],
                "broken": [{"path": row.path, "reason": row.reason} for row in broken],
                "remarks": [{"path": row.path, "reason": remark} for row in used for remark in row.remarks],
                "copies": [[row.path for row in rows] for rows in copies],
                "near_duplicates": [[row.path for row in rows] for rows in near_duplicates],
                "conflicts": [[{"path": row.path, "label": row.label} for row in rows] for rows in conflicts],
            },
        }


def inspect(index: Index) -> Inspection:
    """Decode every used image, and return the index with the broken ones marked, to be described.

    Equal bytes are decoded once; memory holds one image for each thread.
    """
    rows = list({row.id or row.path: row for row in index.used}.values())
    reasons = {}
    with threads.pool(min(4, cores())) as pool, progress("Decoding images", len(rows)) as advance:
        for row, reason in zip(rows, pool.map(broken_reason, rows), strict=True):
            if reason:
                reasons[row.id or row.path] = reason
            advance(1)
    return Inspection(index.mark_broken(reasons))


def broken_reason(row: Row) -> str:
    """Return why the image is broken, or an empty text."""
    try:
        decode(row.location.read(), min_side=1)  # the smallest scale: a broken image is broken at every scale
    except BrokenImage as error:
        return str(error)
    except OSError as error:  # the file is gone, or its archive is damaged
        return error.strerror or str(error)
    return ""


def _sizes(rows: Sequence[Row]) -> dict[str, dict[str, int]]:
    """Return the minimum, median and maximum of the widths and heights, in pixels as stored."""
    if not rows:
        return {}
    sides = {"width": [row.size[0] for row in rows], "height": [row.size[1] for row in rows]}
    return {
        side: {"min": min(values), "median": median_low(values), "max": max(values)} for side, values in sides.items()
    }


def _has_other_label(row: Row) -> bool:
    return row.reason.startswith(usable.OTHER_LABEL)


# Text


def text(values: Mapping[str, Any], width: int) -> str:
    """Return the counts and lists of an inspection as text, no line wider than `width` columns (40 at least)."""
    return "\n".join(line for block in _blocks(values, max(width, 40)) for line in block) + "\n"


def _blocks(counts: Mapping[str, Any], width: int) -> Iterator[list[str]]:
    yield [shorten(f"{counts['source'] or 'images'}", width)]
    yield [f"  {counts['used']:,} used, {counts['ignored']:,} ignored, {counts['broken']:,} broken"]
    yield from (["", *wrap(printable(note), width)] for note in counts["notes"])
    if counts["classes"]:
        yield ["", count(counts["classes"], "class", "classes"), *_bars(counts["classes"], width)]
    if counts["parts"]:
        yield ["", "parts", *_bars(counts["parts"], width)]
    if counts["sizes"]:
        yield ["", *_measures(counts, width)]
    yield from _lists(counts, width)


def _bars(numbers: Mapping[str, int], width: int) -> list[str]:
    """Return a line for each name: the name, its count, and a bar; the longest bar fills the line."""
    shown = list(numbers.items())[:_BARS]
    labels = table([[shorten(name, width // 3), f"{number:,}"] for name, number in shown])
    room, largest = width - cell_len(labels[0]) - 4, max(numbers.values())
    lines = [
        f"  {label}  {'#' * max(1, round(room * number / largest))}"
        for label, (_, number) in zip(labels, shown, strict=True)
    ]
    return lines + rest_line(numbers, _BARS)


def _measures(counts: Mapping[str, Any], width: int) -> Iterator[str]:
    sides = counts["sizes"]
    sizes = (f"{sides['width'][kind]} x {sides['height'][kind]} {kind}" for kind in ("min", "median", "max"))
    yield shorten("sizes    " + ", ".join(sizes), width)
    yield shorten("formats  " + ", ".join(f"{number:,} {name}" for name, number in counts["formats"].items()), width)


def _lists(counts: Mapping[str, Any], width: int) -> Iterator[list[str]]:
    files, reasons = counts["files"], counts["reasons"]
    ignored, left_out = sum(reasons.values()), counts["ignored"] - sum(reasons.values())
    broken = [line for file in files["broken"][:_LISTED] for line in _with_reason(file, width)]
    yield _list(counts["broken"], count(counts["broken"], "file") + " broken", broken)
    yield _by_reason(reasons, files["ignored"], count(ignored, "file") + " ignored", width)
    title = "converted, or left out, so that other programs may show other pixels"
    yield _by_reason(counts["remarks"], files["remarks"], title, width)
    lines = [line for group in files["conflicts"][:_LISTED] for line in _conflict(group, width)]
    title = " under more than one label" + (f"; their {left_out:,} files are ignored" if left_out else "")
    yield _list(counts["conflicts"], count(counts["conflicts"], "picture") + title, lines)
    lines = ["  " + equated(group, width - 2) for group in files["copies"][:_LISTED]]
    yield _list(counts["copies"], count(counts["copies"], "picture") + " in more than one file", lines)
    number, title = counts["near_duplicates"], " saved again, resized, mirrored or cropped; one side of a split"
    lines = ["  " + equated(group, width - 2) for group in files["near_duplicates"][:_LISTED]]
    yield _list(number, count(number, "picture") + title, lines)


def _list(number: int, title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *lines, *rest_line(number, _LISTED)] if number else []


def _with_reason(file: Mapping[str, str], width: int) -> list[str]:
    reason = wrap(shorten(file["reason"], 3 * width), width - 6)
    return ["  " + shorten(file["path"], width - 2), *("      " + line for line in reason)]


def _by_reason(reasons: Mapping[str, int], files: Sequence[Mapping[str, str]], title: str, width: int) -> list[str]:
    """Return each reason once, with the number of its files and the first of them."""
    firsts = {file["reason"]: file["path"] for file in reversed(files)}
    lines = []
    for reason, number in list(reasons.items())[:_LISTED]:
        lines.append("  " + shorten(f"{number:,} x {reason}", width - 2))
        lines += ["      such as " + shorten(firsts[reason], width - 14)] if reason in firsts else []
    return ["", title, *lines, *rest_line(reasons, _LISTED)] if reasons else []


def _conflict(group: Sequence[Mapping[str, str]], width: int) -> list[str]:
    """Return the labels of one picture, and below them its files, the first of each label in front."""
    firsts = {file["label"]: file["path"] for file in reversed(group)}
    others = [file["path"] for file in group if file["path"] not in firsts.values()]
    paths = [*reversed(firsts.values()), *others]
    return ["  " + shorten(", ".join(sorted(firsts)), width - 2), "      " + equated(paths, width - 6)]
