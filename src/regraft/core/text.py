"""Text for terminals, reports and messages: escaped, shortened, counted, listed, in columns.

Widths are in cells of a terminal: a Chinese letter takes two.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence, Sized
from itertools import islice

from rich.cells import cell_len, set_cell_size

_ELLIPSIS = "…"

# Control characters, line separators, marks and overrides of the writing direction, surrogates, noncharacters.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?")
_FORMULA = re.compile(r"[=+\-@\t\r]")  # what a spreadsheet takes for the beginning of a formula: OWASP, CSV Injection


def printable(text: str) -> str:
    """Return `text` with what steers a terminal, or no JSON, CSV or SVG file can hold, escaped (`\\x1b`)."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """Return `text` with what steers a terminal escaped, line by line."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """Return JSON with what steers a terminal escaped as JSON escapes it."""
    return "\n".join(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", line) for line in text.split("\n"))


def csv_text(rows: Iterable[Iterable[object]], *, formulas: bool = False) -> str:
    """Return rows as CSV.

    formulas: leave text as it is where a spreadsheet would take it for a formula; otherwise ' stands before it.
    """
    file = io.StringIO()
    cells = ([value if formulas else _inert(value) for value in row] for row in rows)
    csv.writer(file, lineterminator="\n").writerows(cells)
    return file.getvalue()


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value


def shorten(text: str, width: int) -> str:
    """Return `text`, printable, in at most `width` cells; what is too long loses a piece before its middle.

    Of a path the end says more than the beginning, so twice as much of it is kept.
    """
    text = printable(text)
    if cell_len(text) <= width:
        return text
    tail = (width - 1) * 2 // 3
    return set_cell_size(text, width - 1 - tail) + _ELLIPSIS + _end(text, tail)


def _end(text: str, width: int) -> str:
    """Return as much of the end of `text` as `width` cells hold."""
    end = text[len(text) - width :]  # no letter takes less than a cell, but for marks above it
    while cell_len(end) > width:
        end = end[1:]
    return end


def on_one_screen(text: str, limit: int = 2400) -> str:
    """Return `text`, of a longer one the beginning and the end, in about `limit` characters: thirty lines of 80."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    left_out = len(text) - limit
    return f"{text[: limit - tail]} [… {left_out:,} characters left out …] {text[-tail:]}"


def count(number: int | Sized, noun: str, plural: str = "") -> str:
    """Return how many there are and of what: "1 file", "1,200 files"; `plural` where it is not noun + s."""
    number = number if isinstance(number, int) else len(number)
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def percent(share: float, digits: int = 1) -> str:
    """Return a share from 0 to 1 in percent; "100.0" is kept for all of them, so 0.9999 gives "99.9"."""
    return f"{100 * share if share >= 1 else min(100 * share, 100 - 10**-digits):.{digits}f}"


def listed(items: Collection[str], limit: int = 5, separator: str = ", ") -> str:
    """Return the first `limit` items on one line, and how many more there are: "cat, dog and 3 more"."""
    more = f" and {len(items) - limit:,} more" if len(items) > limit else ""
    return separator.join(islice(items, limit)) + more


def listed_lines(items: Sequence[str], limit: int = 20) -> str:
    """Return the first `limit` items on a line each, indented, every one after a line break, and how many more."""
    more = [f"and {len(items) - limit:,} more"] if len(items) > limit else []
    return "".join(f"\n  {line}" for line in [*items[:limit], *more])


def rest_line(items: int | Sized, limit: int) -> list[str]:
    """Return a line that says how many items follow the first `limit`, and how to see them; no line if none do."""
    number = items if isinstance(items, int) else len(items)
    return [f"  and {number - limit:,} more; --json lists all"] if number > limit else []


def equated(paths: Sequence[str], width: int) -> str:
    """Return the first two paths of files with the same content in `width` cells: "a.jpg = b.jpg and 3 more"."""
    more = f" and {len(paths) - 2:,} more" if len(paths) > 2 else ""
    room = (width - len(" = ") - len(more)) // 2
    return " = ".join(shorten(path, room) for path in paths[:2]) + more


def table(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return the rows as lines with aligned columns: the first `left` columns to the left, the others to the right."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cells(row, widths, left)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], left: int) -> list[str]:
    spaces = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
    return [
        cell + space if column < left else space + cell
        for column, (cell, space) in enumerate(zip(row, spaces, strict=True))
    ]
