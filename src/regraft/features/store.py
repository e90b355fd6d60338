"""The store: what a trunk said of each image, kept on disk, so that it is never computed twice.

Features enter by image id and leave as one array in the order asked for. A
shelf holds what one trunk said; its folder's name is the digest of all that
decides its features (see `trunk`), so nothing in it can be out of date.

    <store>/<digest>/about.json    the format, and what the trunk is, for people
                     data.mdb      LMDB: transactions, a memory map, several processes at once
                     lock.mdb      LMDB's lock; it needs a local disk

Records: `f` + id → crc32, then the features as little-endian float32;
`e` + id → why the image is broken. Computing what is missing is left to
`extract`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.filesize import decimal

from regraft.core.errors import StoreError
from regraft.core.files import write_file
from regraft.core.progress import log
from regraft.features import environment

T = TypeVar("T")

FORMAT = 1
PAGE = 4096  # bytes; LMDB's
LEAF_VALUE = 2000  # bytes; larger values get pages of their own
SHELF_NAME = re.compile(r"[0-9a-f]{64}(\.cleared)?")
CLEARED = ".cleared"  # ends the name of a shelf that is being deleted
ABOUT, DATA, LOCK = "about.json", "data.mdb", "lock.mdb"


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
    bytes:   taken on the disk.
    problem: why it can't be read, "" if it can.
    """

    folder: Path
    about: dict[str, Any]
    images: int
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

    def shelf(self, digest: str, about: Mapping[str, Any]) -> Shelf:
        """Return the shelf of the trunk with this sha256 digest; its folder is made at its first use.

        about: what the trunk is, JSON-able.
        """
        return Shelf(self.folder / digest, about)

    def info(self) -> list[ShelfInfo]:
        """Return what each shelf holds; one that can't be read is listed with its problem."""
        return [_info(folder) for folder in self._shelves() if not folder.name.endswith(CLEARED)]

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
        return sum(_delete(folder) for folder in self._shelves())

    def _shelves(self) -> list[Path]:
        with environment.refusals(self.folder):
            if not self.folder.is_dir():
                return []
            return [folder for folder in sorted(self.folder.iterdir(), reverse=True) if _is_shelf(folder)]


class Shelf:
    """The features that one trunk gave, by image id (sha256 in hex).

    Several threads and processes may read and write it at once. A folder
    that was deleted meanwhile is made anew, empty. All methods raise
    StoreError if the disk refuses, or the shelf is damaged or of a later format.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.about = dict(about)

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Return the ids, each once and in order, that have neither features nor an error."""

        def find(transaction: Any) -> list[str]:
            return [
                id
                for id in dict.fromkeys(ids)
                if transaction.get(_key(b"f", id)) is None and transaction.get(_key(b"e", id)) is None
            ]

        return self._run(find)

    def errors(self, ids: Sequence[str]) -> dict[str, str]:
        """Return why images are broken, for those of `ids` that are."""

        def find(transaction: Any) -> dict[str, str]:
            found = {id: transaction.get(_key(b"e", id)) for id in dict.fromkeys(ids)}
            return {id: bytes(reason).decode() for id, reason in found.items() if reason is not None}

        return self._run(find)

    def read(self, ids: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
        """Return a copy of the features, (len(ids), *shape) float32; raise MissingRows for lost or damaged ones.

        shape: of one image's features.
        """

        def copy(transaction: Any) -> np.ndarray:
            features = np.empty((len(ids), math.prod(shape)), np.float32)
            lost = [id for id, row in zip(ids, features, strict=True) if not _copy(transaction, id, row)]
            if lost:
                raise MissingRows(self.folder, list(dict.fromkeys(lost)))
            return features.reshape(len(ids), *shape)

        return self._run(copy)

    def put(self, ids: Sequence[str], features: np.ndarray, errors: Mapping[str, str] | None = None) -> None:
        """Store features, (len(ids), *shape), and why other images are broken, in one durable transaction.

        Sound features that are there already stay. If the disk refuses, nothing of this call is stored.
        """

        def write(transaction: Any) -> None:
            for id, row in zip(ids, features, strict=True):
                _put(transaction, id, row.astype("<f4").tobytes())
            for id, reason in (errors or {}).items():
                transaction.put(_key(b"e", id), reason.encode())

        self._run(write, write=True)

    def _run(self, work: Callable[[Any], T], *, write: bool = False) -> T:
        with environment.refusals(self.folder):
            if not (self.folder / ABOUT).exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                content = json.dumps({"format": FORMAT, "about": self.about}, indent=2)
                write_file(self.folder / ABOUT, content.encode())
        _about(self.folder)
        return environment.run(self.folder, work, write=write)


def bytes_needed(count: int, shape: Sequence[int]) -> int:
    """Return how many bytes of disk the features of `count` more images take, rather too many than too few."""
    value = 4 + 4 * math.prod(shape)
    # LMDB gives a large value whole pages; small ones share pages that are half to three quarters full
    row = math.ceil((value + 16) / PAGE) * PAGE + 120 if value > LEAF_VALUE else 2 * (value + 50)
    return count * row


def _key(kind: bytes, id: str) -> bytes:
    return kind + bytes.fromhex(id)


def _put(transaction: Any, id: str, values: bytes) -> None:
    there = transaction.get(_key(b"f", id))
    if there is None or len(there) != 4 + len(values) or not _sound(there):
        transaction.put(_key(b"f", id), zlib.crc32(values).to_bytes(4, "little") + values)


def _copy(transaction: Any, id: str, row: np.ndarray) -> bool:
    """Copy one image's features into `row`; return False if they are not there or not as they were written."""
    value = transaction.get(_key(b"f", id))
    if value is None or len(value) != 4 + 4 * row.size or not _sound(value):
        return False
    row[:] = np.frombuffer(value, "<f4", offset=4)
    return True


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
    left = {name for name in names if not name.startswith(f".{ABOUT}.")} - {ABOUT, DATA, LOCK}
    return not left and (folder.name.endswith(CLEARED) or {ABOUT, DATA} <= names)


def _info(folder: Path) -> ShelfInfo:
    about: dict[str, Any] = {}
    images, problem = 0, ""
    try:
        about = _about(folder)
        images = environment.run(folder, _count)
    except StoreError as error:
        problem = str(error)
    return ShelfInfo(folder=folder, about=about, images=images, bytes=_bytes(folder), problem=problem)


def _line(shelf: ShelfInfo) -> str:
    about = shelf.about
    what = f"{about.get('architecture')} cut at {about.get('cut')}" if about else shelf.folder.name
    size = f", {about['preprocess']['size']} pixels" if "preprocess" in about else ""
    problem = f"; {shelf.problem}" if shelf.problem else ""
    return f"{what}{size}: {shelf.images:,} images, {decimal(shelf.bytes)}{problem}"


def _count(transaction: Any) -> int:
    """Return how many images have features: all records but the errors, which stand first and are few."""
    keys = transaction.cursor().iternext(values=False)
    errors = sum(1 for _ in itertools.takewhile(lambda key: key[:1] == b"e", keys))
    return int(transaction.stat()["entries"]) - errors


def _bytes(folder: Path) -> int:
    """Return what a folder's files take on the disk: its blocks, as files may have holes."""
    statuses = [file.stat() for file in folder.iterdir()]
    return sum(status.st_blocks * 512 if hasattr(status, "st_blocks") else status.st_size for status in statuses)


def _delete(folder: Path) -> int:
    """Delete a shelf; renamed first, so that another process finds all of it or none."""
    with environment.refusals(folder):
        environment.close(folder)
        if not folder.name.endswith(CLEARED):
            folder = folder.rename(folder.with_name(folder.name + CLEARED))
        freed = _bytes(folder)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    log.info("Deleted %s", folder)
    return freed
