"""The store as a whole: its shelves and known trunks, what they take on the disk, and how they are deleted."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from regraft.core.errors import StoreError
from regraft.core.progress import log
from regraft.core.text import count
from regraft.features.store import environment, shelf, trunks
from regraft.features.store.shelf import ABOUT, DATA, Shelf
from regraft.inference import agreement
from regraft.inference.engines import CONVERTED
from regraft.network.options import NetworkOptions
from regraft.network.trunk import Choice, Stored, Trunk

FINGERPRINTS = "fingerprints"  # the folder of the shelf that has them
SHELF_NAME = re.compile(rf"([0-9a-f]{{64}}|{FINGERPRINTS})(\.cleared)?")
CLEARED = ".cleared"  # ends the name of a shelf that is being deleted
ENGINES = {CONVERTED, agreement.PROOF}  # what an engine keeps on a shelf, perhaps before the first features
TRUNKS = "trunks"
OWN = {ABOUT, DATA, "lock.mdb", *ENGINES}


@dataclass(frozen=True)
class ShelfInfo:
    """One shelf of a store.

    about:   what the trunk is: architecture, cut, weights, …
    images:  how many have features.
    views:   how many augmented views of them have.
    bytes:   taken on the disk, in all, and
    network: of these by the network that an engine converted.
    problem: why it can't be read, "" if it can.
    """

    folder: Path
    about: dict[str, Any]
    images: int
    views: int
    bytes: int
    network: int = 0
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

    def fingerprints(self, about: Mapping[str, Any], stored: Stored) -> Shelf:
        """Return the shelf of the images' fingerprints, by which near-duplicates are known."""
        return Shelf(self.folder / FINGERPRINTS, about, stored)

    def trunk(self, options: NetworkOptions, choice: Choice, pool: str = "mean") -> Trunk:
        """Return the trunk that `options` ask for, without building its network if it is known; see `build.build`."""
        return trunks.build(self.folder / TRUNKS, options, choice, pool)

    def info(self) -> list[ShelfInfo]:
        """Return what each trunk's shelf holds; one that can't be read is listed with its problem."""
        return [_info(folder) for folder in self.shelves() if folder.name.isalnum() and folder.name != FINGERPRINTS]

    def _fingerprints(self) -> ShelfInfo:
        return _info(self.folder / FINGERPRINTS)

    def to_dict(self) -> dict[str, Any]:
        """Return what each shelf holds, and what the known trunks take, as JSON-able data."""
        shelves = [{**dataclasses.asdict(info), "folder": str(info.folder)} for info in self.info()]
        known, prints = _taken(self.trunk_files()), self._fingerprints()
        return {
            "folder": str(self.folder),
            "bytes": sum(info["bytes"] for info in shelves) + known + prints.bytes,
            "shelves": shelves,
            "trunks": {"bytes": known},
            "fingerprints": {"images": prints.images, "bytes": prints.bytes},
        }

    def text(self) -> str:
        """Return what each shelf holds, and what the known trunks take, as lines for people."""
        shelves, files = self.info(), self.trunk_files()
        records = sum(path.suffix == ".json" for path in files)
        known = [f"{count(records, 'network')} known by their options, {decimal(_taken(files))}"] if files else []
        prints = self._fingerprints()
        if prints.bytes:
            known.append(f"fingerprints of {count(prints.images, 'image')}, {decimal(prints.bytes)}{_problem(prints)}")
        total = sum(info.bytes for info in shelves) + _taken(files) + prints.bytes
        return "\n".join([*map(_line, shelves), *known, f"{decimal(total)} in {self.folder}"])

    def clear(self) -> int:
        """Delete all shelves and known trunks, and nothing else; return the bytes freed. Processes that read go on."""
        return sum(_delete(folder) for folder in self.shelves()) + self._clear_trunks()

    def _clear_trunks(self) -> int:
        with environment.refusals(self.folder):
            files = self.trunk_files()
            freed = _taken(files)
            for path in files:
                path.unlink(missing_ok=True)  # another process may be clearing too
            with contextlib.suppress(OSError):  # something else may be in it
                (self.folder / TRUNKS).rmdir()
        return freed

    def trunk_files(self) -> list[Path]:
        """Return the files of known trunks."""
        with environment.refusals(self.folder):
            return trunks.files(self.folder / TRUNKS)

    def shelves(self) -> list[Path]:
        """Return the shelves' folders, those that are being deleted too."""
        with environment.refusals(self.folder):
            if not self.folder.is_dir():
                return []
            return [folder for folder in sorted(self.folder.iterdir(), reverse=True) if _is_shelf(folder)]


def room(folder: Path, limit: float | None = None) -> int:
    """Return how many bytes may still be written to the store in `folder`; raise StoreError if that can't be told.

    limit: GB (10⁹ bytes) that the whole store may take; None: what the disk has.
    """
    with environment.refusals(folder):
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        if limit is None:
            return free
        store = Store(folder)
        held = sum(_bytes(shelf) for shelf in store.shelves()) + _taken(store.trunk_files())
    return max(0, min(free, round(limit * 1e9) - held))


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
            about = shelf.read_about(folder)
            images, views = environment.run(folder, shelf.count)
    except StoreError as error:
        problem = str(error)
    network = _bytes(folder / CONVERTED)
    return ShelfInfo(folder, about, images, views, _bytes(folder), network, problem)


def _line(info: ShelfInfo) -> str:
    about = info.about
    what = f"{about.get('architecture')} cut at {about.get('cut')}" if about else info.folder.name
    size = f", {about['preprocess']['size']} pixels" if "preprocess" in about else ""
    views = f" and {count(info.views, 'view')} of them" if info.views else ""
    network = f", and {decimal(info.network)} for the converted network" if info.network else ""
    held = f"{count(info.images, 'image')}{views}, {decimal(info.bytes - info.network)}"
    return f"{what}{size}: {held}{network}{_problem(info)}"


def _problem(info: ShelfInfo) -> str:
    return f"; {info.problem}" if info.problem else ""


def _bytes(folder: Path) -> int:
    """Return how much all files in a folder take on the disk."""
    return _taken(Path(path, name) for path, _, names in os.walk(folder) for name in names)


def _taken(files: Iterable[Path]) -> int:
    """Return how much files take on the disk: their blocks, as they may have holes."""
    taken = 0
    for path in files:
        with contextlib.suppress(FileNotFoundError):  # another process may be replacing it
            status = path.stat()
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
