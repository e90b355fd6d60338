"""The rate falls by a factor every so many epochs."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.core.options import option, require
from regraft.training.schedules import ScheduleStep


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the step schedule."""

    every: int = option(10, "epochs at one rate")
    factor: float = option(0.1, "the rate is multiplied by this after them, above 0 to 1")

    def __post_init__(self) -> None:
        require(isinstance(self.every, int) and self.every >= 1, "every", self.every, "1 or more epochs")
        fit = isinstance(self.factor, int | float) and 0 < self.factor <= 1
        require(fit, "factor", self.factor, "a number above 0, at most 1")


def rate(at: ScheduleStep, base: float, options: Options) -> float:
    """Return the base times the factor for each `every` epochs that are done."""
    return base * options.factor ** (at.epoch // options.every)
