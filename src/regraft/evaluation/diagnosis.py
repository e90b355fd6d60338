"""The diagnosis of a training: one sentence from the losses on the training and the validation images.

A History enters; a sentence leaves, with a second one where the loss rises
while the accuracy holds. The last phase is diagnosed, as it made the model.

The rule. The validation loss is described by four numbers; a window is a fifth
of the epochs:

    low      its median around the epoch where it is lowest
    since    its mean over the later half of the epochs after that
    before   its mean in the last window but one
    late     its mean in the last window

A change counts if it is larger than noise can make it, and at least 3 % of
`low`. Then, in this order:

    still improving   late is below before
    overfitting       since is above low, and the training loss has not risen with it
    unstable          since is above low, and the training loss has risen with it
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

MINIMUM_EPOCHS = 4
WINDOWS = 5  # in all epochs
CERTAINTY = 3.0  # standard errors
MATERIAL = 0.03  # of the lowest loss
SMALL_LOSS = 0.03  # nats: the changes of a lower loss are measured against this
NOISY = 0.15  # of the lowest loss
MANY_WRONG = 0.10  # of a part's images
HELD = 0.01  # an accuracy that fell by no more has held


class Course(NamedTuple):
    """The course of one measure on one part: the four numbers of the rule, and how far noise alone may change them."""

    low: float
    since: float
    before: float
    late: float
    late_noise: float  # of late less before
    since_noise: float  # of since less low


def sentence(history: History) -> str:
    """Return the diagnosis of the last phase of a training, by the rule above; "" if there are no epochs."""
    phases = [(name, list(rows)) for name, rows in groupby(history.rows, key=lambda row: row.phase)]
    if not phases or history.epochs == 0:
        return ""
    name, rows = phases[-1]
    diagnosis = _diagnosis(rows)
    return diagnosis if len(phases) == 1 else f"Of the {name}: {diagnosis[0].lower()}{diagnosis[1:]}"


def _diagnosis(rows: Sequence[Measured]) -> str:
    train, validation = ([row for row in rows if row.part == part] for part in ("train", "validation"))
    if infinite := [row for row in rows if not math.isfinite(row.loss)]:
        first = infinite[0]
        return f"Diverged: the {first.part} loss is {first.loss} in epoch {first.epoch}; lower the learning rate."
    if (epochs := len(validation or train)) < MINIMUM_EPOCHS:
        return f"Too few epochs for a diagnosis: {epochs}."
    return _of_both(train, validation) if validation else _of_training(train)


def _of_training(train: Sequence[Measured]) -> str:
    course = _course([row.loss for row in train], _best(train))
    falling = course.before - course.late > _tolerance(course.late_noise, course.low)
    how = "is still falling" if falling else "has stopped falling"
    return (
        f"Only the training images were measured: their loss {how} ({course.late:.3f}). "
        "Whether that is a good fit can only be seen with a validation part."
    )


def _of_both(train_rows: Sequence[Measured], validation_rows: Sequence[Measured]) -> str:
    best = _best(validation_rows)
    validation, train = (_course([row.loss for row in rows], best) for rows in (validation_rows, train_rows))
    if validation.before - validation.late > _tolerance(validation.late_noise, validation.low):
        return _improving(validation, len(validation_rows))
    if validation.since - validation.low > _tolerance(validation.since_noise, validation.low):
        if train.since - train.low > _tolerance(train.since_noise, validation.low):
            return _unstable(validation, train, validation_rows[best])
        return _overfitting(validation, train, validation_rows[best]) + _held(validation_rows, best)
    if validation.late_noise > NOISY * max(validation.low, SMALL_LOSS):
        return _noisy(validation)
    return _fit(validation, train, train_rows, validation_rows)


def _improving(validation: Course, epochs: int) -> str:
    window = _window(epochs)
    over = "the last epoch" if window == 1 else f"the last {window} epochs"
    return (
        f"Still improving: the validation loss fell from {validation.before:.3f} to {validation.late:.3f} over {over}; "
        "more epochs would probably help."
    )


def _overfitting(validation: Course, train: Course, best: Measured) -> str:
    return (
        f"Overfitting from epoch {best.epoch + 1}: the validation loss rose from {best.loss:.3f} to "
        f"{validation.since:.3f} while the training loss went from {train.low:.3f} to {train.since:.3f}."
    )


def _unstable(validation: Course, train: Course, best: Measured) -> str:
    return (
        f"Unstable from epoch {best.epoch + 1}: both losses rose, the training loss from {train.low:.3f} to "
        f"{train.since:.3f}, the validation loss from {best.loss:.3f} to {validation.since:.3f}; lower the learning "
        "rate."
    )


def _noisy(validation: Course) -> str:
    return (
        f"Too noisy for a diagnosis: changes of the validation loss ({validation.low:.3f}) by less than "
        f"{validation.late_noise:.3f} can't be told from noise; a lower learning rate, more epochs or more validation "
        "images would help."
    )


def _fit(validation: Course, train: Course, train_rows: Sequence[Measured], validation_rows: Sequence[Measured]) -> str:
    accuracies = [_course([row.accuracy for row in rows], 0).late for rows in (train_rows, validation_rows)]
    losses = f"training {train.late:.3f}, validation {validation.late:.3f}"
    gap = validation.late - train.late > _tolerance(validation.late_noise, validation.low)
    if max(accuracies) < 1 - MANY_WRONG and not gap:
        return (
            f"Underfitting: both losses stopped falling ({losses}) with {percent(accuracies[0])} % of the training "
            "images right; a higher learning rate, less regularisation or fine-tuning more of the network would help."
        )
    narrow = "; more photographs would narrow the gap between them" if validation.late > 2 * train.late and gap else ""
    return f"Good fit: the validation loss stopped falling and has not risen since ({losses}){narrow}."


def _held(validation_rows: Sequence[Measured], best: int) -> str:
    """Return why the accuracy held while the loss rose, if it did; else nothing."""
    accuracy = _course([row.accuracy for row in validation_rows], best)
    if accuracy.since < accuracy.low - HELD:
        return ""
    return (
        f" The accuracy held ({percent(accuracy.low)} %, then {percent(accuracy.since)} %) because a few mistakes that "
        "become ever more confident raise the loss and change no prediction."
    )


def _course(values: Sequence[float], best: int) -> Course:
    """Return the course of a measure; `low` is its median around row `best`."""
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
    """Return the standard deviation of the noise from epoch to epoch; 0 for a series that only falls or only rises.

    An epoch is compared with the median of it and its two neighbours. Of three independent draws from one normal
    distribution, any one differs from their median by 1/√π standard deviations on average. The valley is left out: it
    is below its neighbours without any noise. From few epochs the estimate is uncertain, and is raised by as much.
    """
    triples = np.lib.stride_tricks.sliding_window_view(series, 3)[np.arange(1, len(series) - 1) != valley]
    off = float(np.abs(triples[:, 1] - np.median(triples, axis=1)).mean())
    return math.sqrt(math.pi) * off * (1 + 1 / math.sqrt(len(triples)))


def _tolerance(noise: float, level: float) -> float:
    return max(noise, MATERIAL * max(level, SMALL_LOSS))


def _window(epochs: int) -> int:
    return max(1, epochs // WINDOWS)


def _best(rows: Sequence[Measured]) -> int:
    """Return the number of the first row with the lowest loss."""
    return min(range(len(rows)), key=lambda at: rows[at].loss)
