"""A source, here or on an object store, as units of work (see `shards/`).

A path, a URL or a pattern enters, a `Plan` leaves: the same for the same files, wherever it is made.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple, TypeVar

from regraft.core import plugins, remote
from regraft.core.errors import DataError, StoreError
from regraft.core.remote import StoragePath
from regraft.core.text import printable
from regraft.data import shards
from regraft.data.index import Row
from regraft.data.shards import File, Unit
from regraft.data.sources.pictures import BytesLocation

T = TypeVar("T")

ATTEMPTS = 2  # at a unit that can't be read
LISTED = 512  # rows of a unit that are in memory at once
HELD = 128 << 20  # bytes that came with them, besides one image

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_KINDS = {".tar": "tar", ".parquet": "parquet"}


class Plan(NamedTuple):
    """The folder that a source's files are in, and its units in order."""

    folder: StoragePath
    units: tuple[Unit, ...]

    @property
    def digest(self) -> str:
        """The sha256 of the units."""
        return hashlib.sha256("".join(unit.digest for unit in self.units).encode()).hexdigest()


def plan(source: str | Path, unit_rows: int) -> Plan:
    """Return the units of a source.

    source:    a folder of image files in class folders, of tar shards or of Parquet files; one of these files; or
               several of them by numbers, such as `photos-{0000..0099}.tar`. A path, or a URL such as s3://bucket/photos.
    unit_rows: images in a unit, about; a tar is one unit.
    Raises DataError if nothing is there, or files of several kinds; UsageError, StoreError.
    """
    folder, files = _files(str(source))
    if not files:
        raise DataError(f"No such file or folder, or nothing in it: {folder}.")
    kinds = {_kind(file.path) for file in files}
    kind = "files" if "files" in kinds else kinds.pop() if len(kinds) == 1 else ""
    if not kind:
        raise DataError(f"{folder} holds tar files and Parquet files; expected one kind. Name them by a pattern.")
    units = tuple(plugins.load(shards, kind).units(folder, files, unit_rows))
    if not units:
        raise DataError(f"No image in {folder}.")
    return Plan(folder, units)


def rows(unit: Unit, folder: StoragePath) -> Iterator[Row]:
    """Yield the rows of a unit, in order; raise OSError or DataError if it can't be read to its end."""
    yield from plugins.load(shards, unit.kind).rows(unit, folder)


def batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yield the rows in lists of as many as may be in memory at once, with the bytes that came with them."""
    rows = iter(rows)
    while batch := list(_next(rows)):
        yield batch


def _next(rows: Iterator[Row]) -> Iterator[Row]:
    held = 0
    for row in islice(rows, LISTED):
        yield row
        held += len(row.location.data) if isinstance(row.location, BytesLocation) else 0
        if held >= HELD:
            return


def attempted(read: Callable[[], T]) -> T | str:
    """Return what reading a unit gives, or why it can't be read, which is tried more than once.

    Raises StoreError where a disk or an object store goes on to refuse.
    """
    reason = ""
    for attempt in range(ATTEMPTS):
        try:
            return read()
        except (DataError, FileNotFoundError, StoreError) as error:
            if isinstance(error, StoreError) and attempt + 1 == ATTEMPTS:
                raise
            reason = str(error)
    return reason


def _kind(path: str) -> str:
    return _KINDS.get(Path(path).suffix.lower(), "files")


def _files(source: str) -> tuple[StoragePath, list[File]]:
    """Return the folder and the files in it that a source names."""
    names = _expanded(source)
    if len(names) > 1 or Path(source.partition("?")[0]).suffix.lower() in _KINDS:
        folder = remote.storage_path(_parent(source))
        listed = [(name, _size(folder / name)) for name in map(_name, names)]
        if missing := [name for name, size in listed if size is None]:
            raise DataError(f"No such file in {folder}: {printable(missing[0])}, and {len(missing) - 1} more like it.")
        return folder, [File(name, size) for name, size in listed if size is not None]
    folder = remote.storage_path(source)
    return folder, [File(*file) for file in remote.listing(folder)]


def _size(file: StoragePath) -> int | None:
    from pyarrow import fs

    with remote.refusals(file):
        [info] = file.system.get_file_info([file.path])
    return info.size if info.type == fs.FileType.File else None


def _expanded(source: str) -> Sequence[str]:
    """Return the names that a text with ranges such as {000..099} stands for."""
    pieces = _RANGE.split(source)
    ranges = [_numbers(first, last) for first, last in zip(pieces[1::3], pieces[2::3], strict=True)]
    texts = pieces[0::3]
    return [
        "".join([texts[0], *(number + text for number, text in zip(numbers, texts[1:], strict=True))])
        for numbers in product(*ranges)
    ]


def _numbers(first: str, last: str) -> list[str]:
    if int(last) < int(first):
        raise DataError(f"The pattern {{{first}..{last}}} counts down; expected the smaller number first.")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]


def _parent(source: str) -> str:
    path, mark, query = source.partition("?") if remote.is_url(source) else (source, "", "")
    return f"{path.rpartition('/')[0] or '.'}{mark}{query}"


def _name(source: str) -> str:
    return (source.partition("?")[0] if remote.is_url(source) else source).rpartition("/")[2]
