"""Prediction sets: how often the set of labels that is given for an image holds the true one, and how large it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from regraft.core.text import percent
from regraft.evaluation.significance import LEVEL, effective_number, interval, wilson
from regraft.evaluation.words import DASH


class SetScores(TypedDict):
    """What was measured of sets that are to have a coverage; intervals are of 95 %."""

    coverage: float  # that they are to have
    held: float  # the fraction of them that hold the true label
    held_interval: tuple[float, float]
    size: float  # mean number of labels
    size_interval: tuple[float, float]
    single: float  # the fraction of them that are of one label


def measure(
    coverage: float, sets: NDArray[np.bool_], labels: NDArray[np.integer], pictures: NDArray[np.integer]
) -> SetScores:
    """Return how good sets (n, n_classes) are that are to have a coverage.

    labels, pictures: (n,), the true classes, and numbers that are equal for versions of one picture.
    """
    held, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    return {
        "coverage": coverage,
        "held": float(held.mean()),
        "held_interval": interval(held, pictures),
        "size": float(sizes.mean()),
        "size_interval": _mean_interval(sizes, effective_number(pictures)),
        "single": float((sizes == 1).mean()),
    }


def _mean_interval(sizes: NDArray[np.integer], n: float) -> tuple[float, float]:
    """Return the 95 % interval of the mean size, of n independent images: by its standard error, and not below 1.

    Where all sizes are equal, it says how many may have one label more without being seen.
    """
    mean = float(sizes.mean())
    if np.ptp(sizes) == 0:
        return mean, mean + wilson(0, n)[1]
    half = NormalDist().inv_cdf((1 + LEVEL) / 2) * float(sizes.std()) / math.sqrt(max(n - 1, 1))
    return max(1.0, mean - half), mean + half


def rows(measured: Sequence[SetScores]) -> list[list[str]]:
    """Return a table, the first row the titles."""
    titles = ["Coverage", "Sets with the true label %", "95 %", "Labels in a set", "95 % of it", "One label %"]
    return [titles, *([f"{100 * one['coverage']:g} %", *_cells(one)] for one in measured)]


def _cells(one: SetScores) -> list[str]:
    (low, high), (least, most) = one["held_interval"], one["size_interval"]
    return [
        percent(one["held"]),
        f"{percent(low)}{DASH}{percent(high)}",
        f"{one['size']:.2f}",
        f"{least:.2f}{DASH}{most:.2f}",
        percent(one["single"]),
    ]
