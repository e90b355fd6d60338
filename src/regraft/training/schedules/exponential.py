"""The rate falls by the same factor in every step, from the base to a floor, and stays there.

From 0.1 to 0.001 in 10,000 steps: base 0.1, floor 0.001, over 10000.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.core.options import option, require
from regraft.training.schedules import ScheduleStep


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the exponential schedule."""

    floor: float | None = option(None, "rate at the end, if the base is above it; none: a hundredth of the base")
    over: int | None = option(None, "steps from the base to the floor; none: all steps")

    def __post_init__(self) -> None:
        floor, over = self.floor, self.over
        fit = floor is None or (isinstance(floor, int | float) and 0 < floor < math.inf)
        require(fit, "floor", floor, "a number above 0, or none")
        require(over is None or (isinstance(over, int) and over >= 1), "over", over, "1 or more steps, or none")


def rate(at: ScheduleStep, base: float, options: Options) -> float:
    """Return base · (floor / base)^(step / over)."""
    floor = base / 100 if options.floor is None else min(options.floor, base)
    return base * math.pow(floor / base, min(1.0, at.step / (options.over or at.steps)))
