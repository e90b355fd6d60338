"""One cycle: the rate rises along half a cosine to the base, its peak, and falls along another to nearly 0.

The shape is that of PyTorch's OneCycleLR; momentum is constant.
Source: Smith and Topin 2018, arXiv:1708.07120.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.core.options import option, require
from regraft.training.schedules import ScheduleStep


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the one-cycle schedule."""

    rise: float = option(0.3, "fraction of the steps in which the rate rises, 0 to 1")
    start: float = option(25.0, "the first rate is the base divided by this")
    end: float = option(1e4, "the last rate is the first one divided by this")

    def __post_init__(self) -> None:
        fit = isinstance(self.rise, int | float) and 0 <= self.rise <= 1
        require(fit, "rise", self.rise, "a fraction of the steps, 0 to 1")
        for name, value in (("start", self.start), ("end", self.end)):
            fit = isinstance(value, int | float) and 1 <= value < math.inf
            require(fit, name, value, "1 or more, to divide by")


def rate(at: ScheduleStep, base: float, options: Options) -> float:
    """Return the rate between the first and the base, or between the base and the last."""
    first = base / options.start
    peak, last = options.rise * at.steps - 1, at.steps - 1  # steps; the peak may lie between two
    if at.step <= peak:
        return _between(first, base, at.step, peak)
    return _between(base, first / options.end, at.step - peak, last - peak)


def _between(start: float, end: float, step: float, steps: float) -> float:
    """Return the value of half a cosine from start to end after `step` of `steps`."""
    fraction = min(1.0, step / steps) if steps > 0 else 1.0
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
