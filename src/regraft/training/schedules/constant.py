"""The same rate in every step."""

from __future__ import annotations

from dataclasses import dataclass

from regraft.training.schedules import ScheduleStep


@dataclass(frozen=True, kw_only=True)
class Options:
    """The constant schedule has no choices."""


def rate(at: ScheduleStep, base: float, options: Options) -> float:  # noqa: ARG001 (all schedules alike)
    """Return the base."""
    return base
