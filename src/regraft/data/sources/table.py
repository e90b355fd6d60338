"""A CSV file as a source: the columns path and label, and optionally part and group, in any order.

For multilabel images the column is `labels`, separated by `;` or `|`.

The file is read whole (it holds paths, not images), rows leave in its order.
Paths are relative to the CSV's folder and may not point outside it unless
`outside` is true. All errors are reported together, each with its line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from regraft.core.errors import DataError
from regraft.core.text import listed_lines, printable
from regraft.data.index import PARTS, Row
from regraft.data.labels import LABEL_SEPARATOR, PART_NAMES, as_label, as_labels
from regraft.data.sources.folder import FileLocation

COLUMNS = ("path", "label", "labels", "part", "group")


class _LineError(Exception):
    """What is wrong with one line."""


def rows(path: Path, *, outside: bool) -> Iterator[Row]:
    """Yield one row per line of a CSV; a byte order mark is allowed, fields are separated by `,`, `;` or a tab.

    outside: allow paths that point outside the CSV's folder.
    Raises DataError that names the lines that are not usable.
    """
    usable: list[Row] = []
    errors: list[str] = []
    for line, record in _records(path):
        try:
            usable.append(_row(record, path.parent, outside))
        except _LineError as error:
            errors.append(f"line {line}: {error}")
    if errors:
        raise DataError(f"{path} has lines that can't be used; fix or remove them:{listed_lines(errors)}")
    if not usable:
        raise DataError(f"{path} has no lines below its header; expected one line per image.")
    yield from usable


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, str] | None]]:
    """Yield each line's number and its fields by column; None for a ragged line."""
    text = _text(path)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = _header(path, next(reader, []))
        for fields in reader:
            if any(field.strip() for field in fields):
                ragged = len(fields) != len(header)
                yield reader.line_num, None if ragged else dict(zip(header, map(str.strip, fields), strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}. Save it as CSV, UTF-8, again.") from error


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}, line 1: the text is UTF-16 (its byte order mark says so). Save it as CSV, UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = data[error.start]
        raise DataError(f"{path}, line {line}: byte 0x{wrong:02x} is not UTF-8. Save it as CSV, UTF-8.") from error


def _header(path: Path, fields: list[str]) -> list[str]:
    header = [field.strip().casefold() for field in fields]
    if {"label", "labels"} <= set(header):
        raise DataError(f"{path}, line 1: both columns label and labels exist; expected one of them.")
    missing = [name for name in ("path", "label") if name not in header and name + "s" not in header]
    if missing:
        shown = printable(", ".join(fields))[:200] or "nothing"
        raise DataError(f"{path}, line 1: no column {' and no '.join(missing)}; got {shown}, expected path,label.")
    repeated = [name for name in COLUMNS if header.count(name) > 1]
    if repeated:
        raise DataError(f"{path}, line 1: the column {repeated[0]} exists more than once; expected it once.")
    return header


def _row(record: Mapping[str, str] | None, folder: Path, outside: bool) -> Row:
    if record is None:
        raise _LineError("more or fewer fields than the header")
    labels = as_labels(record["labels"]) if "labels" in record else None
    label = as_label(record["label"]) if labels is None else LABEL_SEPARATOR.join(labels)
    if not label and labels is None:
        raise _LineError("the label is empty")
    return Row(
        path=printable(Path(record["path"]).as_posix()),
        location=FileLocation(str(_locate(record["path"], folder, outside))),
        label=label,
        labels=labels,
        part=_part(record["part"]) if "part" in record else None,
        group=record.get("group") or None,
    )


def _part(text: str) -> str:
    part = PART_NAMES.get(text.casefold())
    if part is None:
        raise _LineError(f"the part is {text!r}; expected one of {', '.join(PARTS)}")
    return part


def _locate(text: str, folder: Path, outside: bool) -> Path:
    """Return the file of a line; raise _LineError if it is missing, or outside the folder and not allowed."""
    if not text:
        raise _LineError("the path is empty")
    try:
        location = folder / text
        if not location.exists():  # perhaps a Windows path
            location = folder / text.replace("\\", "/")
        inside = location.resolve().is_relative_to(folder.resolve())
        is_file = location.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null character, links in a circle
        raise _LineError(f"{printable(text)!r} is not a valid path") from None
    if not inside and not outside:
        raise _LineError(f"{printable(text)} points outside the CSV's folder; --outside allows that")
    if not is_file:
        raise _LineError(f"No such file: {printable(text)}")
    return location
