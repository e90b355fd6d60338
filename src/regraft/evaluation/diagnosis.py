"""The verdict on a training's course: one sentence from the losses of both parts.

A History enters; a sentence leaves, with a second one where the loss rises
while the accuracy holds. The last phase is judged, as it made the model.

The rule. The validation loss is judged by four numbers; a window is a fifth of
the epochs:

    low      its median around the epoch where it is lowest
    since    its mean over the later half of the epochs after that
    before   its mean in the last window but one
    late     its mean in the last window

A change counts if it is larger than the noise can make it, and at least 3 % of
`low`. Then, in this order:

    still improving   late is below before
    overfitting       since is above low, and the training loss has not risen likewise
    unstable          since is above low, and the training loss has risen likewise
    too noisy         neither, and the noise would hide a change by 15 % of `low`
    underfitting      neither, the training loss is no lower than the validation loss,
                      and of both parts more than one image in ten is wrong
    good fit          otherwise
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft.core.text import percent
from regraft.training.history import History, Measured

LEAST_EPOCHS = 4
WINDOWS = 5  # the window is so much of the epochs
CERTAINTY = 3.0  # standard errors
MATERIAL = 0.03  # of the lowest loss
SMALL_LOSS = 0.03  # nats: the changes of a lower loss are measured against this
LOUD = 0.15  # of the lowest loss
MUCH_WRONG = 0.10  # of a part's images
HELD = 0.01  # an accuracy that fell by no more has held


class Course(NamedTuple):
    """How one measure of one part went: four numbers of the rule, and by how much noise alone may change them."""

    low: float
    since: float
    before: float
    late: float
    late_noise: float  # of late less before
    since_noise: float  # of since less low


def sentence(history: History) -> str:
    """Return what the last phase of a training came to, in words and numbers, by the rule above; "" without epochs."""
    phases = [(name, list(rows)) for name, rows in groupby(history.rows, key=lambda row: row.phase)]
    if not phases or history.epochs == 0:
        return ""
    name, rows = phases[-1]
    said = _said(rows)
    return said if len(phases) == 1 else f"Of the {name}: {said[0].lower()}{said[1:]}"


def _said(rows: Sequence[Measured]) -> str:
    train, validation = ([row for row in rows if row.part == part] for part in ("train", "validation"))
    judged = validation or train
    if odd := [row for row in rows if not math.isfinite(row.loss)]:
        return f"Diverged: the {odd[0].part} loss is {odd[0].loss} in epoch {odd[0].epoch}; lower the learning rate."
    if len(judged) < LEAST_EPOCHS:
        return f"Too few epochs to tell: {len(judged)}."
    return _of_both(train, validation) if validation else _of_training(train)


def _of_training(train: Sequence[Measured]) -> str:
    course = _course([row.loss for row in train], _best(train))
    falling = course.before - course.late > _tolerance(course.late_noise, course.low)
    how = "is still falling" if falling else "has stopped falling"
    return (
        f"Only the training images were measured: their loss {how} ({course.late:.3f}). "
        "Whether that is a good fit, a validation part would tell."
    )


def _of_both(train: Sequence[Measured], validation: Sequence[Measured]) -> str:
    best = _best(validation)
    judged, trained = (_course([row.loss for row in rows], best) for rows in (validation, train))
    if judged.before - judged.late > _tolerance(judged.late_noise, judged.low):
        return _improving(judged, len(validation))
    if judged.since - judged.low > _tolerance(judged.since_noise, judged.low):
        if trained.since - trained.low > _tolerance(trained.since_noise, judged.low):
            return _unstable(judged, trained, validation[best])
        return _overfitting(judged, trained, validation[best]) + _held(validation, best)
    if judged.late_noise > LOUD * max(judged.low, SMALL_LOSS):
        return _noisy(judged)
    return _fit(judged, trained, train, validation)


def _improving(judged: Course, epochs: int) -> str:
    window = _window(epochs)
    over = "the last epoch" if window == 1 else f"the last {window} epochs"
    return (
        f"Still improving: the validation loss fell from {judged.before:.3f} to {judged.late:.3f} over {over}; "
        "more epochs would probably help."
    )


def _overfitting(judged: Course, trained: Course, best: Measured) -> str:
    return (
        f"Overfitting from epoch {best.epoch + 1}: the validation loss rose from {best.loss:.3f} to {judged.since:.3f} "
        f"while the training loss went from {trained.low:.3f} to {trained.since:.3f}."
    )


def _unstable(judged: Course, trained: Course, best: Measured) -> str:
    return (
        f"Unstable from epoch {best.epoch + 1}: both losses rose, the training loss from {trained.low:.3f} to "
        f"{trained.since:.3f}, the validation loss from {best.loss:.3f} to {judged.since:.3f}; lower the learning rate."
    )


def _noisy(judged: Course) -> str:
    return (
        f"Too noisy to tell: a change of the validation loss by {judged.late_noise:.3f}, of {judged.low:.3f}, "
        "would not show; a lower learning rate, more epochs or more validation images would."
    )


def _fit(judged: Course, trained: Course, train: Sequence[Measured], validation: Sequence[Measured]) -> str:
    right = [_course([row.accuracy for row in rows], 0).late for rows in (train, validation)]
    losses = f"training {trained.late:.3f}, validation {judged.late:.3f}"
    gap = judged.late - trained.late > _tolerance(judged.late_noise, judged.low)
    if max(right) < 1 - MUCH_WRONG and not gap:
        return (
            f"Underfitting: both losses stopped falling ({losses}) with {percent(right[0])} % of the training images "
            "right; a higher learning rate, less regularisation or fine-tuning more of the network would help."
        )
    narrow = "; more photographs would narrow the gap between them" if judged.late > 2 * trained.late and gap else ""
    return f"Good fit: the validation loss stopped falling and has not risen since ({losses}){narrow}."


def _held(validation: Sequence[Measured], best: int) -> str:
    """Return why the accuracy held while the loss rose, if it did; else nothing."""
    right = _course([row.accuracy for row in validation], best)
    if right.since < right.low - HELD:
        return ""
    return (
        f" The accuracy held ({percent(right.low)} %, then {percent(right.since)} %) because a few mistakes made with "
        "ever more confidence cost much log loss and change no answer."
    )


def _course(values: Sequence[float], best: int) -> Course:
    """Return how a measure went; `low` is its median around the place `best`."""
    series = np.asarray(values, dtype=np.float64)
    window = _window(len(series))
    around = series[max(0, best - max(1, window // 2)) : best + max(1, window // 2) + 1]
    since = series[-max(window, (len(series) - best) // 2) :]
    noise = CERTAINTY * _noise(series, best)
    return Course(
        low=float(np.median(around)),
        since=float(since.mean()),
        before=float(series[-2 * window : -window].mean()),
        late=float(series[-window:].mean()),
        late_noise=noise * math.sqrt(2 / window),
        since_noise=noise * math.sqrt(1 / len(since) + 1 / len(around)),
    )


def _noise(series: NDArray[np.float64], valley: int) -> float:
    """Return the standard deviation of what jumps from epoch to epoch; 0 for a series that only falls or only rises.

    An epoch is compared with the median of it and its two neighbours. Of three independent draws from one normal
    distribution, any one differs from their median by 1/√π standard deviations on average. The valley is left out: it
    is below its neighbours without any noise. Of few epochs the estimate is uncertain, and taken larger by as much.
    """
    triples = np.lib.stride_tricks.sliding_window_view(series, 3)[np.arange(1, len(series) - 1) != valley]
    off = float(np.abs(triples[:, 1] - np.median(triples, axis=1)).mean())
    return math.sqrt(math.pi) * off * (1 + 1 / math.sqrt(len(triples)))


def _tolerance(noise: float, level: float) -> float:
    return max(noise, MATERIAL * max(level, SMALL_LOSS))


def _window(epochs: int) -> int:
    return max(1, epochs // WINDOWS)


def _best(rows: Sequence[Measured]) -> int:
    """Return the place of the first row with the lowest loss."""
    return min(range(len(rows)), key=lambda at: rows[at].loss)
