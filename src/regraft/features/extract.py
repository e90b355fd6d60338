"""Extraction: images in, what the trunk says of each out, computed once and kept in the store.

    bytes → decode → preprocess → trunk → store → Features

Comes after split, before fit. `compute` is the pure middle: the same rows and
trunk give the same ids, numbers and errors, a batch at a time; `stream` and
`extract` put it to use without and with a store. One thread reads, in the
rows' order, so that an archive is read forward; a few decode; the network has
the caller's thread. What is in memory at once is bounded by the batch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from rich.filesize import decimal

from regraft.core.errors import RefusedFile, StoreError
from regraft.core.progress import log, progress
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import Index, Row
from regraft.data.split import bundles
from regraft.features.preprocess import Preprocess
from regraft.features.store import MissingRows, Shelf, Store, bytes_needed
from regraft.features.trunk import Trunk

BATCH = 16  # images; more were no faster on a CPU, and VGG's first maps take 13 MB each
SAVE_BYTES = 8 << 20  # of features, and
SAVE_SECONDS = 5.0  # at most, between two durable writes


@dataclass(frozen=True)
class Failure:
    """A row without features.

    lasting: the bytes are at fault, wherever they lie; else only this place, or this moment, is.
    """

    row: Row
    reason: str
    lasting: bool


@dataclass(frozen=True)
class Batch:
    """What became of a stretch of rows.

    rows:     all of them, in order.
    good:     those that have features, in order.
    features: (len(good), *trunk.output_shape) float32.
    failures: the others.
    """

    rows: list[Row]
    good: list[Row]
    features: np.ndarray
    failures: list[Failure]


def compute(rows: Iterable[Row], trunk: Trunk, batch_size: int = BATCH, *, full: bool = False) -> Iterator[Batch]:
    """Yield the rows' features, in order, `batch_size` images at a time: broken ones don't make a batch smaller.

    full: fill the last batch up with black images, whose features are dropped. The last bits of a network's numbers
          hang on how many images go through at once, so only then is a row the same whatever goes with it.

    Raises RefusedFile if the trunk gives NaN or infinity: its weights are not usable.
    """
    batch: list[tuple[Row, np.ndarray | Failure]] = []
    count = 0
    with contextlib.closing(_prepared(rows, trunk.preprocess, ahead=batch_size)) as prepared:
        for row, image in prepared:
            batch.append((row, image))
            count += not isinstance(image, Failure)
            if count == batch_size or len(batch) == 8 * batch_size:
                yield _through(trunk, batch, batch_size if full else 0)
                batch, count = [], 0
    if batch:
        yield _through(trunk, batch, batch_size if full else 0)


def stream(index: Index, trunk: Trunk) -> Iterator[tuple[list[Row], np.ndarray]]:
    """Yield the used rows in order, a stretch at a time, without a store: (rows, features).

    rows:     those that failed are marked broken.
    features: (n, *trunk.output_shape) float32, for the rows that are not.
    """
    for batch in compute(index.used, trunk):
        reasons = {failure.row: failure.reason for failure in batch.failures}
        rows = [row.marked("broken", reasons[row]) if row in reasons else row for row in batch.rows]
        yield rows, batch.features


def extract(index: Index, trunk: Trunk, store: Store) -> Features:
    """Return the features of the used rows, computing only those that the store lacks.

    Each few seconds' work is durable: a run that was stopped goes on from
    there. Rows found broken are marked so in the result's index.
    Raises StoreError if the disk has no room, before anything is written, or
    refuses; RefusedFile if the trunk's weights give no numbers.
    """
    shelf = store.shelf(trunk.digest, trunk.describe())
    unread: dict[Row, str] = {}
    while todo := _lacking(index, shelf, unread):  # again only if a file couldn't be read: it may have a copy
        unread |= _fill(shelf, todo, trunk)
    reachable = index.with_rows(row.marked("broken", unread[row]) if row in unread else row for row in index)
    return Features(reachable.mark_broken(shelf.errors([row.id for row in index.used])), trunk, shelf)


class Features:
    """The stored features of an index's used rows, read from the disk as they are asked for.

    index: the whole index, the rows that were found broken marked so.
    rows:  the used rows, in order; row number k here is features[k].
    trunk: what computed them.

    Reads as an array does, (len, *shape of one image) float32; a row that
    the disk has lost or damaged is computed again.
    """

    def __init__(self, index: Index, trunk: Trunk, shelf: Shelf) -> None:
        self.index = index
        self.rows = index.used.rows
        self.trunk = trunk
        self._shelf = shelf

    def __len__(self) -> int:
        return len(self.rows)

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
        """Return the features of one part: "train", "validation" or "test"."""
        return self.with_index(self.index.part(name))

    def with_index(self, index: Index) -> Features:
        """Return the features of the used rows of another index over the same images."""
        return Features(index, self.trunk, self._shelf)

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Return each row's label as its place in `classes`, (n,) int64; raise DataError for another label."""
        return np.array(self.index.used.label_codes(classes), np.int64)

    def groups(self) -> np.ndarray:
        """Return a number for each row, (n,) int64, equal for copies and for rows of one group, also in a chain."""
        return np.array(bundles(self.rows), np.int64)

    def _read(self, rows: Sequence[Row]) -> np.ndarray:
        ids = [row.id for row in rows]
        try:
            return self._shelf.read(ids, self.trunk.output_shape)
        except MissingRows as lost:
            log.warning("%s Computing them now.", lost)
            _fill(self._shelf, list({row.id: row for row in rows if row.id in set(lost.ids)}.values()), self.trunk)
            return self._shelf.read(ids, self.trunk.output_shape)


# From rows to network inputs, some ahead of the network


def _prepared(
    rows: Iterable[Row], preprocess: Preprocess, ahead: int
) -> Generator[tuple[Row, np.ndarray | Failure], None, None]:
    """Yield each row with its network input or why it has none, in order; up to `ahead` are made in advance."""
    waiting: deque[tuple[Row, Future[np.ndarray | Failure]]] = deque()
    reader, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(max(1, _cores() // 2))
    try:
        for row in rows:
            data = reader.submit(row.place.read)
            waiting.append((row, decoders.submit(_prepare, row, data, preprocess)))
            if len(waiting) > ahead:
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    finally:
        decoders.shutdown(wait=False, cancel_futures=True)
        reader.shutdown(cancel_futures=True)
        decoders.shutdown()


def _next(waiting: deque[tuple[Row, Future[np.ndarray | Failure]]]) -> tuple[Row, np.ndarray | Failure]:
    row, image = waiting.popleft()
    return row, image.result()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(row: Row, reading: Future[bytes], preprocess: Preprocess) -> np.ndarray | Failure:
    try:
        data = reading.result()
    except OSError as error:
        return Failure(row, f"can't be read: {error.strerror or error}", lasting=False)
    if hashlib.sha256(data).hexdigest() != row.id:
        return Failure(row, "it was changed since it was listed", lasting=False)
    try:
        return preprocess(decode(data))
    except BrokenImage as error:
        return Failure(row, str(error), lasting=not isinstance(error.__cause__, MemoryError))


def _through(trunk: Trunk, prepared: Sequence[tuple[Row, np.ndarray | Failure]], least: int) -> Batch:
    """Put what was prepared through the trunk, at least `least` images at once."""
    good = [(row, image) for row, image in prepared if not isinstance(image, Failure)]
    rows = [row for row, _ in good]
    images = [image for _, image in good]
    if images:
        black = [np.zeros_like(images[0])] * (least - len(images))
        features = trunk(np.stack([*images, *black]))[: len(images)]
    else:
        features = np.empty((0, *trunk.output_shape), np.float32)
    _check_finite(features, rows, trunk)
    failures = [image for _, image in prepared if isinstance(image, Failure)]
    return Batch([row for row, _ in prepared], rows, features, failures)


def _check_finite(features: np.ndarray, rows: Sequence[Row], trunk: Trunk) -> None:
    finite = np.isfinite(features).all(axis=tuple(range(1, features.ndim)))
    if not finite.all():
        about, path = trunk.describe(), rows[int(np.argmin(finite))].path
        weights = about["weights"]["name"] or about["weights"]["source"]
        raise RefusedFile(
            f"{about['architecture']} with the weights {weights} gives NaN or infinity for {path}; "
            "expected finite numbers. Choose other --weights."
        )


# Into the store


def _lacking(index: Index, shelf: Shelf, unread: dict[Row, str]) -> list[Row]:
    """Return one row for each image that the shelf knows nothing of, in the index's order."""
    first: dict[str, Row] = {}
    for row in index.used:
        if row not in unread:
            first.setdefault(row.id, row)
    return [first[id] for id in shelf.missing(list(first))]


def _fill(shelf: Shelf, rows: Sequence[Row], trunk: Trunk) -> dict[Row, str]:
    """Compute the rows into the shelf; return why some couldn't be read, which says nothing of their bytes."""
    _check_room(shelf, len(rows), trunk.output_shape)
    unread: dict[Row, str] = {}
    with progress("features", len(rows)) as advance, _Saving(shelf) as saving:
        for batch in compute(rows, trunk, full=True):
            saving.add(batch)
            unread |= {failure.row: failure.reason for failure in batch.failures if not failure.lasting}
            advance(len(batch.rows))
    return unread


def _check_room(shelf: Shelf, count: int, shape: Sequence[int]) -> None:
    needed, free = bytes_needed(count, shape), shutil.disk_usage(shelf.folder).free
    log.info(
        "Computing the features of %s images; they take up to %s in %s.",
        f"{count:,}",
        decimal(needed),
        shelf.folder.parent,
    )
    if needed > free:
        raise StoreError(
            f"The features of {count:,} images take up to {decimal(needed)}, and the disk of {shelf.folder.parent} has "
            f"{decimal(free)} free. Free some, choose another place with --store or REGRAFT_CACHE, or another --cut."
        )


class _Saving:
    """Collects batches and puts them on the shelf every few seconds; the rest at the end, however it ends."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self._start_anew()

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
            ids = [row.id for batch in self.batches for row in batch.good]
            failures = [failure for batch in self.batches for failure in batch.failures if failure.lasting]
            features = np.concatenate([batch.features for batch in self.batches])
            self.shelf.put(ids, features, {failure.row.id: failure.reason for failure in failures})
        self._start_anew()

    def _start_anew(self) -> None:
        self.batches: list[Batch] = []
        self.bytes = 0
        self.since = time.monotonic()
