"""The rate falls by a factor when the watched measure has not improved for some epochs.

A pure function of the measures of all epochs so far, which it reads each time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.core.options import option, require
from regraft.training.schedules import ScheduleStep


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the plateau schedule."""

    factor: float = option(0.1, "the rate is multiplied by this, above 0 to 1")
    patience: int = option(5, "epochs in a row without a better watched measure, after which the rate falls")
    floor: float = option(0.0, "lowest rate, if the base is above it")

    def __post_init__(self) -> None:
        fit = isinstance(self.factor, int | float) and 0 < self.factor <= 1
        require(fit, "factor", self.factor, "a number above 0, at most 1")
        require(isinstance(self.patience, int) and self.patience >= 1, "patience", self.patience, "1 or more epochs")
        fit = isinstance(self.floor, int | float) and 0 <= self.floor < math.inf
        require(fit, "floor", self.floor, "0 or a number above it")


def rate(at: ScheduleStep, base: float, options: Options) -> float:
    """Return the base times the factor for each `patience` epochs in a row without an improvement."""
    best, waited, falls = math.inf, 0, 0
    for value in at.watched:
        waited = 0 if value < best else waited + 1
        best = min(best, value)
        if waited == options.patience:
            waited, falls = 0, falls + 1
    return max(base * options.factor**falls, min(options.floor, base))
