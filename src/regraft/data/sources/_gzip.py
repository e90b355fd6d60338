"""Random access to the content of a gzip file, without decompressing from its start for each read.

A file and an offset in its content enter, bytes leave. Every STEP bytes a copy
of the decompressor's state is saved, and a read continues from the last state
before its offset. The idea is Mark Adler's zran.c.
"""

from __future__ import annotations

import io
import threading
import zlib
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Protocol

STEP = 16 * 2**20  # bytes between saved states; each state takes about 50 KB

_CHUNK = 64 * 2**10
_GZIP = 31  # zlib's wbits for gzip with its header and checksum


class _Decompressor(Protocol):
    eof: bool
    unused_data: bytes
    unconsumed_tail: bytes

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...
    def copy(self) -> _Decompressor: ...


def _decompressor() -> _Decompressor:
    return zlib.decompressobj(_GZIP)  # type: ignore[return-value]  # typeshed has no name for its class


@dataclass
class _State:
    """A decompressor, how many bytes of the file it has read, and how many of the content it has returned."""

    read: int = 0
    offset: int = 0
    decompressor: _Decompressor = field(default_factory=_decompressor)

    def copy(self) -> _State:
        return _State(self.read, self.offset, self.decompressor.copy())

    def step(self, file: BinaryIO, limit: int) -> bytes:
        """Return 1 to `limit` bytes; raise EOFError at the end, zlib.error for damage."""
        while True:
            file.seek(self.read)
            chunk = file.read(_CHUNK)
            if data := self._next(chunk, limit):
                return data
            if not chunk:
                raise EOFError("the gzip file ends early")

    def _next(self, chunk: bytes, limit: int) -> bytes:
        """Return the content that `chunk` begins with, if it gives any; it may hold many empty members."""
        while True:
            if self.decompressor.eof and chunk:
                self.decompressor = _decompressor()  # a gzip file may have several members, one after another
            data = self.decompressor.decompress(chunk, limit)
            unused = self.decompressor.unused_data if self.decompressor.eof else self.decompressor.unconsumed_tail
            self.read += len(chunk) - len(unused)
            self.offset += len(data)
            if data or not unused:
                return data
            chunk = unused


class GzipReader:
    """One gzip file; several threads may read it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._saved = [_State()]
        self._recent: deque[_State] = deque(maxlen=64)  # threads read nearly in order, not quite

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of the content from `offset` on; raise EOFError or zlib.error if it is damaged."""
        with self._lock, self._path.open("rb") as file:
            state = max(
                (saved for saved in (*self._saved, *self._recent) if saved.offset <= offset), key=lambda s: s.offset
            ).copy()
            while state.offset < offset:
                state.step(file, min(_CHUNK, offset - state.offset))
                self._save(state)
            content = io.BytesIO()
            while content.tell() < size:
                content.write(state.step(file, size - content.tell()))
            self._recent.append(state)
            return content.getvalue()

    def _save(self, state: _State) -> None:
        if state.offset >= self._saved[-1].offset + STEP:
            self._saved.append(state.copy())


@lru_cache(maxsize=4)
def _reader(path: Path, _size: int, _changed: int) -> GzipReader:
    return GzipReader(path)


def reader(path: Path) -> GzipReader:
    """Return the reader of a file, the same one until the file changes."""
    status = path.stat()
    return _reader(path, status.st_size, status.st_mtime_ns)
