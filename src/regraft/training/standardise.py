"""Standardisation: each input number less its mean over the training rows, by a scale that is learnt there."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.training.examples import Examples, Inputs

BATCH = 256  # rows at a time


def learn(train: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the scale of each number of the flattened inputs, (width,) float64, a batch at a time.

    The scale is the standard deviation, or 1 where a number never changes, within what rounding makes of it.
    Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", equation 2.1.
    """
    count, mean, squares = 0, np.zeros(math.prod(train.shape)), np.zeros(math.prod(train.shape))
    for inputs, _ in dataclasses.replace(train, views=()).batches(BATCH):
        rows = inputs.reshape(len(inputs), -1).astype(np.float64)
        change = rows.mean(axis=0) - mean
        squares += np.square(rows - rows.mean(axis=0)).sum(axis=0) + change**2 * (
            count * len(rows) / (count + len(rows))
        )
        count += len(rows)
        mean += change * (len(rows) / count)
    variance, rounding = squares / count, count * np.finfo(np.float64).eps
    return mean, np.where(variance <= rounding * variance + (rounding * mean) ** 2, 1.0, np.sqrt(variance))


def apply(examples: Examples, mean: np.ndarray, scale: np.ndarray) -> Examples:
    """Return the examples with inputs and views flattened and standardised as they are read, as `Standardise` does."""

    def standardised(inputs: Inputs) -> Inputs:
        return _Standardised(inputs, mean.astype(np.float32), scale.astype(np.float32))

    inputs, *views = map(standardised, examples.all_inputs)
    fresh = examples.fresh
    anew = (lambda number: standardised(fresh(number))) if fresh else None
    return dataclasses.replace(examples, inputs=inputs, views=tuple(views), fresh=anew, finite=False)


def together(rows: np.ndarray, learnt: int) -> tuple[np.ndarray, float]:
    """Centre rows (n, width) float32 and divide them by one scale for all numbers, in place; return mean and scale.

    Both are learnt from the first `learnt` rows: the mean of each number (width,), and the root of their mean variance.
    """
    blocks = [rows[start : min(start + BATCH, learnt)] for start in range(0, learnt, BATCH)]
    mean = (sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / learnt).astype(np.float32)
    rows -= mean
    squares = sum(float(np.square(block, dtype=np.float64).sum()) for block in blocks)
    scale = math.sqrt(squares / (learnt * rows.shape[1])) or 1.0
    rows /= np.float32(scale)
    return mean, float(np.float32(scale))


@dataclass(frozen=True)
class _Standardised:
    """Inputs that are standardised as they are read."""

    inputs: Inputs
    mean: np.ndarray
    scale: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.inputs), len(self.mean))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, rows: Any) -> np.ndarray:
        inputs = np.asarray(self.inputs[rows], np.float32)
        standardised: np.ndarray = (inputs.reshape(len(inputs), -1) - self.mean) / self.scale
        return standardised
