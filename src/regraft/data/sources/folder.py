"""A folder as a source: its files, labelled where the layout says so.

A path enters, rows leave, sorted by name within each folder. Links are
followed, except back into a folder that they are in. No file is opened while
listing.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EFBIG, EINVAL
from pathlib import Path

from regraft.core.errors import DataError
from regraft.core.text import printable
from regraft.data.index import Row
from regraft.data.sources._layout import HIDDEN, WORKING_LAYOUTS, is_hidden, label_rows

MAX_BYTES = 512 * 2**20  # of one image; a longer file is something else, and would fill the memory

CLOCK = 2 * 10**9  # ns; the coarsest clock of a file system (FAT)


@dataclass(frozen=True, slots=True)
class FileLocation:
    """One file on the disk."""

    path: str  # of which an index holds many; a Path takes five times the memory

    def read(self) -> bytes:
        """Return the file's bytes; raise OSError if it is missing, no regular file, or longer than MAX_BYTES."""
        path = Path(self.path)
        try:
            status = path.stat()
        except ValueError:  # in words that differ between Python versions
            raise OSError(EINVAL, "null byte in its path") from None
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise OSError(EINVAL, "not a regular file")
        if status.st_size > MAX_BYTES:
            raise OSError(EFBIG, f"larger than {MAX_BYTES >> 20} MiB")
        return path.read_bytes()

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


def rows(path: Path) -> Iterator[Row]:
    """Yield the files of class folders, or of part folders that hold class folders, with label and part.

    Raises DataError if there is no such folder, or no class folder in it.
    """
    if not path.is_dir():
        raise DataError(f"{path} is not a folder. {WORKING_LAYOUTS}")
    yield from label_rows(list(files(path)), str(path))


def files(path: Path) -> Iterator[Row]:
    """Yield every file below a folder, without labels."""
    pending = [(path, "", frozenset[tuple[int, int]]())]
    while pending:
        folder, name, parents = pending.pop()
        try:
            above = parents | {_identity(folder)}
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield _row(str(folder), name or ".").marked("broken", f"can't be listed: {error.strerror or error}")
            continue
        folders = [entry for entry in entries if _is_folder(entry)]
        yield from (_file_row(entry, name) for entry in entries if entry not in folders)
        for entry in reversed(folders):
            if entry.is_symlink() and _identity(entry.path) in above:
                yield _row(entry.path, name + entry.name).marked("ignored", "a link to a folder that it is in")
            else:
                pending.append((Path(entry.path), f"{name}{entry.name}/", above))


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
    return Row(path=printable(name.rstrip("/")), location=FileLocation(path))
