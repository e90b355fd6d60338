"""The rate falls along half a cosine, from the base to a floor at the end of all steps.

Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.core.options import option, require
from regraft.training.schedules import ScheduleStep


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the cosine schedule."""

    floor: float = option(0.0, "rate at the end, if the base is above it")

    def __post_init__(self) -> None:
        fit = isinstance(self.floor, int | float) and 0 <= self.floor < math.inf
        require(fit, "floor", self.floor, "0 or a number above it")


def rate(at: ScheduleStep, base: float, options: Options) -> float:
    """Return floor + (base - floor) · (1 + cos(π · step / steps)) / 2."""
    floor = min(options.floor, base)
    return floor + (base - floor) * (1 + math.cos(math.pi * min(1.0, at.step / at.steps))) / 2
