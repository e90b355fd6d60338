"""A CSV file as a source: a column with the path of each image and one with its label, or more (see `_columns`).

For multilabel images the column is `labels`, separated by `;` or `|`.

The file is read whole (it holds paths, not images), rows leave in its order.
Paths are relative to the CSV's folder and may not point outside it unless
`outside` is true; a name without its ending, or without the folder that it is
in, is looked for there. All errors are reported together, each with its line.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from unicodedata import normalize

from regraft.core.errors import DataError
from regraft.core.progress import log
from regraft.core.text import listed, listed_lines, printable
from regraft.data.formats import has_image_name
from regraft.data.index import PARTS, Row
from regraft.data.labels import LABEL_SEPARATOR, as_label
from regraft.data.sources._columns import BY_NAME, ColumnNames, by_meaning, paths_of
from regraft.data.sources._layout import is_hidden
from regraft.data.sources.folder import FileLocation

_SEPARATOR = re.compile(r"sep=(.)\s*")


class _LineError(Exception):
    """What is wrong with one line."""


def rows(path: Path, *, outside: bool, columns: ColumnNames = BY_NAME) -> Iterator[Row]:
    """Yield one row per line of a CSV; fields are separated by `,`, `;`, `|` or a tab.

    outside: allow paths that point outside the CSV's folder.
    columns: which columns to read; by default those with a known name.
    Raises DataError that names the lines that are not usable.
    """
    header, lines, errors = _lines(path)
    table = {name: [fields[at] for _, fields in lines] for at, name in enumerate(header)}
    meant = by_meaning(table, columns, f"{path}, line 1")
    if not lines and not errors:
        raise DataError(f"{path} has no lines below its header; expected one line per image.")
    files = _Files(path.parent, outside)
    usable: list[Row] = []
    for (line, _), *values in zip(lines, *meant.values(), strict=True):
        try:
            usable.append(_row(dict(zip(meant, values, strict=True)), files))
        except _LineError as error:
            errors.append((line, str(error)))
    if errors:
        listed = listed_lines([f"line {line}: {error}" for line, error in sorted(errors)])
        raise DataError(f"{path} has lines that can't be used; fix or remove them:{listed}")
    yield from usable


def inputs(path: Path, *, outside: bool, column: str | None = None) -> Iterator[Row]:
    """Yield one row per line of a CSV, without labels; a line that can't be used is broken, and says why.

    column: the column of the paths; None: by its name.
    Raises DataError if there is no such column, or no line.
    """
    header, lines, ragged = _lines(path)
    table = {name: [fields[at] for _, fields in lines] for at, name in enumerate(header)}
    if not lines and not ragged:
        raise DataError(f"{path} has no lines below its header; expected one line per image.")
    files = _Files(path.parent, outside)
    for (line, _), text in zip(lines, paths_of(table, column, f"{path}, line 1"), strict=True):
        try:
            name, location = files.locate(text)
            yield Row(path=printable(name), location=FileLocation(str(location)))
        except _LineError as error:
            yield _broken(printable(text) or f"line {line}", line, str(error))
    yield from (_broken(f"line {line}", line, reason) for line, reason in ragged)


def _broken(path: str, line: int, reason: str) -> Row:
    return Row(path=path, location=FileLocation(path)).marked("broken", f"line {line}: {reason}")


def _lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """Return the names of the columns, each line's number and its fields, and the lines that are ragged."""
    text = _text(path)
    first = next(filter(str.strip, text.splitlines()), "")
    excel = _SEPARATOR.fullmatch(first)
    delimiter = excel[1] if excel else max(",;\t|", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[tuple[int, list[str]]] = []
    ragged = []
    try:
        header = next((fields for fields in reader if any(map(str.strip, fields)) and fields[0] != "sep="), [])
        header = [field.strip() for field in header]
        for fields in reader:
            if len(fields) == len(header):
                lines.append((reader.line_num, [field.strip() for field in fields]))
            elif any(field.strip() for field in fields):
                ragged.append((reader.line_num, "more or fewer fields than the header"))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}. Save it as CSV, UTF-8, again.") from error
    _check_header(path, header)
    return header, [line for line in lines if any(line[1])], ragged


def _check_header(path: Path, header: Sequence[str]) -> None:
    counts = Counter(name.casefold() for name in header)
    if {"label", "labels"} <= set(counts):
        raise DataError(f"{path}, line 1: both columns label and labels exist; expected one of them.")
    repeated = [name for name, number in counts.items() if name and number > 1]
    if repeated:
        raise DataError(f"{path}, line 1: the column {repeated[0]} exists more than once; expected it once.")


def _text(path: Path) -> str:
    """Return the text of a file in UTF-8, in UTF-16 with a byte order mark, or in Windows-1252, as Excel saves it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror or error}.") from error
    is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line, wrong, codec = data.count(b"\n", 0, error.start) + 1, data[error.start], error.encoding
    try:
        if is_wide or b"\0" in data:
            raise UnicodeError
        text = data.decode("cp1252")
    except UnicodeError:
        raise DataError(f"{path}, line {line}: byte 0x{wrong:02x} is not {codec}. Save it as CSV, UTF-8.") from None
    log.warning("%s is not UTF-8; it is read as Windows-1252. Check the letters with accents.", path)
    return text


def _row(record: Mapping[str, Any], files: _Files) -> Row:
    labels = record.get("labels")
    label = as_label(record["label"]) if labels is None else LABEL_SEPARATOR.join(labels)
    if labels is None and label.casefold() in ("", "nan"):
        raise _LineError(f"the label is {'NaN, a missing value' if label else 'empty'}")
    path, location = files.locate(record["path"])
    return Row(
        path=printable(path),
        location=FileLocation(str(location)),
        label=label,
        labels=None if labels is None else tuple(labels),
        part=_part(record["part"]) if "part" in record else None,
        group=record.get("group") or None,
    )


def _part(text: str) -> str:
    if text not in PARTS:
        raise _LineError(f"the part is {text!r}; expected one of {', '.join(PARTS)}")
    return text


class _Files:
    """The files in a table's folder, by what a table may call them."""

    def __init__(self, folder: Path, outside: bool) -> None:
        self._folder = folder
        self._outside = outside

    def locate(self, text: str) -> tuple[str, Path]:
        """Return the path, as the user knows it, and the file of a line.

        Raises _LineError if it is missing, or outside the folder and not allowed, or one of several.
        """
        if not text:
            raise _LineError("the path is empty")
        try:
            location = self._folder / text
            if not location.exists():  # perhaps a Windows path
                location = self._folder / text.replace("\\", "/")
            is_file = location.is_file()
            if not is_file and (name := self._search(text.replace("\\", "/"))):
                text, location, is_file = name, self._folder / name, True
            inside = location.resolve().is_relative_to(self._folder.resolve())
        except (OSError, ValueError, RuntimeError):  # too long, a null character, links in a circle
            raise _LineError(f"{printable(text)!r} is not a valid path") from None
        if not inside and not self._outside:
            raise _LineError(f"{printable(text)} points outside the CSV's folder; --outside allows that")
        if not is_file:
            raise _LineError(f"No such file: {printable(text)}")
        return Path(text).as_posix(), location

    def _search(self, text: str) -> str | None:
        """Return the only image in the folder that a text names: by the end of its path, with or without its ending."""
        wanted = "/" + _spelling(text).removeprefix("./").lstrip("/")
        matches = [
            path
            for path in self._by_name.get(wanted.rpartition("/")[2], ())
            if ("/" + _spelling(path)).endswith(wanted) or ("/" + _spelling(_stem(path))).endswith(wanted)
        ]
        if len(matches) > 1:
            raise _LineError(
                f"{printable(text)} may be {printable(listed(sorted(matches), 3, ' or '))}; name the folder"
            )
        return matches[0] if matches else None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """The paths of the images in the folder and below it, by name, with and without the ending."""
        names: defaultdict[str, list[str]] = defaultdict(list)
        for folder, _, files in os.walk(self._folder):
            for file in files:
                path = (Path(folder) / file).relative_to(self._folder).as_posix()
                if has_image_name(path) and not is_hidden(path):
                    for name in {_spelling(file), _spelling(_stem(file))}:
                        names[name].append(path)
        return names


def _spelling(text: str) -> str:
    """Return a name as all systems agree on it: composed accents, no capitals."""
    return normalize("NFC", text).casefold()


def _stem(path: str) -> str:
    return path.rpartition(".")[0]
