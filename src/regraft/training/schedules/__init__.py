"""Schedules, one file each: how the learning rate goes from step to step.

A schedule's file has

    Options                   its own choices, a frozen dataclass that checks itself
    rate(at, base, options)   the learning rate of the step `at`, a `ScheduleStep`: a pure function, so that a run that
                              was killed goes on at the rate at which it was, and a picture of it needs no run

and imports nothing heavy. `build` puts a warm-up in front of any of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.core import plugins

AUTO = "constant"  # what "auto" is, unless who calls the loop knows better: a tail's is onecycle


@dataclass(frozen=True)
class ScheduleStep:
    """A step of training, and what is known before it."""

    step: int  # from 0
    steps: int  # the most that there will be, all epochs together
    epoch_steps: int  # of one epoch
    watched: Sequence[float] = ()  # the measure that is watched, after each epoch that is done; lower is better

    @property
    def epoch(self) -> int:
        """The epoch that the step is in, from 0."""
        return self.step // self.epoch_steps


Schedule = Callable[[ScheduleStep], float]


def build(name: str, options: Any, base: float, warm_up: int = 0) -> Schedule:
    """Return the schedule `name`, its `Options` given, as a function of the moment alone.

    base:    what the schedule calls its rate: its highest.
    warm_up: steps in which the rate rises in a line to that of the schedule's first step, which comes after them.
    """
    from regraft.training import schedules

    rate = plugins.load(schedules, AUTO if name == "auto" else name).rate

    def warming(at: ScheduleStep) -> float:
        share = min(1.0, (at.step + 1) / (warm_up + 1))
        later = dataclasses.replace(at, step=max(0, at.step - warm_up), steps=max(1, at.steps - warm_up))
        return share * float(rate(later, base, options))

    return warming if warm_up else lambda at: float(rate(at, base, options))
