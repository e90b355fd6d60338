"""Schedules, one file each: the learning rate from step to step.

A schedule's file has

    Options                   its own choices, a frozen dataclass that checks itself
    rate(at, base, options)   the learning rate of the step `at`, a `ScheduleStep`: a pure function, so that a run that
                              was killed resumes at its rate, and a plot of the rate needs no run

and imports nothing heavy. `build` puts a warm-up in front of any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.core import plugins

AUTO = "constant"  # the meaning of "auto" for a head; for a tail it is onecycle


@dataclass(frozen=True)
class ScheduleStep:
    """A step of training, and what was measured before it."""

    step: int  # from 0
    steps: int  # in all epochs, if none is left out
    epoch_steps: int  # of one epoch
    watched: Sequence[float] = ()  # the watched measure after each epoch so far; lower is better

    @property
    def epoch(self) -> int:
        """The epoch of the step, from 0."""
        return self.step // self.epoch_steps


Schedule = Callable[[ScheduleStep], float]


def build(name: str, options: Any, base: float, warm_up: int = 0) -> Schedule:
    """Return the schedule `name` with its `options` as a function of the step alone.

    base:    the highest rate.
    warm_up: steps in which the rate rises linearly to that of the schedule's first step, which comes after them.
    """
    from regraft.training import schedules

    rate = plugins.load(schedules, AUTO if name == "auto" else name).rate

    def warming(at: ScheduleStep) -> float:
        fraction = min(1.0, (at.step + 1) / (warm_up + 1))
        later = dataclasses.replace(at, step=max(0, at.step - warm_up), steps=max(1, at.steps - warm_up))
        return fraction * float(rate(later, base, options))

    return warming if warm_up else lambda at: float(rate(at, base, options))
