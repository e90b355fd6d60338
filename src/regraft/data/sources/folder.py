"""A folder as a source: its files, labelled where the layout says so.

A path enters, rows leave, sorted by name within each folder. Links are
followed, but each folder is read once, however many links lead to it: where it
lies, if it lies in the source, else at the first of the links. No file is
opened while listing.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EFBIG, EINVAL
from itertools import compress
from operator import not_
from pathlib import Path
from typing import NamedTuple

from regraft.core.errors import DataError
from regraft.core.text import printable
from regraft.data.formats import HEAD
from regraft.data.index import Row
from regraft.data.sources._layout import EMPTY_FOLDER, HIDDEN, WORKING_LAYOUTS, is_hidden, label_rows

MAX_BYTES = 512 * 2**20  # of one image; a longer file is something else, and would fill the memory

CLOCK = 2 * 10**9  # ns; the coarsest clock of a file system (FAT)


@dataclass(frozen=True, slots=True)
class FileLocation:
    """One file on the disk."""

    path: str  # of which an index holds many; a Path takes five times the memory

    def head(self) -> bytes:
        """Return the first bytes, as many as tell the format; raise OSError if it is missing or no regular file."""
        self._size()
        with Path(self.path).open("rb", buffering=0) as file:
            return file.read(HEAD)

    def read(self) -> bytes:
        """Return the file's bytes; raise OSError if it is missing, no regular file, or longer than MAX_BYTES."""
        if self._size() > MAX_BYTES:
            raise OSError(EFBIG, f"larger than {MAX_BYTES >> 20} MiB")
        return Path(self.path).read_bytes()

    def _size(self) -> int:
        try:
            status = os.stat(self.path)  # noqa: PTH116 - a Path takes longer
        except ValueError:  # in words that differ between Python versions
            raise OSError(EINVAL, "null byte in its path") from None
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise OSError(EINVAL, "not a regular file")
        return status.st_size

    def stamp(self) -> int:
        """Return a number of the file's size, times and inode; 0 if it is missing or was written just now."""
        return file_stamp(self.path)


def file_stamp(path: str | Path) -> int:
    """Return a number that changes with a file; 0 if it is missing or so new that a change may not show in its time."""
    try:
        status = os.stat(path)  # noqa: PTH116 - whatever kind of path it is
    except (OSError, ValueError):
        return 0
    if max(status.st_mtime_ns, status.st_ctime_ns) > time.time_ns() - CLOCK:
        return 0
    return hash((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))


def rows(path: Path, pattern: str | None = None) -> Iterator[Row]:
    """Yield the files of class folders, or of part folders that hold class folders, with label and part.

    pattern: where the labels are in the paths instead, see `_pattern`.
    Raises DataError if there is no such folder, or no class folder in it.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder. {WORKING_LAYOUTS}")
    yield from label_rows(list(files(path)), str(path), pattern)


class _Folder(NamedTuple):
    """A folder to list."""

    path: str
    name: str  # below the source, with a slash at the end; empty for the source itself
    is_link: bool = False


def files(path: Path) -> Iterator[Row]:
    """Yield every file below a folder, without labels, and a row for each folder that holds nothing."""
    seen: dict[tuple[int, int], str] = {}  # the name of each folder by its identity
    items: list[Row | _Folder] = [_Folder(str(path), "")]
    while any(isinstance(item, _Folder) for item in items):  # links, then those in the folders that they lead to, …
        items = [each for item in items for each in (_tree(item, seen) if isinstance(item, _Folder) else (item,))]
    yield from (item for item in items if isinstance(item, Row))


def _tree(top: _Folder, seen: dict[tuple[int, int], str]) -> Iterator[Row | _Folder]:
    """Yield the files of a folder and of those within it, and as they are the links to other folders.

    seen: what was listed before, which is not listed again; what is listed now is added.
    """
    pending = [top._replace(is_link=False)]
    while pending:
        folder = pending.pop()
        if folder.is_link:
            yield folder
            continue
        try:
            original = seen.setdefault(_identity(folder.path), folder.name)
            entries = sorted(os.scandir(folder.path), key=lambda entry: entry.name)
        except OSError as error:
            yield _folder_row(folder).marked("broken", f"can't be listed: {error.strerror or error}")
            continue
        if original != folder.name:
            shown = printable(original) or "the folder that was given"
            yield _folder_row(folder).marked("ignored", f"a link to {shown}, where it is read")
            continue
        is_folder = [_is_folder(entry) for entry in entries]
        yield from (_file_row(entry, folder.name) for entry in compress(entries, map(not_, is_folder)))
        below = (
            _Folder(each.path, f"{folder.name}{each.name}/", each.is_symlink()) for each in compress(entries, is_folder)
        )
        pending += reversed(list(below))
        if folder.name and all(is_hidden(entry.name) for entry in entries) and not is_hidden(folder.name):
            yield _folder_row(folder).marked("ignored", EMPTY_FOLDER)


def _folder_row(folder: _Folder) -> Row:
    return _row(folder.path, folder.name or "./")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)  # noqa: PTH116 - follows links, as wanted, whatever kind of path it is
    return status.st_dev, status.st_ino


def _file_row(entry: os.DirEntry[str], folder: str) -> Row:
    row = _row(entry.path, folder + entry.name)
    if is_hidden(row.path):
        return row.marked("ignored", HIDDEN)
    if _is_special(entry):
        return row.marked("ignored", "not a regular file")
    return row


def _is_special(entry: os.DirEntry[str]) -> bool:
    """Whether it is a pipe, socket or device; a link to a missing file is not: reading it will say so."""
    try:
        return not stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return False


def _row(path: str, name: str) -> Row:
    return Row(path=printable(name), location=FileLocation(path))
