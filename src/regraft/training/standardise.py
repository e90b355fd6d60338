"""Standardisation: each feature less its mean, divided by a scale, both of the training rows."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.training.examples import Examples, Inputs

BATCH = 256  # rows at a time


def mean_and_scale(train: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the scale of each feature of the flattened inputs, (width,) float64, read a batch at a time.

    The scale is the standard deviation, or 1 where a feature is constant, within rounding.
    Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", equation 2.1.
    """
    count, mean, deviations = 0, np.zeros(math.prod(train.shape)), np.zeros(math.prod(train.shape))
    for inputs, _ in dataclasses.replace(train, views=()).batches(BATCH):
        rows = inputs.reshape(len(inputs), -1).astype(np.float64)
        change = rows.mean(axis=0) - mean
        deviations += np.square(rows - rows.mean(axis=0)).sum(axis=0) + change**2 * (
            count * len(rows) / (count + len(rows))
        )
        count += len(rows)
        mean += change * (len(rows) / count)
    variance, rounding = deviations / count, count * np.finfo(np.float64).eps
    return mean, np.where(variance <= rounding * variance + (rounding * mean) ** 2, 1.0, np.sqrt(variance))


def apply(examples: Examples, mean: np.ndarray, scale: np.ndarray) -> Examples:
    """Return the examples with inputs and views flattened and standardised as they are read, as by `Standardise`."""

    def standardised(inputs: Inputs) -> Inputs:
        return _Standardised(inputs, mean.astype(np.float32), scale.astype(np.float32))

    inputs, *views = map(standardised, examples.all_inputs)
    fresh = examples.fresh
    standardised_fresh = (lambda number: standardised(fresh(number))) if fresh else None
    return dataclasses.replace(examples, inputs=inputs, views=tuple(views), fresh=standardised_fresh, finite=False)


def centre_and_scale(rows: np.ndarray, n_train: int) -> tuple[np.ndarray, float]:
    """Centre rows (n, width) float32 and divide them by one scale for all features, in place; return mean and scale.

    Both are of the first `n_train` rows: the mean of each feature (width,), and the root of their mean variance.
    """
    blocks = [rows[start : min(start + BATCH, n_train)] for start in range(0, n_train, BATCH)]
    mean = (sum(block.sum(axis=0, dtype=np.float64) for block in blocks) / n_train).astype(np.float32)
    rows -= mean
    total = sum(float(np.square(block, dtype=np.float64).sum()) for block in blocks)
    scale = math.sqrt(total / (n_train * rows.shape[1])) or 1.0
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
