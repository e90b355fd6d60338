"""Examples: the inputs and labels that a fit sees, read a batch at a time.

Inputs may be an array, a memory map, or stored features, and so may the
augmented views of the same rows. Small ones are read into memory once; larger
ones are never held whole, so that memory stays flat however many there are, and
one thread reads the next batch while the last is in use.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from regraft.core.errors import DataError
from regraft.core.rng import generator

T = TypeVar("T")
R = TypeVar("R")

IN_MEMORY = 1 << 29  # bytes, as float32, up to which the inputs of one part with their views are read into memory


class Inputs(Protocol):
    """Rows of numbers: an array, or what can be indexed by rows like one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, …), as in NumPy."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Return these rows, (len(rows), …)."""
        ...


def effective_number(pictures: np.ndarray) -> float:
    """Return how many independent images the images (n,) are worth, where equal numbers are versions of one picture.

    Versions of one picture are classified alike, so they say no more than it does: n² / Σ m², of m versions each.
    Source: the design effect of Kish 1965, Survey Sampling, with a correlation of 1 within a picture.
    """
    _, versions = np.unique(pictures, return_counts=True)
    return float(len(pictures) ** 2 / (versions.astype(np.float64) ** 2).sum())


@dataclass(frozen=True)
class Examples:
    """Inputs with their labels.

    inputs: (n, …) numbers.
    labels: (n,) int64, the index of the class; or (n, classes) float32 of 0 and 1, where an image may have several
            labels.
    groups: (n,) int64 or None; rows of one group (copies of one picture) stay on one side of a split.
    views:  the same rows augmented, each (n, …); an epoch of training draws among them and `inputs`.
    fresh:  gives the rows augmented for an epoch, by its number, computed as they are read; training then uses these
            alone.
    finite: the inputs and views are arrays of float32 without NaN or infinity.
    pictures: (n,) int64 or None; equal for rows that show one picture.
    keys:   (n,) uint64 or None; equal within a group, and a row's wherever it stands: made of what it is.
    """

    inputs: Inputs
    labels: np.ndarray
    groups: np.ndarray | None = None
    views: tuple[Inputs, ...] = ()
    fresh: Callable[[int], Inputs] | None = None
    finite: bool = False
    pictures: np.ndarray | None = None
    keys: np.ndarray | None = None

    def __post_init__(self) -> None:
        kind = np.float32 if np.ndim(self.labels) == 2 else np.int64
        object.__setattr__(self, "labels", np.require(self.labels, kind, ["C", "W"]))
        parts = [("labels", self.labels), ("groups", self.groups), *(("rows of a view", view) for view in self.views)]
        for name, values in parts:
            if values is not None and len(values) != len(self.inputs):
                raise DataError(f"There are {len(self.inputs)} inputs but {len(values)} {name}; expected one each.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def independent(self) -> float:
        """How many independent rows the rows are worth: versions of one picture count about once."""
        return float(len(self)) if self.pictures is None else effective_number(self.pictures)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input, without the number of rows."""
        return tuple(self.inputs.shape[1:])

    @property
    def all_inputs(self) -> tuple[Inputs, ...]:
        """The inputs as they are, then their views."""
        return (self.inputs, *self.views)

    def epoch(self, number: int, seed: int, *, evenly: bool = False) -> Examples:
        """Return what epoch `number` trains on: without views or `fresh` the examples themselves.

        With views each row is drawn from the inputs or a view, equally often, by the seed and the number alone.
        evenly: draw as many rows as there are, equally many of every class (see `even_rows`).
        """
        sources = self.all_inputs if self.fresh is None else (self.fresh(number),)
        if not evenly and len(sources) == 1:
            return self if self.fresh is None else Examples(sources[0], self.labels, self.groups)
        rows = even_rows(self.labels, generator(seed, "row", number)) if evenly else np.arange(len(self))
        source_of = generator(seed, "view", number).integers(len(sources), size=len(self))
        finite = self.finite and self.fresh is None
        return Examples(_Drawn(sources, rows, source_of), self.labels[rows], finite=finite)

    def in_memory(self, limit: int | None = None) -> Examples:
        """Return the examples with inputs and views as arrays, if these take no more bytes than `limit` (IN_MEMORY)."""
        size = 4 * math.prod(self.inputs.shape) * len(self.all_inputs)
        if self.finite or size > (IN_MEMORY if limit is None else limit):
            return self
        inputs, *views = (_array(inputs, self.shape) for inputs in self.all_inputs)
        return dataclasses.replace(self, inputs=inputs, views=tuple(views), finite=True)

    def batch(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs (len(rows), …) float32 and labels (len(rows),) int64; raise DataError for NaN or infinity.

        rows: numbers of rows, or of inputs in memory a slice, which copies nothing.
        """
        inputs = np.require(self.inputs[rows], np.float32, ["C", "W"])
        return inputs if self.finite else _check_finite(inputs), self.labels[rows]

    def batches(
        self,
        size: int = 256,
        order: np.ndarray | None = None,
        own: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all examples, `size` at a time, in their own order or in `order`; from the disk the next is read ahead.

        A single batch of inputs in memory is the inputs themselves: nothing is copied, and the order does not matter.
        own: returns those of a batch's rows that are wanted; None: all.
        """
        if self.finite and size >= len(self) and own is None:
            return iter([self.batch(slice(None))])
        batches = batch_rows(np.arange(len(self)) if order is None else order, size)
        batches = [own(rows) for rows in batches] if own else batches
        return map(self.batch, batches) if self.finite else ahead(self.batch, batches)


@dataclass(frozen=True)
class _Drawn:
    """Rows each of which is read from one of several sources of one shape."""

    sources: tuple[Inputs, ...]
    rows: np.ndarray  # (n,), the row of the source
    source_of: np.ndarray  # (n,), the number of the source

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sources[0].shape

    def __len__(self) -> int:
        return len(self.source_of)

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = np.arange(len(self))[rows]
        result = np.empty((len(numbers), *self.shape[1:]), np.float32)
        for source, inputs in enumerate(self.sources):
            positions = np.flatnonzero(self.source_of[numbers] == source)
            if len(positions):
                result[positions] = inputs[self.rows[numbers[positions]]]
        return result


@dataclass(frozen=True)
class _Stacked:
    """The rows of one source, then those of another."""

    first: Inputs
    second: Inputs

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.first.shape[1:])

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = np.arange(len(self))[rows]
        result = np.empty((len(numbers), *self.shape[1:]), np.float32)
        is_first = numbers < len(self.first)
        result[is_first] = self.first[numbers[is_first]]
        result[~is_first] = self.second[numbers[~is_first] - len(self.first)]
        return result


def together(train: Examples, others: Examples) -> Examples:
    """Return the examples of both; where those of `train` have views, the others have themselves in their place."""
    groups = None
    if train.groups is not None and others.groups is not None:
        groups = np.append(train.groups, others.groups + train.groups.max(initial=0) + 1)
    fresh = train.fresh
    return Examples(
        _Stacked(train.inputs, others.inputs),
        np.concatenate([train.labels, others.labels]),
        groups,
        tuple(_Stacked(view, others.inputs) for view in train.views),
        fresh and (lambda number: _Stacked(fresh(number), others.inputs)),
    )


def even_rows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return as many row numbers as there are labels (n,), with equally many of every class, within one.

    Within a class each row occurs equally often, within one.
    """
    classes, counts = np.unique(labels, return_counts=True)
    order = np.argsort(labels, kind="stable")
    wanted = np.full(len(classes), len(labels) // len(classes))
    wanted[rng.permutation(len(classes))[: len(labels) % len(classes)]] += 1
    drawn = []
    for rows, count in zip(np.split(order, np.cumsum(counts)[:-1]), wanted, strict=True):
        rest = rng.permutation(rows)[: count % len(rows)]
        drawn += [np.tile(rows, count // len(rows)), rest]
    return np.concatenate(drawn)


def ahead(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `work(item)` of each item in order, computed one ahead in a thread; an error is raised in its turn."""
    with ThreadPoolExecutor(1, "ahead") as thread:
        waiting: Future[R] | None = None
        for item in items:
            done, waiting = waiting, thread.submit(work, item)
            if done:
                yield done.result()
        if waiting:
            yield waiting.result()


def _array(inputs: Inputs, shape: tuple[int, ...]) -> np.ndarray:
    """Return all inputs as a writable array of float32: themselves, if they are one."""
    if isinstance(inputs, np.ndarray) and not isinstance(inputs, np.memmap):
        return _check_finite(np.require(inputs, np.float32, ["C", "W"]))
    array = np.empty((len(inputs), *shape), np.float32)
    for rows in batch_rows(np.arange(len(inputs)), 256):
        array[rows] = inputs[rows]
        _check_finite(array[rows])
    return array


def _check_finite(inputs: np.ndarray) -> np.ndarray:
    if not np.isfinite(inputs).all():
        raise DataError(
            "An input holds NaN or infinity; expected finite numbers. The weights of the frozen part are damaged "
            "or do not fit its preprocessing. Use other --weights."
        )
    return inputs


def batch_rows(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Split rows into batches of `size`; the last one has the rest.

    A last batch of one row joins the batch before it: BatchNorm needs more than one row.
    """
    starts = list(range(0, len(rows), size))
    if size > 1 and len(starts) > 1 and len(rows) - starts[-1] == 1:
        starts.pop()
    return np.split(rows, starts[1:])


def check(train: Examples, validation: Examples | None, n_classes: int) -> None:
    """Raise DataError unless there are two or more classes, each has a training example, and no label is another."""
    if n_classes < 2:
        raise DataError(f"The labels have {n_classes} class; expected two or more.")
    known = set(range(n_classes))
    missing = sorted(known - _present(train.labels))
    if missing:
        raise DataError(f"No training example has class {missing[0]} (of 0 to {n_classes - 1}); expected one or more.")
    for examples in (train, validation):
        if examples is not None and not _present(examples.labels) <= known:
            raise DataError(f"A label is outside the classes 0 to {n_classes - 1}.")


def _present(labels: np.ndarray) -> set[int]:
    """Return the classes that some row has."""
    return set((np.flatnonzero(labels.any(axis=0)) if labels.ndim == 2 else labels).tolist())
