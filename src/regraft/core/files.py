"""Hashing, and writing so that a reader sees the old file or the whole new one, never half of it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import glob
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from regraft.core.errors import StoreError

PARTIAL = ".regraft-partial"  # ends the name of what is being written
ABANDONED = 600  # seconds without a change
OLD = "old"  # what a folder is called until its replacement has taken its place

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux: fcntl.h, linux/fs.h
_RENAME_SWAP = 2  # macOS: sys/stdio.h


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the disk's refusals into StoreError, once, with the path that was being written."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"Can't write {path}: {disk_reason(error)}") from error


def disk_reason(error: OSError) -> str:
    """Return what a disk's refusal means and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no room is left on the disk. Free some, or write elsewhere."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no right to write there. Choose another place."
    return f"{error.strerror or error}."


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path`: a reader sees the old file or the whole new one."""
    with replacing_file(path) as fresh:
        fresh.write_bytes(content)


@contextlib.contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`; when the block ends well it is flushed and takes `path`'s place."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        os.close(descriptor)
        fresh = Path(name)
        try:
            yield fresh
            with fresh.open("rb+") as file:
                os.fsync(file.fileno())
            fresh.chmod(0o666 & ~_umask())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        _sweep(path)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; when the block ends well it takes `path`'s place."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        fresh = _beside(path)
        try:
            fresh.chmod(0o777 & ~_umask())
            yield fresh
            if path.exists():
                _exchange(fresh, path)
            else:
                fresh.replace(path)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        _sweep(path)


def _exchange(fresh: Path, path: Path) -> None:
    """Put `fresh` in the place of the folder `path`: in one step where the system can, or so that `recover` can."""
    if _swap(fresh, path):
        shutil.rmtree(fresh, ignore_errors=True)
        return
    old = _beside(path) / OLD
    path.replace(old)
    try:
        fresh.replace(path)
    except OSError:
        old.replace(path)
        raise
    shutil.rmtree(old.parent, ignore_errors=True)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; return False where the system or the file system can't."""
    with contextlib.suppress(OSError, AttributeError):  # another system, or an old C library
        library = ctypes.CDLL(None, use_errno=True)
        first, second = os.fsencode(one), os.fsencode(other)
        if sys.platform == "darwin":
            return bool(library.renamex_np(first, second, _RENAME_SWAP) == 0)
        return bool(library.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE) == 0)
    return False


def recover(path: Path) -> None:
    """Bring back a folder that a process, killed between its two renames, has left beside its place."""
    if path.exists() or not path.parent.is_dir():
        return
    for old in sorted(path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}/{OLD}")):
        with contextlib.suppress(OSError):  # another process recovers it too
            old.replace(path)
            return


def _beside(path: Path) -> Path:
    return Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL))


def _sweep(path: Path) -> None:
    """Delete what processes that were killed while they wrote `path` have left, not what one may be writing now."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        with contextlib.suppress(OSError):  # another process sweeps too, or it is another user's
            if time.time() - left.stat().st_mtime > ABANDONED:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
