"""What a store lacks of an index's features, whether there is room for it, and how it is computed into the shelves.

    index + shelves → what each lacks → computed by one decoding of each image (see `worker`) → the shelves

Where there are several trunks, an image that several shelves lack is decoded once for all of them.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.filesize import decimal

from regraft.core.errors import StoreError
from regraft.core.progress import log, progress
from regraft.data.index import Index, Row
from regraft.features.augmentation import View
from regraft.features.poses import Pose
from regraft.features.store.shelf import Shelf, bytes_needed
from regraft.features.store.store import Store
from regraft.features.worker import Batch, Failure, Task, compute, key, sample
from regraft.inference.runner import Runner
from regraft.network.trunk import Trunk

SAVE_BYTES = 8 << 20  # of features, and
SAVE_SECONDS = 5.0  # at most, between two durable writes


def settled_shelves(index: Index, runner: Runner, store: Store) -> list[Shelf]:
    """Settle in which precision each trunk runs here, and return the shelves of their features."""

    def shelf(trunk: Trunk) -> Shelf:
        return store.shelf(trunk.digest, trunk.describe(), trunk.stored)

    for one in runner.each:
        if rows := index.used.rows:
            images = functools.partial(sample, rows, one.trunk.preprocess)
            one.settle(lambda trunk: shelf(trunk).folder, images)
    return [shelf(trunk) for trunk in runner.trunks]


# What there is room for


def fitting_views(
    index: Index, runner: Runner, shelves: Sequence[Shelf], views: Sequence[View | Pose], free: int
) -> tuple[View | Pose, ...] | None:
    """Return as many of the views as the store has room for; None if there is none even for the images as they are."""
    trunks, folder = runner.trunks, shelves[0].folder.parent
    for count in range(len(views), -1, -1):
        fitting = tuple(views[:count])
        each = [sum(len(task.views) for task in _lacking(index, shelf, fitting, {})) for shelf in shelves]
        missing = sum(each)
        sizes = zip(each, trunks, strict=True)
        needed = sum(bytes_needed(number, trunk.output_shape, trunk.stored) for number, trunk in sizes if number)
        if needed <= free:
            _log_room(missing, needed, free, folder, views, count)
            return fitting
    if all(trunk.stored == "float32" for trunk in trunks):
        raise StoreError(
            f"The features of {missing:,} images take up to {decimal(needed)}, and there are {decimal(free)} for the "
            f"store in {folder}. Free some, raise --store-limit, choose another folder with --store or "
            "REGRAFT_CACHE, or another --cut."
        )
    log.warning(
        "The maps of %s images at the cut would take up to %s, and there are %s for the store in %s: "
        "they are computed again in every epoch, which is slow.",
        f"{missing:,}",
        decimal(needed),
        decimal(free),
        folder,
    )
    return None


def _log_room(missing: int, needed: int, free: int, folder: Path, views: Sequence[View | Pose], count: int) -> None:
    if count < len(views):
        log.warning(
            "There are %s for the store in %s, which is enough for %d of %d views.",
            decimal(free),
            folder,
            count,
            len(views),
        )
    if missing:
        log.info("Computing %s features; they take up to %s in %s.", f"{missing:,}", decimal(needed), folder)


def reasons_of(failures: Sequence[Failure]) -> dict[str, str]:
    """Return why images failed, by path."""
    return {failure.row.path: failure.reason for failure in failures}


# Into the store


def _lacking(index: Index, shelf: Shelf, views: Sequence[View | Pose], unread: dict[str, str]) -> list[Task]:
    """Return for each image what the shelf does not have, in the index's order."""
    first: dict[str, Row] = {}
    trained: set[str] = set()
    parts = any(row.part for row in index.used)
    for row in index.used:
        if row.path not in unread:
            first.setdefault(row.id, row)
            if views and (row.part == "train" or not parts):
                trained.add(row.id)
    wanted = {row: (None, *views) if row.id in trained else (None,) for row in first.values()}
    missing = set(shelf.missing([key(row, view) for row, all_views in wanted.items() for view in all_views]))
    lacking = {row: tuple(view for view in all_views if key(row, view) in missing) for row, all_views in wanted.items()}
    return [Task(row, missing_views) for row, missing_views in lacking.items() if missing_views]


def passes(
    index: Index, shelves: Sequence[Shelf], views: Sequence[View | Pose], unread: dict[str, str]
) -> dict[tuple[int, ...], list[Task]]:
    """Return the tasks by the numbers of the shelves that lack them: several shelves are filled by one decoding."""
    lacking: dict[Task, list[int]] = {}
    for number, shelf in enumerate(shelves):
        for task in _lacking(index, shelf, views, unread):
            lacking.setdefault(task, []).append(number)
    passes: dict[tuple[int, ...], list[Task]] = {}
    for task, numbers in lacking.items():
        passes.setdefault(tuple(numbers), []).append(task)
    return passes


def fill(shelves: Sequence[Shelf], tasks: Sequence[Task], runner: Runner) -> dict[str, str]:
    """Compute the tasks into the shelves; return why some couldn't be read, which says nothing of their bytes."""
    unread: dict[str, str] = {}
    with progress("features", len(tasks)) as advance, _Saving(shelves) as saving:
        for batch in compute(tasks, runner, *(shelf.folder for shelf in shelves)):
            saving.add(batch)
            unread |= reasons_of([failure for failure in batch.failures if not failure.lasting])
            advance(len(batch.rows))
    return unread


class _Saving:
    """Collects batches and puts them on the shelves every few seconds; the rest at the end, however it ends."""

    def __init__(self, shelves: Sequence[Shelf]) -> None:
        self.shelves = shelves
        self._clear()

    def __enter__(self) -> _Saving:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, StoreError):
            self.save()

    def add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.bytes += sum(features.nbytes for features in batch.features)
        if self.bytes >= SAVE_BYTES or time.monotonic() - self.since >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self.batches:
            keys = [key for batch in self.batches for key in batch.keys]
            failures = [failure for batch in self.batches for failure in batch.failures if failure.lasting]
            reasons = {failure.row.key: failure.reason for failure in failures}
            for number, shelf in enumerate(self.shelves):
                shelf.put(keys, np.concatenate([batch.features[number] for batch in self.batches]), reasons)
        self._clear()

    def _clear(self) -> None:
        self.batches: list[Batch] = []
        self.bytes = 0
        self.since = time.monotonic()
