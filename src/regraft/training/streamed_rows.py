"""Rows that do not fit into memory: read in every pass, but for those that a budget of memory can hold.

The rows are read CHUNK at a time, centred and scaled by the whole training part, and summed in float32 products; the
sums of chunks, and of the GROUPS into which these are divided, are float64 and added in their order. So neither the
budget, nor how many cores or processes there are, changes a bit of them. While a chunk is multiplied a thread reads the
next.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from regraft.core.machine import cores
from regraft.core.rng import derive
from regraft.training import processes
from regraft.training.examples import Examples, ahead
from regraft.training.logistic_regression import Rows, counts
from regraft.training.losses import Loss

R = TypeVar("R")

CHUNK = 2048  # rows
GROUPS = 64  # at most; each is one process's own, so more of these have nothing to do


class Part(NamedTuple):
    """Rows of one kind.

    left_out: (n,) the regression that is not trained on the row; -1 for none.
    trained:  whether the training part is among them: they are centred and scaled by its rows.
    measured: whether a regression that leaves them out is measured on them.
    """

    examples: Examples
    left_out: np.ndarray
    trained: bool = True
    measured: bool = True


@dataclass(frozen=True)
class _Moments:
    """The number of rows, their mean (width,), and the sum of all squared differences from it."""

    count: int
    mean: np.ndarray
    deviations: float

    def __add__(self, other: _Moments) -> _Moments:
        """Return those of both. Source: Chan, Golub and LeVeque 1983, equation 2.1."""
        count = self.count + other.count
        change = other.mean - self.mean
        between = float(change @ change) * self.count * other.count / max(1, count)
        mean = self.mean + change * (other.count / max(1, count))
        return _Moments(count, mean, self.deviations + other.deviations + between)


def too_many(parts: Sequence[Examples], memory: float) -> bool:
    """Whether the features of examples with their views are more than so many gigabytes."""
    numbers = sum(len(part) * len(part.all_inputs) * (math.prod(part.shape) + 1) for part in parts)
    return 4 * numbers > memory * 1e9


def folds(train: Examples, seed: int, number: int) -> np.ndarray:
    """Return the fold of each row, (n,), by its key and the seed alone; -1 for all if a class is in one fold only."""
    keys = np.arange(len(train)) if train.groups is None else train.groups
    fold_of = _mixed((keys if train.keys is None else train.keys).astype(np.uint64), derive(seed, "folds")) % number
    flags = train.labels if train.labels.ndim == 2 else np.arange(train.labels.max() + 1) == train.labels[:, None]
    of_fold = np.stack([flags[fold_of == fold].sum(axis=0) for fold in range(number)])
    enough = (of_fold < of_fold.sum(axis=0)).all() and of_fold.any(axis=1).all()
    return fold_of.astype(np.int64) if enough else np.full(len(train), -1)


def _mixed(keys: np.ndarray, seed: int) -> np.ndarray:
    """Return numbers, (n,) uint64, that look drawn at random. Source: Steele et al. 2014, "SplittableRandom"."""
    mixed = keys + np.uint64(seed)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    result: np.ndarray = mixed ^ (mixed >> np.uint64(31))
    return result


class StreamedRows:
    """Rows of examples, for `Regressions`; making them reads all of them once.

    memory: gigabytes of rows that this process may keep.
    mean, scale: of the training part's features: (width,), and the root of their mean variance.
    """

    def __init__(self, parts: Sequence[Part], loss: Loss, memory: float) -> None:
        self._parts, self._loss = parts, loss
        self.width = math.prod(parts[0].examples.shape) + 1
        starts = [range(0, len(part.examples), CHUNK) for part in parts]
        self._chunks = [(part, start) for part, of_part in enumerate(starts) for start in of_part]
        self._groups = np.array_split(np.arange(len(self._chunks)), min(GROUPS, len(self._chunks)))
        self._wanted = self._that_fit(memory)
        self._kept: dict[int, Rows] = {}
        self._whole = False
        moments = sum(self._in_order(self._moments), _Moments(0, np.zeros(self.width - 1), 0.0))
        self.mean = moments.mean.astype(np.float32)
        self.scale = np.float32(math.sqrt(moments.deviations / (moments.count * (self.width - 1))) or 1.0)
        for rows in self._kept.values():
            self._standardise(rows)

    def _that_fit(self, memory: float) -> set[int]:
        """Return the chunks that this process keeps: as many of its own as fit, evenly among those that it reads."""
        together = processes.current()
        own = [int(number) for group in self._groups[together.rank :: together.size] for number in group]
        fitting = min(len(own), int(memory * 1e9 / (4 * CHUNK * self.width)))
        return {own[at] for at in range(len(own)) if (at + 1) * fitting // len(own) > at * fitting // len(own)}

    @property
    def counts(self) -> np.ndarray:
        """How many rows each regression is trained on."""
        left_out = np.concatenate([self._left_out(part) for part in self._parts])
        return counts(left_out)

    def whole(self) -> StreamedRows:
        """Return the same rows for a single regression, on the whole training part."""
        whole = copy.copy(self)
        whole._whole = True
        return whole

    def _left_out(self, part: Part) -> np.ndarray:
        return np.full_like(part.left_out, -1) if self._whole and part.trained else part.left_out

    def summed(self, which: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cross-entropy and its gradient, summed over the rows that each is trained on."""

        def of_group(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            loss, gradient = np.zeros(len(which)), np.zeros(weights.shape)
            for rows in ahead(self._read, group):
                rows.add(which, weights, loss, gradient)
            return loss, gradient

        return _total(self._in_order(of_group))

    def left_out_losses(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the summed log loss of the measured rows that each leaves out, and their number."""

        def of_group(group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return _total(rows.left_out_losses(weights) for rows in ahead(self._read, group))

        return _total(self._in_order(of_group))

    def _in_order(self, work: Callable[[np.ndarray], R]) -> Iterator[R]:
        """Yield what `work` returns for each group, in order; the cores, or the processes, divide the groups."""
        together = processes.current()
        if together.size > 1:
            yield from together.in_order(work, self._groups)
        else:
            with ThreadPoolExecutor(min(cores(), len(self._groups))) as pool:
                yield from pool.map(work, self._groups)

    def _moments(self, group: np.ndarray) -> _Moments:
        """Return the moments of a group's training rows; keep those of its rows that are wanted."""
        result = _Moments(0, np.zeros(self.width - 1), 0.0)
        for number, rows in zip(group, ahead(self._unscaled, group), strict=True):
            if self._parts[self._chunks[number][0]].trained:
                values = rows.inputs[:, :-1]
                mean = values.mean(axis=0, dtype=np.float64)
                deviations = [float(np.square(some - mean).sum()) for some in np.array_split(values, 16)]
                result += _Moments(len(values), mean, sum(deviations))
            if number in self._wanted:
                self._kept[int(number)] = rows
        return result

    def _read(self, number: int) -> Rows:
        """Return the rows of a chunk, centred and scaled."""
        rows = self._kept.get(int(number))
        if rows is None:
            rows = self._unscaled(number)
            self._standardise(rows)
        if self._whole and self._parts[self._chunks[number][0]].trained:
            rows = copy.copy(rows)
            rows.left_out = np.full_like(rows.left_out, -1)
        return rows

    def _unscaled(self, number: int) -> Rows:
        """Return a chunk's rows as they are on the disk, sorted by the regression that leaves them out."""
        which, start = self._chunks[number]
        part = self._parts[which]
        numbers = np.arange(start, min(start + CHUNK, len(part.examples)))
        values, labels = part.examples.batch(numbers)
        order = np.argsort(part.left_out[numbers], kind="stable")
        inputs = np.ones((len(order), self.width), np.float32)
        inputs[:, :-1] = values.reshape(len(values), -1)[order]
        return Rows(
            inputs,
            labels[order],
            part.left_out[numbers][order],
            row_weights=None if self._loss.weights is None else self._loss.weights[labels[order]],
            measured=np.full(len(order), part.measured),
            smoothing=self._loss.smoothing,
        )

    def _standardise(self, rows: Rows) -> None:
        rows.inputs[:, :-1] -= self.mean
        rows.inputs[:, :-1] /= self.scale


def _total(sums: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of pairs, added one after the other."""
    return functools.reduce(lambda total, more: (total[0] + more[0], total[1] + more[1]), sums)
