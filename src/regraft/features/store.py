"""The store: what a trunk said of each image, kept on disk, so that it is never computed twice.

Features enter by key and leave as one array in the order asked for. A key is
an image's id (64 hexadecimal characters), for the image as it is, or its id
and an augmented view's key (16 more). A shelf holds what one trunk said; its
folder's name is the digest of all that decides its features (see `trunk`), so
nothing in it can be out of date.

    <store>/<digest>/about.json    the format, and what the trunk is, for people
                     data.mdb      LMDB: transactions, a memory map, several processes at once
                     lock.mdb      LMDB's lock; it needs a local disk
                     network, agreement.json   the engine's: the network converted, and the proof of it

Records: `f` + key → crc32, then the features, little-endian, as the shelf
stores them: float32, or bfloat16, which is its upper half, rounded to the
nearest (of two equally near, the even one); `e` + image id → why the image is
broken, and so all its views. Computing what is missing is left to `extract`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import os
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.filesize import decimal

from regraft.core.errors import StoreError
from regraft.core.files import write_file
from regraft.core.progress import log
from regraft.features import environment
from regraft.network.trunk import Stored

T = TypeVar("T")

FORMAT = 2  # 1 had neither views nor bfloat16; it is read as it is
WIDTH: dict[Stored, int] = {"float32": 4, "bfloat16": 2}  # bytes of a number
ID = 64  # characters of an image's id; a longer key is a view's
PAGE = 4096  # bytes; LMDB's
LEAF_VALUE = 2000  # bytes; larger values get pages of their own
LOOKED_UP = 64 << 10  # bytes of the file that finding a record uses, about: Linux maps a page with its neighbours
SHELF_NAME = re.compile(r"[0-9a-f]{64}(\.cleared)?")
CLEARED = ".cleared"  # ends the name of a shelf that is being deleted
ABOUT, DATA = "about.json", "data.mdb"
ENGINES = {"network", "agreement.json"}  # what `engine` keeps on a shelf, perhaps before the first features
OWN = {ABOUT, DATA, "lock.mdb", *ENGINES}


class MissingRows(StoreError):
    """Features that were asked for are lost or damaged; `ids` says which."""

    def __init__(self, folder: Path, ids: Sequence[str]) -> None:
        super().__init__(f"The store in {folder} has lost the features of {len(ids):,} images. Extract them again.")
        self.ids = list(ids)


@dataclass(frozen=True)
class ShelfInfo:
    """One shelf of a store.

    about:   what the trunk is: architecture, cut, weights, …
    images:  how many have features.
    views:   how many augmented views of them have.
    bytes:   taken on the disk.
    problem: why it can't be read, "" if it can.
    """

    folder: Path
    about: dict[str, Any]
    images: int
    views: int
    bytes: int
    problem: str = ""


def default_folder() -> Path:
    """Return $REGRAFT_CACHE, else regraft's folder in the user's cache; raise StoreError if the user has no home."""
    import platformdirs

    chosen = os.environ.get("REGRAFT_CACHE")
    folder = Path(chosen).absolute() if chosen else platformdirs.user_cache_path("regraft", appauthor=False)
    if not folder.is_absolute():  # "~" that stands for nothing
        raise StoreError("This user has no home folder to keep features in. Set REGRAFT_CACHE or --store to a folder.")
    return folder


class Store:
    """A folder of shelves, one for each trunk.

    folder: None for `default_folder()`/store.
    """

    def __init__(self, folder: Path | None = None) -> None:
        # resolved, as a database must not be opened twice under two names
        self.folder = (default_folder() / "store" if folder is None else Path(folder)).resolve()

    def shelf(self, digest: str, about: Mapping[str, Any], stored: Stored = "float32") -> Shelf:
        """Return the shelf of the trunk with this sha256 digest; its folder is made at its first use.

        about:  what the trunk is, JSON-able.
        stored: the type of the numbers on the disk; the digest decides it.
        """
        return Shelf(self.folder / digest, about, stored)

    def info(self) -> list[ShelfInfo]:
        """Return what each shelf holds; one that can't be read is listed with its problem."""
        return [_info(folder) for folder in self.shelves() if not folder.name.endswith(CLEARED)]

    def to_dict(self) -> dict[str, Any]:
        """Return what `info` tells as JSON-able data."""
        shelves = [{**dataclasses.asdict(shelf), "folder": str(shelf.folder)} for shelf in self.info()]
        return {"folder": str(self.folder), "bytes": sum(shelf["bytes"] for shelf in shelves), "shelves": shelves}

    def text(self) -> str:
        """Return what `info` tells as lines for people."""
        shelves = self.info()
        total = f"{decimal(sum(shelf.bytes for shelf in shelves))} in {self.folder}"
        return "\n".join([*map(_line, shelves), total])

    def clear(self) -> int:
        """Delete all shelves, and nothing else; return the bytes freed. Processes that read them go on."""
        return sum(_delete(folder) for folder in self.shelves())

    def shelves(self) -> list[Path]:
        """Return the shelves' folders, those that are being deleted too."""
        with environment.refusals(self.folder):
            if not self.folder.is_dir():
                return []
            return [folder for folder in sorted(self.folder.iterdir(), reverse=True) if _is_shelf(folder)]


class Shelf:
    """The features that one trunk gave, by key: an image's id (sha256 in hex), or that and a view's key.

    Several threads and processes may read and write it at once. A folder
    that was deleted meanwhile is made anew, empty. All methods raise
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

        found = set(self._in_stretches(len(keys), LOOKED_UP, find))
        return [id for id in dict.fromkeys(ids) if id in found]

    def errors(self, ids: Sequence[str]) -> dict[str, str]:
        """Return why images are broken, for those of `ids` that are, or are views of such."""
        keys = sorted(set(ids))

        def find(part: slice, transaction: Any) -> list[tuple[str, str]]:
            found = ((id, transaction.get(_key(b"e", id[:ID]))) for id in keys[part])
            return [(id, bytes(reason).decode()) for id, reason in found if reason is not None]

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
        _about(self.folder)
        return environment.run(self.folder, work, write=write, uses=uses)


def bytes_needed(count: int, shape: Sequence[int], stored: Stored = "float32") -> int:
    """Return how many bytes of disk `count` more rows take (images or views), rather too many than too few.

    Not counted are the few MB that LMDB copies in a transaction, whatever the count.
    """
    value = 4 + WIDTH[stored] * math.prod(shape)
    if value > LEAF_VALUE:  # LMDB gives it whole pages
        return count * (math.ceil((value + 16) / PAGE) * PAGE + 130)
    return math.ceil(count * 2 * PAGE / (PAGE // (value + 60)))  # they share pages that are at least half full


def room(folder: Path, limit: float | None = None) -> int:
    """Return how many bytes may still be written to the store in `folder`; raise StoreError if that can't be told.

    limit: GB (10⁹ bytes) that the whole store may take; None: what the disk has.
    """
    with environment.refusals(folder):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        if limit is None:
            return free
        held = sum(_bytes(shelf) for shelf in Store(folder).shelves())
    return max(0, min(free, round(limit * 1e9) - held))


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


def _about(folder: Path) -> dict[str, Any]:
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


def _is_shelf(folder: Path) -> bool:
    """Tell a shelf from anything else that a user may keep in the folder."""
    if not SHELF_NAME.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    names = {file.name for file in folder.iterdir()}
    if any(name not in OWN and not _partial(name) for name in names):
        return False
    return folder.name.endswith(CLEARED) or {ABOUT, DATA} <= names or bool(ENGINES & names)


def _partial(name: str) -> bool:
    """Tell what a write that is going on, or was killed, has beside the file that it is to become."""
    return any(name.startswith(f".{own}.") for own in OWN)


def _info(folder: Path) -> ShelfInfo:
    about: dict[str, Any] = {}
    images, views, problem = 0, 0, ""
    try:
        if (folder / DATA).exists():
            about = _about(folder)
            images, views = environment.run(folder, _count)
    except StoreError as error:
        problem = str(error)
    return ShelfInfo(folder=folder, about=about, images=images, views=views, bytes=_bytes(folder), problem=problem)


def _line(shelf: ShelfInfo) -> str:
    about = shelf.about
    what = f"{about.get('architecture')} cut at {about.get('cut')}" if about else shelf.folder.name
    size = f", {about['preprocess']['size']} pixels" if "preprocess" in about else ""
    problem = f"; {shelf.problem}" if shelf.problem else ""
    views = f" and {shelf.views:,} views of them" if shelf.views else ""
    return f"{what}{size}: {shelf.images:,} images{views}, {decimal(shelf.bytes)}{problem}"


def _count(transaction: Any) -> tuple[int, int]:
    """Return how many images and how many views have features; a view's record has the longer key."""
    cursor = transaction.cursor()
    found = cursor.set_range(b"f")
    lengths = Counter(map(len, cursor.iternext(values=False))) if found else Counter()
    images = lengths.pop(1 + ID // 2, 0)
    return images, lengths.total()


def _bytes(folder: Path) -> int:
    """Return what all in a folder takes on the disk: its blocks, as files may have holes."""
    taken = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another process may be replacing it
                status = Path(place, name).stat()
                taken += status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size
    return taken


def _delete(folder: Path) -> int:
    """Delete a shelf; renamed first, so that another process finds all of it or none."""
    with environment.refusals(folder):
        environment.close(folder)
        if not folder.name.endswith(CLEARED):
            folder = folder.rename(folder.with_name(folder.name + CLEARED))
        freed = _bytes(folder)
        shutil.rmtree(folder)
    log.info("Deleted %s", folder)
    return freed
