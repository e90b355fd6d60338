"""Directions: features centred at the training images' mean, and of unit length.

What a head on cosines reads. Examples enter, their directions leave, all in
memory at four bytes a number. Centred first: the cosines of features that are
never negative are all near 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from regraft.training.examples import Examples
from regraft.training.losses import Loss

SHORTEST = 1e-12  # what is shorter has no direction, and stays 0
SPREAD = 1.0  # of the logarithm of a scale around its default before any row is seen, as a standard deviation
BOUNDS = -5.0, 10.0  # of that logarithm


def directions(inputs: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return inputs (n, …) flattened, centred, and of unit length: (n, width)."""
    centred = inputs.reshape(len(inputs), -1).astype(mean.dtype, copy=False) - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    result: np.ndarray = centred / np.maximum(lengths, mean.dtype.type(SHORTEST))
    return result


def read(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the inputs as they are, (width,), and the directions of them and then of each view."""
    width = math.prod(examples.shape)
    rows, at = np.empty((len(examples) * len(examples.all_inputs), width), np.float32), 0
    for inputs in examples.all_inputs:
        for values, _ in Examples(inputs, examples.labels, finite=examples.finite).batches():
            rows[at : at + len(values)] = values.reshape(len(values), -1)
            at += len(values)
    mean = rows[: len(examples)].mean(axis=0, dtype=np.float64).astype(np.float32)
    for start in range(0, len(rows), 1024):
        rows[start : start + 1024] = directions(rows[start : start + 1024], mean)
    return mean, rows


def groups(examples: Examples) -> np.ndarray:
    """Return the group of each row, (n,), numbered from 0; without any, each row is one."""
    if examples.groups is None:
        return np.arange(len(examples))
    return np.unique(examples.groups, return_inverse=True)[1]


def choose_scale(
    cosines: np.ndarray, bias: np.ndarray, labels: np.ndarray, loss: Loss, default: float
) -> dict[str, Any]:
    """Return the scale of cosines (n, outputs) with the lowest loss of `scale * cosines + bias`, and how it was chosen.

    Rows with NaN do not count. Few rows that are all right would make every answer certain; so the logarithm has a
    normal prior around that of the default, of the width SPREAD.
    """
    from scipy.optimize import minimize_scalar

    known = np.isfinite(cosines).all(axis=1)
    if not known.any():
        return {"scale": default, "how": "default: a class has too few training images to choose from"}

    def cost(logarithm: float) -> float:
        losses = loss.of_rows(math.exp(logarithm) * cosines[known] + bias, labels[known])
        return float(losses.sum() + (logarithm - math.log(default)) ** 2 / (2 * SPREAD**2))

    best = minimize_scalar(cost, bounds=BOUNDS, method="bounded", options={"xatol": 1e-4}).x
    return {"scale": math.exp(best), "how": "lowest log loss of training images, each left out in turn"}
