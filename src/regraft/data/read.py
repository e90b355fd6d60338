"""From a source to an index: every file is read once, for its sha256, its format and its size.

A folder, an archive, a CSV, lists or a DataFrame enters (see `sources/`); an
Index leaves, with a row for every file. Pixels are left to `decode`.

A file that can't be read as an image is broken if it is meant to be one: it
begins like an image format, its name ends like one, the source names the file
(in a CSV, a list, on the command line), or it is empty. Any other file in a
folder or an archive is ignored.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from regraft.core import threads
from regraft.core.errors import DataError
from regraft.core.machine import cores
from regraft.core.options import Options, option
from regraft.core.progress import progress
from regraft.core.text import printable, shorten
from regraft.data import formats, usable
from regraft.data.index import Index, Row
from regraft.data.labels import check_spellings
from regraft.data.sources import _pattern, archive, folder, memory, pictures, table
from regraft.data.sources._columns import BY_NAME, ColumnNames
from regraft.data.sources._layout import WORKING_LAYOUTS, is_hidden, label_rows

Source = str | os.PathLike[str]

INPUTS = "a path of an image, folder, archive or CSV, the bytes of an image, a PIL image, or an array of pixels (uint8)"

_BATCH = 64  # files
_QUICK = 0.0003  # seconds for a file: if reading is faster, a thread costs more than it saves


@dataclass(frozen=True, kw_only=True)
class InputOptions(Options):
    """How a table of images is read."""

    GROUP = "Images"

    outside: bool = option(False, "let the paths in a CSV file point outside its folder")
    path_column: str | None = option(None, "the column of a table with the images' paths; none: by its name")


@dataclass(frozen=True, kw_only=True)
class SourceOptions(InputOptions):
    """What is read from a labelled source."""

    conflicts: Literal["ignore", "keep", "error"] = option(
        "ignore", "the same picture under two labels: ignore all of its copies, keep them, or error"
    )
    label_column: str | None = option(None, "the column of a table with the labels; none: by its name")
    part_column: str | None = option(None, "the column of a table with the parts; none: by its name")
    label_from: str | None = option(
        None, "where the label is in the files' paths, e.g. '{label}_#.jpg' for cat_12.jpg, '{label}/*' for cat/12.jpg"
    )

    def check(self) -> None:
        """Raise UsageError for a pattern without {label}."""
        if self.label_from is not None:
            _pattern.compiled(self.label_from)

    @property
    def columns(self) -> ColumnNames:
        """The columns of a table that were chosen."""
        return ColumnNames(path=self.path_column, label=self.label_column, part=self.part_column)


def read(source: Any, labels: Any = None, *, options: SourceOptions = SourceOptions()) -> Index:
    """Return the index of a labelled source, with a row for each of its files: used, ignored or broken.

    source: the path of a folder, an archive or a CSV; a list of paths, with `labels`; a pandas DataFrame; or an Index,
            which is returned as it is.
    labels: one for each path of a list, of any type; they become text. Lists of labels for multilabel images; one-hot
            rows are the numbers of their classes.
    Raises DataError if the source is not usable as a whole, or, with conflicts="error", if there is any conflict.
    """
    if isinstance(source, Index) and labels is None:
        return source
    rows, is_named, name = _rows(source, labels, options)
    try:
        pairs = [(row, is_named) for row in rows]
    except OSError as error:
        raise DataError(f"{name} can't be listed: {error.strerror or error}.") from error
    check_spellings(Counter(name for row, _ in pairs if row.status == "used" for name in row.names), name)
    return resolve_conflicts(Index(_read_files(pairs), name), options.conflicts)


def read_inputs(inputs: Any, options: InputOptions = InputOptions()) -> Index:
    """Return the index, without labels, of images to predict; missing ones are broken.

    inputs: a path of an image, a folder, an archive or a CSV; the bytes of an image file; a PIL image; an array
            (H, W, 3), (H, W) or (n, H, W, 3) uint8; any number of these; a pandas DataFrame; or an Index, which is
            returned as it is.
    Raises DataError for anything else.
    """
    if isinstance(inputs, Index):
        return inputs
    single = isinstance(inputs, str | os.PathLike) or pictures.is_picture(inputs) or memory.is_frame(inputs)
    values = [inputs] if single else inputs
    if not isinstance(values, Iterable):
        raise DataError(f"The inputs are {_shown(inputs)}; expected {INPUTS}.")
    pairs: list[tuple[Row, bool]] = []
    names = []
    for value in values:
        if pictures.is_picture(value):
            pairs += [(row, True) for row in pictures.rows(value, len(pairs) + 1)]
            names.append("images in memory")
        elif memory.is_frame(value):
            pairs += [(row, True) for row in memory.frame_inputs(value, options.path_column)]
            names.append("the DataFrame")
        elif isinstance(value, str | os.PathLike):
            pairs += _input_rows(Path(value), options)
            names.append(printable(str(value)))
        else:
            raise DataError(f"One of the inputs is {_shown(value)}; expected {INPUTS}.")
    return Index(_read_files(pairs), ", ".join(dict.fromkeys(names)))


def has_labels(source: Any) -> bool:
    """Whether a source may have labels; not so the path of one image, or of a folder that holds no folder."""
    if not isinstance(source, str | os.PathLike):
        return not pictures.is_picture(source)
    path = Path(source)
    try:
        if path.is_dir():
            return any(each.is_dir() and not is_hidden(each.name) for each in path.iterdir())
        return not path.exists() or archive.is_archive(path) or _is_table(path)
    except OSError:  # reading it will say what is wrong
        return True


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv", ".txt")


def _rows(source: Any, labels: Any, options: SourceOptions) -> tuple[Iterator[Row], bool, str]:
    """Return the rows, whether the source names each file (a folder doesn't), and the source's name in messages."""
    is_path = isinstance(source, str | os.PathLike)
    is_frame = memory.is_frame(source)
    name = printable(str(source)) if is_path else "the DataFrame" if is_frame else "the list"
    if labels is not None and (is_path or is_frame):
        raise DataError(f"Labels were given together with {name}; expected a list of paths with them.")
    if is_path:
        return *_path_rows(Path(source), options), name
    if is_frame:
        _check_no_pattern(options, name)
        return memory.frame_rows(source, options.columns), True, name
    if not isinstance(source, Iterable) or isinstance(source, bytes | Index):
        raise DataError(
            f"The source is {_shown(source)}; expected the path of a folder, an archive or a CSV file, "
            "a list of paths with labels, or a pandas DataFrame."
        )
    if labels is None:
        if options.label_from is None:
            raise DataError("A list of paths was given without labels; expected one label for each path.")
        return label_rows([memory.path_row(path) for path in source], name, options.label_from), True, name
    _check_no_pattern(options, name)
    return memory.rows(source, labels), True, name


def _check_no_columns(options: SourceOptions, name: str) -> None:
    if options.columns != BY_NAME:
        raise DataError(f"--path-column, --label-column and --part-column are for tables; {name} is none.")


def _check_no_pattern(options: SourceOptions, name: str) -> None:
    if options.label_from is not None:
        raise DataError(f"--label-from is for files in folders and archives; {name} has a label for each image.")


def _shown(value: object) -> str:
    """Return a value and its type, short enough for a message."""
    return f"{shorten(repr(value), 60)} ({type(value).__name__})"


def _path_rows(path: Path, options: SourceOptions) -> tuple[Iterator[Row], bool]:
    """Return the rows of a folder, archive or CSV, and whether it names each file."""
    shown = printable(str(path))
    try:
        if path.is_dir() or archive.is_archive(path):
            _check_no_columns(options, shown)
        if path.is_dir():
            return folder.rows(path, options.label_from), False
        if not path.exists():
            raise DataError(f"No such file or folder: {shown}. {WORKING_LAYOUTS}")
        if archive.is_archive(path):
            return archive.rows(path, options.label_from), False
    except OSError as error:
        raise DataError(f"{shown} can't be read: {error.strerror or error}.") from error
    if _is_table(path):
        _check_no_pattern(options, shown)
        return table.rows(path, outside=options.outside, columns=options.columns), True
    if path.is_file() and formats.has_image_name(path.name):
        raise DataError(f"{shown} is a single picture. {WORKING_LAYOUTS}")
    raise DataError(
        f"{shown} is not a folder, not a zip, tar or tar.gz archive by its bytes, and not a CSV by its name. "
        f"{WORKING_LAYOUTS}"
    )


def _input_rows(path: Path, options: InputOptions) -> list[tuple[Row, bool]]:
    """Return the rows of one input, each with whether the user named that file."""
    name = printable(path.as_posix())
    single = Row(path=name, location=folder.FileLocation(str(path)))
    try:
        if path.is_dir():
            rows = list(folder.files(path))
        elif archive.is_archive(path):
            rows = list(archive.files(path))
        elif path.is_file() and _is_table(path):
            listed = list(table.inputs(path, outside=options.outside, column=options.path_column))
            if path.suffix.lower() == ".txt" and all(row.status == "broken" for row in listed):
                return [(single.marked("broken", "a text file, of which no line names a file that is there"), True)]
            return [(row, True) for row in listed]
        else:
            return [(single, True)]
    except DataError as error:
        return [(single.marked("broken", str(error)), True)]
    except OSError:  # reading the file will give the same reason
        return [(single, True)]
    if not rows:
        return [(single.marked("ignored", "it holds no files"), False)]
    return [(replace(row, path=f"{name}/{row.path}"), False) for row in rows]


def _read_files(pairs: Sequence[tuple[Row, bool]]) -> tuple[Row, ...]:
    """Read the files of the used rows, in threads once reading turns out slow; each thread holds one file's bytes."""
    rows: list[Row] = []
    slow = False
    with threads.pool(min(8, cores() + 2)) as pool, progress("Reading files", len(pairs)) as advance:
        for start in range(0, len(pairs), _BATCH):
            began, batch = time.perf_counter(), pairs[start : start + _BATCH]
            rows += (pool.map if slow else map)(read_file, *zip(*batch, strict=True))
            advance(len(batch))
            slow = slow or time.perf_counter() - began > _QUICK * _BATCH
    return tuple(rows)


def read_file(row: Row, is_named: bool) -> Row:
    """Return the row with what its file's bytes say, or marked as ignored or broken.

    Of a file that is not named like an image, or packed like zeros, no more is read than tells that it is no image.
    """
    if row.status != "used":
        return row
    stamp = row.location.stamp()
    try:
        if not formats.has_image_name(row.path) or archive.is_packed(row.location):
            head = row.location.head()
            entry = formats.recognise(head)
            if entry is None or not entry.reader:
                return _unreadable(row, head, formats.refusal(head), is_named)
        data = row.location.read()
    except OSError as error:
        return row.marked("broken", error.strerror or str(error))
    return _with_header(replace(row, id=hashlib.sha256(data).hexdigest(), stamp=stamp), data, is_named)


def _with_header(row: Row, data: bytes, is_named: bool) -> Row:
    from regraft.data.decode import BrokenImage, read_header  # here, so that `regraft --help` does not import Pillow

    try:
        header = read_header(data)
    except BrokenImage as error:
        return _unreadable(row, data, str(error), is_named)
    return replace(row, format=header.format, size=header.size, rules=header.rules, remarks=header.remarks)


def _unreadable(row: Row, data: bytes, reason: str, is_named: bool) -> Row:
    """Return the row of a file that can't be read as an image: broken if it is meant to be one, else ignored."""
    entry = formats.recognise(data)
    has_begun = not data or (entry is not None and entry.kind == "image")
    if is_named or has_begun or formats.has_image_name(row.path):
        return row.marked("broken", reason)
    return row.marked("ignored", entry.refusal if entry and not entry.reader else "not an image")


def resolve_conflicts(index: Index, rule: str) -> Index:
    """Return the index with the pictures that have two labels kept, ignored, or refused, by `rule`."""
    conflicts = _conflicts(index)
    if rule == "keep" or not conflicts:
        return index
    resolved = index.with_rows(
        row.marked("ignored", _other_label(row, conflicts[row.id])) if row.id in conflicts else row for row in index
    )
    if rule == "error":
        conflicting = resolved.where(lambda row: row.id in conflicts)
        raise DataError(
            f"{len(conflicting)} files in {index.name} show a picture that also has another label. Remove the "
            f"wrong ones, or choose --conflicts ignore or keep:{usable.listed_reasons(conflicting)}"
        )
    return resolved


def _conflicts(index: Index) -> dict[str, list[Row]]:
    """Return by id the rows of each picture that has more than one label."""
    copies: defaultdict[str, list[Row]] = defaultdict(list)
    for row in index.used:
        copies[row.id].append(row)
    return {id: rows for id, rows in copies.items() if len({row.label for row in rows}) > 1}


def _other_label(row: Row, copies: Sequence[Row]) -> str:
    other = next(copy for copy in copies if copy.label != row.label)
    return f"{usable.OTHER_LABEL}{other.label!r} in {other.path}"
