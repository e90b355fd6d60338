"""A shelf: the features of one trunk, by key, in one LMDB environment.

A key is an image's (64 hexadecimal characters), for the image as it is, or
that and an augmented view's key (16 more). Records: `f` + key → crc32, then the
features, little-endian, as the shelf stores them: float32, or bfloat16, which is
its upper half, rounded to the nearest (of two equally near, the even one);
`e` + image's key → why the image is broken, and so all its views. Computing
what is missing is left to `extract`.
"""

from __future__ import annotations

import functools
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from regraft.core import text
from regraft.core.errors import StoreError
from regraft.core.files import write_file
from regraft.features.store import environment
from regraft.network.trunk import Stored

T = TypeVar("T")

FORMAT = 2  # 1 had neither views nor bfloat16; it is read as it is
WIDTH: dict[Stored, int] = {"float32": 4, "bfloat16": 2}  # bytes of a number
ID = 64  # characters of an image's key; a longer key is a view's
PAGE = 4096  # bytes; LMDB's
BESIDES = 1 << 18  # bytes of a shelf beside its rows: LMDB's pages of pages, and what is spare after the last one
LEAF_VALUE = 2000  # bytes; larger values get pages of their own
LOOKED_UP = 64 << 10  # bytes of the file that finding a record uses, about: Linux maps a page with its neighbours
ABOUT, DATA = "about.json", "data.mdb"


class MissingRows(StoreError):
    """Features that were asked for are lost or damaged; `ids` says which."""

    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        super().__init__(f"The store in {folder} has lost the features of {text.count(ids, 'image')}. Extract again.")
        self.ids = list(ids)


class Shelf:
    """The features of one trunk, by key.

    Several threads and processes may read and write it at once. A folder
    that was deleted meanwhile is made again, empty. All methods raise
    StoreError if the disk refuses, or the shelf is damaged or of a later format.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], stored: Stored = "float32") -> None:
        self.folder = folder
        self.about = dict(about)
        self.stored = stored

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Return the keys, each once and in order, that have neither features nor an image with an error."""

        keys = sorted(set(ids))  # in the records' order, a stretch needs little of the file

        def find(part: slice, transaction: Any) -> list[str]:
            return [
                id
                for id in keys[part]
                if transaction.get(_key(b"f", id)) is None and transaction.get(_key(b"e", id[:ID])) is None
            ]

        present = set(self._in_stretches(len(keys), LOOKED_UP, find))
        return [id for id in dict.fromkeys(ids) if id in present]

    def errors(self, ids: Sequence[str]) -> dict[str, str]:
        """Return why images are broken, for those of `ids` that are, or are views of such."""
        keys = sorted(set(ids))

        def find(part: slice, transaction: Any) -> list[tuple[str, str]]:
            reasons = ((id, transaction.get(_key(b"e", id[:ID]))) for id in keys[part])
            return [(id, bytes(reason[:PAGE]).decode(errors="replace")) for id, reason in reasons if reason is not None]

        return dict(self._in_stretches(len(keys), LOOKED_UP, find))

    def read(self, ids: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
        """Return a copy of the features, (len(ids), *shape) float32; raise MissingRows for lost or damaged ones.

        shape: of one image's features.
        """

        features = np.empty((len(ids), math.prod(shape)), np.float32)

        def copy(part: slice, transaction: Any) -> list[str]:
            pairs = zip(ids[part], features[part], strict=True)
            return [id for id, row in pairs if not self._unpack(transaction.get(_key(b"f", id)), row)]

        if lost := list(dict.fromkeys(self._in_stretches(len(ids), features[:1].nbytes + LOOKED_UP, copy))):
            raise MissingRows(self.folder, lost)
        return features.reshape(len(ids), *shape)

    def put(self, ids: Sequence[str], features: np.ndarray, errors: Mapping[str, str] | None = None) -> None:
        """Store finite features, (len(ids), *shape), and why other images are broken, in one durable transaction.

        Sound features that are there already stay. If the disk refuses, nothing of this call is stored.
        """

        def write(transaction: Any) -> None:
            record = _Record(math.prod(features.shape[1:]), self.stored)
            for id, row in zip(ids, features, strict=True):
                _put(transaction, id, record.filled(row))
            for id, reason in (errors or {}).items():
                transaction.put(_key(b"e", id[:ID]), reason.encode())

        self._run(write, write=True, uses=len(ids) * LOOKED_UP)

    def _unpack(self, value: memoryview | None, row: np.ndarray) -> bool:
        """Copy a record's features into `row`; return False if they are not there or not as they were written."""
        if value is None or len(value) != 4 + WIDTH[self.stored] * row.size or not _sound(value):
            return False
        if self.stored == "float32":
            row[:] = np.frombuffer(value, "<f4", offset=4)
        else:
            np.left_shift(np.frombuffer(value, "<u2", offset=4), 16, out=row.view(np.uint32), dtype=np.uint32)
        return True

    def _in_stretches(self, count: int, each: int, work: Callable[[slice, Any], list[T]]) -> Iterator[T]:
        """Yield what `work` returns for 0…count, a stretch and a transaction at a time, so that memory stays flat.

        each: bytes of the file that one of them uses, about. Eight stretches are as much as stays mapped.
        """
        length = environment.MAPPED // (8 * each) + 1
        for start in range(0, count, length):
            stop = min(start + length, count)
            yield from self._run(functools.partial(work, slice(start, stop)), uses=each * (stop - start))

    def _run(self, work: Callable[[Any], T], *, write: bool = False, uses: int = 0) -> T:
        with environment.refusals(self.folder):
            if not (self.folder / ABOUT).exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                content = json.dumps({"format": FORMAT, "about": self.about}, indent=2)
                write_file(self.folder / ABOUT, content.encode())
        read_about(self.folder)
        return environment.run(self.folder, work, write=write, uses=uses)


def bytes_needed(count: int, shape: Sequence[int], stored: Stored = "float32") -> int:
    """Return how many bytes of disk `count` more rows take (images or views), rather too many than too few.

    Not counted are the few MB that LMDB copies in a transaction, whatever the count.
    """
    value = 4 + WIDTH[stored] * math.prod(shape)
    if value > LEAF_VALUE:  # LMDB gives it whole pages
        return BESIDES + count * (math.ceil((value + 16) / PAGE) * PAGE + 130)
    return BESIDES + math.ceil(count * 2 * PAGE / (PAGE // (value + 60)))  # they share pages that are half full or more


def _key(kind: bytes, id: str) -> bytes:
    return kind + bytes.fromhex(id)


def _put(transaction: Any, id: str, record: bytearray) -> None:
    there = transaction.get(_key(b"f", id))
    if there is None or len(there) != len(record) or not _sound(there):
        transaction.put(_key(b"f", id), record)


class _Record:
    """One row's record, in memory that is used again for the next: fresh memory costs more than the packing itself."""

    def __init__(self, size: int, stored: Stored) -> None:
        self._bytes = bytearray(4 + WIDTH[stored] * size)
        self._numbers = np.frombuffer(self._bytes, "<f4" if stored == "float32" else "<u2", offset=4)
        self._scratch = np.empty(size, np.uint32)

    def filled(self, row: np.ndarray) -> bytearray:
        """Return the record of this row, valid until the next call."""
        if self._numbers.itemsize == 4:
            self._numbers[:] = np.ravel(row)
        else:
            bits = np.ravel(row).astype(np.float32, copy=False).view(np.uint32)
            np.right_shift(bits, 16, out=self._scratch)
            self._scratch &= 1  # 1 where the upper half is odd: then a half is rounded up
            self._scratch += 0x7FFF
            self._scratch += bits
            np.right_shift(self._scratch, 16, out=self._numbers, casting="unsafe")
        self._bytes[:4] = zlib.crc32(memoryview(self._bytes)[4:]).to_bytes(4, "little")
        return self._bytes


def _sound(value: memoryview) -> bool:
    return zlib.crc32(value[4:]) == int.from_bytes(value[:4], "little")


def read_about(folder: Path) -> dict[str, Any]:
    """Return what a shelf is about; raise StoreError for a later format or a damaged description."""
    with environment.refusals(folder):
        text = (folder / ABOUT).read_bytes()
    try:
        content = json.loads(text)
        number, about = int(content["format"]), dict(content["about"])
    except (ValueError, KeyError, TypeError) as error:
        raise environment.damaged(folder, f"{ABOUT} can't be read") from error
    if number > FORMAT:
        raise StoreError(
            f"The store in {folder} has format {number}; this regraft reads up to {FORMAT}. "
            "Update regraft, or choose another place with --store or REGRAFT_CACHE."
        )
    return about


def count(transaction: Any) -> tuple[int, int]:
    """Return how many images and how many views have features; a view's record has the longer key."""
    cursor = transaction.cursor()
    positioned = cursor.set_range(b"f")
    lengths = Counter(map(len, cursor.iternext(values=False))) if positioned else Counter()
    images = lengths.pop(1 + ID // 2, 0)
    return images, lengths.total()
