"""Extraction: the features of each image, computed once and kept in the store.

    index + trunk + store → what is missing is computed (see `worker`) → Features

Comes after split, before fit. Views are augmentations: the training images
have as many as are wanted and as the disk has room for, the others none.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rich.filesize import decimal

from regraft.core.errors import StoreError
from regraft.core.progress import log, progress
from regraft.core.results import Result
from regraft.data.index import PARTS, Index, Row
from regraft.data.split import group_numbers
from regraft.features.augmentation import View
from regraft.features.store.shelf import MissingRows, Shelf, bytes_needed
from regraft.features.store.store import Store, room
from regraft.features.worker import Batch, Failure, Task, broken, compute, key, sample
from regraft.features.write import write
from regraft.inference.runner import Runner
from regraft.network.trunk import Tail, Trunk

SAVE_BYTES = 8 << 20  # of features, and
SAVE_SECONDS = 5.0  # at most, between two durable writes


def stream(index: Index, runner: Runner, store: Store) -> Iterator[tuple[list[Row], np.ndarray]]:
    """Yield the used rows in order, a few at a time, without storing their features: (rows, features).

    store:    where the trunk's converted network is kept.
    rows:     those that failed are marked broken.
    features: (n, *trunk.output_shape) float32, for the rows that are not.
    """
    shelf = _settled_shelf(index, runner, store)
    for batch in compute([Task(row) for row in index.used], runner, shelf.folder):
        rows = Index(tuple(batch.rows)).mark_broken(_reasons(batch.failures)).rows
        yield list(rows), batch.features


def extract(
    index: Index, runner: Runner, store: Store, views: Sequence[View] = (), *, limit: float | None = None
) -> Features:
    """Return the features of the used rows, computing only those that the store lacks.

    runner: of the trunk, whose precision is settled here.
    views:  wanted of each row of the training part, or of every row if there are no parts.
    limit:  GB that the store may take; None: what the disk has.

    If there is no room for all, there are fewer views. Maps for a tail that have no room even without views are not
    stored but computed whenever they are read; pooled features, which are small, are refused. What is done is logged.

    Each few seconds' work is durable: a run that was stopped goes on from
    there. Rows found broken are marked so in the result's index.
    Raises StoreError if the disk has no room, before any feature is computed, or
    refuses; RefusedFile if the trunk's features are not finite.
    """
    shelf = _settled_shelf(index, runner, store)
    fitting = _fitting(index, runner.trunk, shelf, views, room(store.folder, limit))
    if fitting is None:
        return Features(index.mark_broken(_reasons(broken(index.used.rows))), runner, shelf, stored=False)
    unread: dict[str, str] = {}
    while todo := _lacking(index, shelf, fitting, unread):  # again only if a file couldn't be read: it may have a copy
        unread |= _fill(shelf, todo, runner)
    errors = shelf.errors([row.key for row in index.used])
    reasons = {row.id: errors[row.key] for row in index.used if row.key in errors} | unread
    return Features(index.mark_broken(reasons), runner, shelf, views=fitting)


class Features(Result):
    """The features of an index's used rows, read from the store as they are asked for.

    index:  the whole index, the rows that were found broken marked so.
    rows:   the used rows, in order; row number k here is features[k].
    runner: what computed them, and computes what is missing.
    stored: whether they are on the disk; otherwise each reading computes them.
    tail:   the network above the cut, if one is to be trained on them.

    Reads as an array does, (len, *shape of one image) float32; a row that
    the disk has lost or damaged is computed again.
    """

    def __init__(
        self,
        index: Index,
        runner: Runner,
        shelf: Shelf,
        *,
        tail: Tail | None = None,
        views: Sequence[View] = (),
        view: View | None = None,
        fresh_view: View | None = None,
        stored: bool = True,
    ) -> None:
        self.index = index
        self.rows = index.used.rows
        self.runner = runner
        self.stored = stored
        self.tail = tail
        self._shelf = shelf
        self._views = tuple(views)
        self._view = view
        self._fresh_view = fresh_view

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Features: {self.text()}>"

    def text(self) -> str:
        """Return in a line how many there are, of what shape, and what computed them."""
        recipe = self.trunk.recipe
        views = f" and {len(self._views)} augmented views of each training image" if self._views else ""
        return f"{len(self):,} images{views}, {self.shape[1:]} each, by {recipe.architecture} cut at {recipe.cut}"

    def to_dict(self) -> dict[str, Any]:
        """Return what they are as JSON-able data, without the numbers."""
        recipe = self.trunk.recipe
        return {
            "source": self.index.name,
            "images": len(self),
            "shape": list(self.shape[1:]),
            "views": len(self._views),
            "parts": {part: len(rows) for part in PARTS if (rows := self.index.part(part))},
            "architecture": recipe.architecture,
            "cut": recipe.cut,
            "input": recipe.preprocess.size,
            "precision": self.trunk.choice.precision,
            "stored": self.stored,
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write them to a file: .npz or .parquet with the numbers, .html or .json with what they are.

        overwrite: replace a file of this name, if regraft wrote it.
        """
        if Path(path).suffix.lower() in (".npz", ".parquet"):
            write(self, Path(path), overwrite=overwrite)
        else:
            super().save(path, overwrite=overwrite)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def trunk(self) -> Trunk:
        """The trunk, in the precision in which it computed them."""
        return self.runner.trunk

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, …), as NumPy has it."""
        return (len(self), *self.trunk.output_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float32."""
        return np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return a copy of these rows: a number, a slice, numbers or booleans, as NumPy takes them."""
        numbers = np.arange(len(self))[rows]
        features = self._read([self.rows[number] for number in np.ravel(numbers)])
        return features.reshape(*np.shape(numbers), *self.trunk.output_shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows, for `np.asarray`."""
        if copy is False:
            raise ValueError("Features are read from the disk; they can't become an array without a copy.")
        return self[:].astype(dtype or np.float32, copy=False)

    def part(self, name: str) -> Features:
        """Return the features of one part: "train", "validation" or "test"; views belong to the training part."""
        part = self.with_index(self.index.part(name))
        return part if name == "train" else part.without_views()

    def with_index(self, index: Index) -> Features:
        """Return the features of the used rows of another index over the same images."""
        return self._changed(index=index)

    def without_views(self) -> Features:
        """Return the same features of the images as they are, alone."""
        return self._changed(views=(), view=None, fresh_view=None)

    def with_tail(self, tail: Tail | None) -> Features:
        """Return the same features, of maps, with the network above them, to be trained."""
        return self._changed(tail=tail)

    @property
    def views(self) -> tuple[Features, ...]:
        """The stored augmentations: for each the features of the same rows."""
        return tuple(self._changed(views=(), view=view) for view in self._views)

    def with_fresh(self, view: View) -> Features:
        """Return the same features, of which `fresh` gives new views like this one."""
        return self._changed(fresh_view=view)

    @property
    def fresh(self) -> Callable[[int], Features] | None:
        """What gives for an epoch's number the same rows, augmented again, computed whenever they are read; or None."""
        fresh = self._fresh_view
        if fresh is None:
            return None
        return lambda number: self._changed(
            view=dataclasses.replace(fresh, number=number), fresh_view=None, stored=False
        )

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Return each row's label as its position in `classes`, (n,) int64; raise DataError for another label.

        Where an image may have several: 1 for each that it has, 0 for the others, (n, classes) float32.
        """
        used = self.index.used
        if self.index.multilabel:
            return np.array(used.label_flags(classes), np.float32).reshape(len(self), len(classes))
        return np.array(used.label_codes(classes), np.int64)

    def groups(self) -> np.ndarray:
        """Return a number for each row, (n,) int64, equal for copies and for rows of one group, also in a chain."""
        return np.array(group_numbers(self.rows), np.int64)

    def _changed(self, **changes: Any) -> Features:
        own = {
            "index": self.index,
            "runner": self.runner,
            "shelf": self._shelf,
            "tail": self.tail,
            "stored": self.stored,
            "views": self._views,
            "view": self._view,
            "fresh_view": self._fresh_view,
        }
        return Features(**{**own, **changes})

    def _read(self, rows: Sequence[Row]) -> np.ndarray:
        keys = [key(row, self._view) for row in rows]
        if not self.stored:
            return self._compute(rows)
        try:
            return self._shelf.read(keys, self.trunk.output_shape)
        except MissingRows as lost:
            log.warning("%s Computing them now.", lost)
            missing = {key(row, self._view): row for row in rows}
            tasks = [Task(missing[name], (self._view,)) for name in lost.ids]
            _fill(self._shelf, tasks, self.runner)
            return self._shelf.read(keys, self.trunk.output_shape)

    def _compute(self, rows: Sequence[Row]) -> np.ndarray:
        features = np.empty((len(rows), *self.trunk.output_shape), np.float32)
        done = 0
        for batch in compute([Task(row, (self._view,)) for row in rows], self.runner, self._shelf.folder):
            for failure in batch.failures:
                raise StoreError(f"{failure.row.path} could be read before and can't be now: {failure.reason}")
            features[done : done + len(batch.features)] = batch.features
            done += len(batch.features)
        return features


def _settled_shelf(index: Index, runner: Runner, store: Store) -> Shelf:
    """Settle in which precision the trunk runs here, and return the shelf of its features."""

    def shelf(trunk: Trunk) -> Shelf:
        return store.shelf(trunk.digest, trunk.describe(), trunk.stored)

    if rows := index.used.rows:
        images = functools.partial(sample, rows, runner.trunk.preprocess)
        runner.settle(lambda trunk: shelf(trunk).folder, images)
    return shelf(runner.trunk)


# What there is room for


def _fitting(index: Index, trunk: Trunk, shelf: Shelf, views: Sequence[View], free: int) -> tuple[View, ...] | None:
    """Return as many of the views as the store has room for; None if there is none even for the images as they are."""
    for count in range(len(views), -1, -1):
        fitting = tuple(views[:count])
        missing = sum(len(task.views) for task in _lacking(index, shelf, fitting, {}))
        needed = bytes_needed(missing, trunk.output_shape, trunk.stored) if missing else 0
        if needed <= free:
            _log_room(missing, needed, free, shelf.folder.parent, views, count)
            return fitting
    if trunk.stored == "float32":
        raise StoreError(
            f"The features of {missing:,} images take up to {decimal(needed)}, and there are {decimal(free)} for the "
            f"store in {shelf.folder.parent}. Free some, raise --store-limit, choose another folder with --store or "
            "REGRAFT_CACHE, or another --cut."
        )
    log.warning(
        "The maps of %s images at the cut would take up to %s, and there are %s for the store in %s: "
        "they are computed again in every epoch, which is slow.",
        f"{missing:,}",
        decimal(needed),
        decimal(free),
        shelf.folder.parent,
    )
    return None


def _log_room(missing: int, needed: int, free: int, folder: Path, views: Sequence[View], count: int) -> None:
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


def _reasons(failures: Sequence[Failure]) -> dict[str, str]:
    """Return why images failed, by path."""
    return {failure.row.path: failure.reason for failure in failures}


# Into the store


def _lacking(index: Index, shelf: Shelf, views: Sequence[View], unread: dict[str, str]) -> list[Task]:
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


def _fill(shelf: Shelf, tasks: Sequence[Task], runner: Runner) -> dict[str, str]:
    """Compute the tasks into the shelf; return why some couldn't be read, which says nothing of their bytes."""
    unread: dict[str, str] = {}
    with progress("features", len(tasks)) as advance, _Saving(shelf) as saving:
        for batch in compute(tasks, runner, shelf.folder):
            saving.add(batch)
            unread |= _reasons([failure for failure in batch.failures if not failure.lasting])
            advance(len(batch.rows))
    return unread


class _Saving:
    """Collects batches and puts them on the shelf every few seconds; the rest at the end, however it ends."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
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
        self.bytes += batch.features.nbytes
        if self.bytes >= SAVE_BYTES or time.monotonic() - self.since >= SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        if self.batches:
            keys = [key for batch in self.batches for key in batch.keys]
            failures = [failure for batch in self.batches for failure in batch.failures if failure.lasting]
            features = np.concatenate([batch.features for batch in self.batches])
            self.shelf.put(keys, features, {failure.row.key: failure.reason for failure in failures})
        self._clear()

    def _clear(self) -> None:
        self.batches: list[Batch] = []
        self.bytes = 0
        self.since = time.monotonic()
