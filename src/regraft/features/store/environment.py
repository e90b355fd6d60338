"""LMDB environments: each opened once in a process, its refusals told as StoreError.

A folder and a piece of work on a transaction enter, the work's result leaves.
What the records mean is left to `store`. LMDB breaks if a process opens the
same file twice or uses one that was opened before a fork, so what is open is
kept here, known by process and file; one lock serves all, as transactions are
short. The map starts small and doubles when full: a large one is a large file
on Windows. What was read counts as this process's memory as long as the file
is mapped, so it is unmapped after MAPPED bytes and mapped again at its next use.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from regraft.core.errors import StoreError
from regraft.core.threads import after_fork

T = TypeVar("T")
Work = Callable[[Any], T]  # takes an lmdb.Transaction whose values are memoryviews, valid until it ends

FIRST_MAP = 64 << 20  # bytes
MAPPED = 64 << 20  # bytes of a file that may have been used, about, before it is unmapped
LEAST_ROOM = 64 << 10  # bytes; a lock file that finds no room at its first use kills the process (SIGBUS)
SPARE = 17 << 12  # bytes after the last page: a damaged page may point up to 64 KiB beyond itself, see `_spare`
LARGEST_PAGE = 64 << 10  # bytes
PAGE_AT = slice(40, 44)  # of a file: the bytes of a page; the first two pages say what the file holds
FLAGS_AT, DUPSORT = (44, 92), 4  # of such a page: the flags of the free pages and of the records
NOT_A_DATABASE = (lmdb.InvalidError, lmdb.VersionMismatchError)
DAMAGE = (*NOT_A_DATABASE, lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PageFullError, lmdb.CursorFullError)
UNCERTAIN = (*DAMAGE, lmdb.BadTxnError, lmdb.PanicError)  # it shows when the file is opened again
REMEDY = "Delete that folder; what it held will be computed again."
NO_ROOM, NO_RIGHT = "no room is left on the disk", "no right to write there"
REASONS = {
    errno.ENOSPC: NO_ROOM,
    errno.EDQUOT: NO_ROOM,
    errno.EFBIG: NO_ROOM,  # a limit on the size of files
    errno.EIO: "the disk is full or failing",  # also what LMDB says when a write ends early
    errno.EACCES: NO_RIGHT,
    errno.EPERM: NO_RIGHT,
    errno.EROFS: NO_RIGHT,
}
NOT_WRITABLE = [code for code, reason in REASONS.items() if reason == NO_RIGHT]

_lock = threading.RLock()
_open: dict[Path, _Opened] = {}


@dataclass
class _Opened:
    environment: lmdb.Environment
    identity: tuple[int, ...]  # of this process and the file
    used: int = 0  # bytes of the file since it was mapped, about


def run(folder: Path, work: Work[T], *, write: bool = False, uses: int = 0) -> T:
    """Return what `work` returns for one transaction on the environment in `folder`.

    A write is durable when this returns, and undone if `work` raises. Where nothing may be written, it is read.
    uses: how many bytes of the file `work` reads, about.
    Raises StoreError if the disk, the rights or the file's state refuse it.
    """
    with _lock, refusals(folder):
        try:
            return _run_opened(folder, work, write, uses)
        except UNCERTAIN:
            return _run_opened(folder, work, write, uses)


def _run_opened(folder: Path, work: Work[T], write: bool, uses: int) -> T:
    opened = _opened(folder)
    try:
        result = _run(opened.environment, work, write)
    except lmdb.Error:
        close(folder)  # after some errors LMDB wants to be opened afresh
        raise
    opened.used += uses
    if opened.used > MAPPED:
        close(folder)
    return result


def close(folder: Path) -> None:
    """Close the environment in `folder`, if this process has it open."""
    with _lock:
        if opened := _open.pop(folder, None):
            opened.environment.close()


@contextlib.contextmanager
def refusals(folder: Path) -> Iterator[None]:
    """Turn what LMDB and the disk refuse into StoreError: what, where, what to do."""
    try:
        yield
    except StoreError:
        raise
    except (lmdb.Error, OSError) as error:
        raise StoreError(f"Can't use the store in {folder}: {_reason(error)}") from error


def damaged(folder: Path, what: str) -> StoreError:
    """Return the error for a file in `folder` that is not as it was written."""
    return StoreError(f"The store in {folder} is damaged: {what}. {REMEDY}")


def _run(environment: lmdb.Environment, work: Work[T], write: bool) -> T:
    while True:
        try:
            with environment.begin(write=write, buffers=True) as transaction:
                return work(transaction)
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
        except lmdb.MapResizedError:  # another process doubled it
            environment.set_mapsize(0)


def _opened(folder: Path) -> _Opened:
    opened = _open.get(folder)
    if opened is None or opened.identity != _identity(folder):
        close(folder)  # opened before a fork, or the store was cleared since
        environment = _environment(folder)
        opened = _open[folder] = _Opened(environment, _identity(folder))
    return opened


def _identity(folder: Path) -> tuple[int, ...]:
    try:
        status = (folder / "data.mdb").stat()
    except FileNotFoundError:
        return (os.getpid(),)
    return (os.getpid(), status.st_dev, status.st_ino)


def _environment(folder: Path) -> lmdb.Environment:
    writable = os.access(folder, os.W_OK)
    if writable and not (folder / "lock.mdb").exists() and shutil.disk_usage(folder).free < LEAST_ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _check_flags(folder)
    try:
        environment = _open_file(folder)
    except NOT_A_DATABASE as error:
        raise damaged(folder, f"data.mdb is not a database ({error})") from error
    _check_length(folder, environment)
    environment.reader_check()  # frees what killed readers held
    return environment


def _open_file(folder: Path) -> lmdb.Environment:
    """Return the file opened for reading and writing; for reading alone, and without a lock, where that is refused."""
    try:
        environment = lmdb.open(str(folder), map_size=FIRST_MAP, create=False)
    except lmdb.Error as error:
        if getattr(error, "code", 0) not in NOT_WRITABLE or not (folder / "data.mdb").exists():
            raise
        return lmdb.open(str(folder), map_size=FIRST_MAP, create=False, readonly=True, lock=False)
    with contextlib.suppress(OSError, AttributeError):  # no room, or another system
        _spare(folder, _length(environment))
    return environment


def _spare(folder: Path, length: int) -> None:
    """Have room after the last page of a file of this length: reading past its end would kill the process (SIGBUS)."""
    with (folder / "data.mdb").open("rb+") as file:
        if length <= os.fstat(file.fileno()).st_size < length + SPARE:
            os.posix_fallocate(file.fileno(), length, SPARE)


def _length(environment: lmdb.Environment) -> int:
    return int((environment.info()["last_pgno"] + 1) * environment.stat()["psize"])


def _check_length(folder: Path, environment: lmdb.Environment) -> None:
    """Refuse a data file that was cut short."""
    expected, size = _length(environment), (folder / "data.mdb").stat().st_size
    if size < expected:
        environment.close()
        raise damaged(folder, f"data.mdb has {size:,} bytes of {expected:,}")


def _check_flags(folder: Path) -> None:
    """Refuse a data file that says a key may have several values: LMDB would end the process at its first use."""
    try:
        with (folder / "data.mdb").open("rb") as file:
            facts = file.read(2 * LARGEST_PAGE)
    except FileNotFoundError:
        return
    page = int.from_bytes(facts[PAGE_AT], sys.byteorder)
    for start in (0, page):
        for at in FLAGS_AT:
            if int.from_bytes(facts[start + at : start + at + 2], sys.byteorder) & DUPSORT:
                raise damaged(folder, "data.mdb has flags that regraft never sets")


def _reason(error: lmdb.Error | OSError) -> str:
    if isinstance(error, DAMAGE):
        return f"its data.mdb is damaged ({error}). {REMEDY}"
    code = int((error.errno if isinstance(error, OSError) else getattr(error, "code", 0)) or 0)
    return f"{REASONS.get(code, error)}. Fix that, or choose another place with --store or REGRAFT_CACHE."


@after_fork
def _unlocked() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it
