"""From a source to an index: what every file is, by its bytes.

A folder, an archive, a CSV, lists or a frame enters (see `sources/`); an
Index leaves, a row for every file. Each used row's bytes are read once, for
their sha256 and their header; its pixels are left to `decode`.

A file that can't be read as an image is broken if it is meant to be one: its
first bytes are those of an image format, or its name ends as one, or the
source names it (in a CSV, a list, on the command line), or it is empty. Any
other file that happens to lie in a folder or an archive is ignored.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from regraft.core.errors import DataError
from regraft.core.options import option, require, require_choice
from regraft.core.progress import progress
from regraft.core.text import listed_lines, printable
from regraft.data import formats
from regraft.data.index import Index, Row
from regraft.data.sources import archive, folder, memory, table
from regraft.data.sources._layout import WORKING_LAYOUTS

SHOWN_FILES = 20

Source = str | os.PathLike[str]

_BATCH = 64  # rows looked at at once
_QUICK = 0.0003  # seconds for a file: up to there, handing it to a thread takes longer than that saves


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What is taken from a source."""

    conflicts: Literal["ignore", "keep", "error"] = option(
        "ignore", "the same picture under two labels: ignore all of its copies, keep them, or error"
    )
    outside: bool = option(False, "let the paths of a CSV file lead out of its folder")

    def __post_init__(self) -> None:
        require_choice("conflicts", self.conflicts, ("ignore", "keep", "error"))


@dataclass(frozen=True, kw_only=True)
class ReadOptions(SourceOptions):
    """What is taken from a source, and how much of it may be broken."""

    max_broken: float = option(0.01, "the share of files that may be broken, and are left out; 0 to 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.max_broken <= 1, "max_broken", self.max_broken, "a share from 0 to 1, e.g. 0.01")


def read(source: Any, labels: Iterable[object] | None = None, *, options: SourceOptions = SourceOptions()) -> Index:
    """Return the index of a labelled source; each of its files ends in it as used, ignored or broken.

    source: a folder, an archive or a CSV by its path; a list of paths, with `labels`; a pandas DataFrame.
    labels: one per path of a list, of any kind; they become text.
    Raises DataError if the source is not usable as a whole, or, with conflicts="error", holds any conflict.
    """
    try:
        found, named, name = _rows(source, labels, options.outside)
    except OSError as error:
        raise DataError(f"{source} can't be listed: {error.strerror or error}.") from error
    looked = Index(_look_at_all([(row, named) for row in found]), name)
    return _settle_conflicts(looked, options.conflicts)


def read_inputs(inputs: Sequence[Source]) -> Index:
    """Return the index, without labels, of files, folders and archives to predict; what is missing is broken."""
    pairs = [pair for given in inputs for pair in _input_rows(Path(given))]
    return Index(_look_at_all(pairs), ", ".join(printable(str(given)) for given in inputs))


def check_broken(index: Index, max_broken: float) -> None:
    """Raise DataError with a list if more than the share `max_broken` of the images is broken, or none is used."""
    broken, used = index.broken, len(index.used)
    total = len(broken) + used
    if len(broken) > max_broken * total:
        raise DataError(
            f"{len(broken)} of {total} images in {index.name} are broken ({len(broken) / total:.1%}, and at most "
            f"{max_broken:.1%} may be); fix or remove them, or raise --max-broken:{_reasons(broken)}"
        )
    if not used:
        raise DataError(f"No image of {index.name} is left to use:{_reasons(index)}")


def _rows(source: Any, labels: Iterable[object] | None, outside: bool) -> tuple[Iterator[Row], bool, str]:
    """Return the rows, whether the source names each file (a folder doesn't), and what to call it."""
    if isinstance(source, str | os.PathLike):
        if labels is not None:
            raise DataError(f"Labels were given for the one path {source!r}; expected a list of paths with them.")
        return *_path_rows(Path(source), outside), printable(str(source))
    if memory.is_frame(source):
        return memory.frame_rows(source), True, "the frame"
    if labels is None:
        raise DataError("A list of paths was given without labels; expected one label for each path.")
    return memory.rows(source, labels), True, "the list"


def _path_rows(path: Path, outside: bool) -> tuple[Iterator[Row], bool]:
    """Return the rows of what is at a path, and whether it names each file; a folder or archive is known by itself."""
    shown = printable(str(path))
    try:
        if path.is_dir():
            return folder.rows(path), False
        if not path.exists():
            raise DataError(f"There is no {shown}. {WORKING_LAYOUTS}")
        if archive.is_archive(path):
            return archive.rows(path), False
    except OSError as error:
        raise DataError(f"{shown} can't be read: {error.strerror or error}.") from error
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return table.rows(path, outside=outside), True
    raise DataError(
        f"{shown} is no folder, no zip, tar or tar.gz archive by its bytes, and no CSV by its name. {WORKING_LAYOUTS}"
    )


def _input_rows(path: Path) -> list[tuple[Row, bool]]:
    """Return the rows of one input, each with whether it was named itself."""
    name = printable(path.as_posix())
    single = Row(path=name, location=folder.FileLocation(str(path)))
    try:
        if path.is_dir():
            found = list(folder.files(path))
        elif archive.is_archive(path):
            found = list(archive.files(path))
        else:
            return [(single, True)]
    except DataError as error:
        return [(single.marked("broken", str(error)), True)]
    except OSError:  # its location says the same when it is read
        return [(single, True)]
    if not found:
        return [(single.marked("ignored", "it holds no files"), False)]
    return [(replace(row, path=f"{name}/{row.path}"), False) for row in found]


def _look_at_all(pairs: Sequence[tuple[Row, bool]]) -> tuple[Row, ...]:
    """Look at the used rows, in threads once files take their time; each thread holds the bytes of one file."""
    looked: list[Row] = []
    slow = False
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 2)) as pool, progress("reading", len(pairs)) as advance:
        for start in range(0, len(pairs), _BATCH):
            began, batch = time.perf_counter(), pairs[start : start + _BATCH]
            looked += (pool.map if slow else map)(_look_at, *zip(*batch, strict=True))
            advance(len(batch))
            slow = slow or time.perf_counter() - began > _QUICK * _BATCH
    return tuple(looked)


def _look_at(row: Row, named: bool) -> Row:
    from regraft.data.decode import BrokenImage, read_header  # here, so that `regraft --help` waits for no Pillow

    if row.status != "used":
        return row
    try:
        data = row.location.read()
    except (OSError, ValueError) as error:  # ValueError itself: a NUL in a path, in other words in each Python
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error)
        reason = "null byte in its path" if type(error) is ValueError else reason
        foreign = isinstance(error, OSError) and error.errno == errno.EFBIG and not _is_meant(row, b"", named)
        return row.marked("ignored", f"not an image ({reason})") if foreign else row.marked("broken", reason)
    row = replace(row, id=hashlib.sha256(data).hexdigest())
    if not data:
        return row.marked("broken", formats.refusal(data))
    try:
        kind, size = read_header(data)
    except BrokenImage as error:
        return (
            row.marked("broken", str(error)) if _is_meant(row, data, named) else row.marked("ignored", "not an image")
        )
    return replace(row, format=kind, size=size)


def _is_meant(row: Row, data: bytes, named: bool) -> bool:
    """Tell whether a file is meant to be an image, readable or not."""
    entry = formats.recognise(data)
    return named or formats.has_image_name(row.path) or (entry is not None and entry.kind == "image")


def _settle_conflicts(index: Index, rule: str) -> Index:
    """Return the index with the pictures that stand under two labels kept, ignored, or refused, by `rule`."""
    conflicts = dict(_conflicts(index))
    if rule == "keep" or not conflicts:
        return index
    settled = index.with_rows(
        row.marked("ignored", _other_label(row, conflicts[row.id])) if row.id in conflicts else row for row in index
    )
    if rule == "error":
        clashing = settled.where(lambda row: row.id in conflicts)
        raise DataError(
            f"{len(clashing)} files in {index.name} show a picture that also stands under another label. Remove the "
            f"wrong ones, or choose --conflicts ignore or keep:{_reasons(clashing)}"
        )
    return settled


def _conflicts(index: Index) -> Iterator[tuple[str, list[Row]]]:
    copies: defaultdict[str, list[Row]] = defaultdict(list)
    for row in index.used:
        copies[row.id].append(row)
    return ((id, rows) for id, rows in copies.items() if len({row.label for row in rows}) > 1)


def _other_label(row: Row, copies: Sequence[Row]) -> str:
    other = next(copy for copy in copies if copy.label != row.label)
    return f"the same picture is labelled {other.label!r} in {other.path}"


def _reasons(index: Index) -> str:
    return listed_lines([f"{row.path}: {row.reason}" for row in index], SHOWN_FILES)
