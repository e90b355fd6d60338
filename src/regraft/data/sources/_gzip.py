"""Reading anywhere in a gzip file, without starting over for each read.

A file and a place in what it holds enter, bytes leave. Every so often the
decompressor's state is kept (zlib can copy it), so that a read goes on from
the last state before its place. The idea is Mark Adler's zran.c.
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

STEP = 16 * 2**20  # bytes between the states kept; each state takes about 50 KB

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
    """A decompressor that has taken `taken` bytes of the file and given `given`."""

    taken: int = 0
    given: int = 0
    decompressor: _Decompressor = field(default_factory=_decompressor)

    def copy(self) -> _State:
        return _State(self.taken, self.given, self.decompressor.copy())

    def step(self, file: BinaryIO, most: int) -> bytes:
        """Return at least 1 and at most `most` bytes; raise EOFError at the end, zlib.error at damage."""
        while True:
            file.seek(self.taken)
            chunk = file.read(_CHUNK)
            if self.decompressor.eof and chunk:
                self.decompressor = _decompressor()  # gzip files may stand one behind the other
            data = self.decompressor.decompress(chunk, most)
            left = self.decompressor.unused_data if self.decompressor.eof else self.decompressor.unconsumed_tail
            self.taken += len(chunk) - len(left)
            self.given += len(data)
            if data:
                return data
            if not chunk:
                raise EOFError("the gzip file ends early")


class GzipReader:
    """One gzip file, for several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._kept = [_State()]
        self._recent: deque[_State] = deque(maxlen=64)  # threads come nearly in order, not quite

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of the content from `offset` on; raise EOFError or zlib.error if they can't be had."""
        with self._lock, self._path.open("rb") as file:
            state = max(
                (known for known in (*self._kept, *self._recent) if known.given <= offset), key=lambda s: s.given
            ).copy()
            while state.given < offset:
                state.step(file, min(_CHUNK, offset - state.given))
                self._keep(state)
            content = io.BytesIO()
            while content.tell() < size:
                content.write(state.step(file, size - content.tell()))
            self._recent.append(state)
            return content.getvalue()

    def _keep(self, state: _State) -> None:
        if state.given >= self._kept[-1].given + STEP:
            self._kept.append(state.copy())


@lru_cache(maxsize=4)
def _reader(path: Path, _size: int, _changed: int) -> GzipReader:
    return GzipReader(path)


def reader(path: Path) -> GzipReader:
    """Return the reader of a file, the same one as long as the file stays as it is."""
    found = path.stat()
    return _reader(path, found.st_size, found.st_mtime_ns)
