"""When training ends: a pure function of what was measured so far, so that a resumed run ends at the same epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable

from regraft.training.history import History
from regraft.training.options import FitOptions


def reason(history: History, options: FitOptions) -> str | None:
    """Return in words why training ends after the epochs of `history`, or None if it continues.

    Of earlier phases only their minutes count. At least one epoch is trained.
    """
    if not (done := history.epochs - history.before):
        return None
    target, minutes, patience = options.target_accuracy, options.minutes, options.patience
    if target is not None and history.rows[-1].accuracy >= target:  # the monitored part is measured last
        return f"the {history.monitored_part} accuracy reached {target:g}"
    watched = history.watched
    if patience is not None and len(watched) > patience and waited(watched, options.minimum_gain) >= patience:
        better = "a lower loss" if options.watch == "loss" else "a higher accuracy"
        return f"{patience} epochs without {better} on the {history.monitored_part} part"
    if minutes is not None and history.seconds >= 60 * minutes:
        return f"{minutes:g} minutes are over"
    return f"all {options.epochs} epochs are done" if done >= options.epochs else None


def waited(watched: Iterable[float], minimum_gain: float = 0.0) -> int:
    """Return how many values have come since one was lower, by more than `minimum_gain`, than the last that was."""
    reference, count = math.inf, 0
    for value in watched:
        reference, count = (value, 0) if value < reference - minimum_gain else (reference, count + 1)
    return count
