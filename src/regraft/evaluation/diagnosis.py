"""The diagnosis of a training: a sentence from what was measured on the training and the validation images.

A History enters; a sentence leaves, with others where they are needed: on the
gap between the two parts, on a loss that rises while the accuracy holds, and on
training images that do worse than validation images. The last phase is
diagnosed, as it made the model.

The rule. From fewer than 30 validation images, or 4 epochs, nothing is read.
The validation loss is described by four numbers; a window is a fifth of the
epochs:

    low      its median around the epoch where it is lowest
    since    its mean over the later half of the epochs after that
    before   its mean in the last window but one
    late     its mean in the last window

A change counts if it is larger than noise can make it, and at least 3 % of
`low`. Then, in this order:

    still improving   late is below before
    chance            neither late nor in the best epoch are more images right than by always naming one class
    overfitting       since is above low, and the training loss has not risen with it
    unstable          since is above low, and the training loss has risen with it
    too noisy         neither, and the noise would hide a change by 15 % of `low`
    underfitting      neither, the training loss is no lower than the validation loss,
                      and of both parts more than one image in ten is wrong
    overfitting       neither, and the gap between the parts is large, see `gap`
    good fit          neither, and the gap is small
    undecided         neither, and there are too few validation images to tell which of the two
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft.core.text import percent
from regraft.evaluation import gap as gaps
from regraft.evaluation.gap import SMALL_ACCURACY, SMALL_LOSS, Gap
from regraft.evaluation.significance import wilson
from regraft.training.history import History, Measured

MINIMUM_EPOCHS = 4
MINIMUM_IMAGES = 30  # of the validation part
WINDOWS = 5  # in all epochs
CERTAINTY = 3.0  # standard errors
MATERIAL = 0.03  # of the lowest loss
LOWEST_LOSS = 0.03  # nats: the changes of a lower loss are measured against this
NOISY = 0.15  # of the lowest loss
MANY_WRONG = 0.10  # of a part's images
HELD = 0.01  # an accuracy that fell by no more has held
UNKNOWN_CHANCE = 0.5  # what chance reaches at most where the classes are balanced


class Course(NamedTuple):
    """The course of one measure on one part: the four numbers of the rule, and how far noise alone may change them."""

    low: float
    since: float
    before: float
    late: float
    late_noise: float  # of late less before
    since_noise: float  # of since less low


class Measures(NamedTuple):
    """The rows of both parts in one phase, epoch by epoch, and which epoch is best."""

    train: Sequence[Measured]
    validation: Sequence[Measured]
    best: int  # number of the row with the lowest validation loss
    chance: float | None  # accuracy of always naming the most frequent class; None: unknown

    def losses(self, rows: Sequence[Measured]) -> Course:
        """Return the course of a part's loss."""
        return _course([row.loss for row in rows], self.best)

    def accuracies(self, rows: Sequence[Measured]) -> Course:
        """Return the course of a part's accuracy."""
        return _course([row.accuracy for row in rows], self.best)

    def gap_at_end(self) -> Gap:
        """Return the gap between the parts in the last window of epochs."""
        train, validation = (
            (self.losses(rows).late, self.accuracies(rows).late, rows[-1].images)
            for rows in (self.train, self.validation)
        )
        return gaps.between(train, validation, self.validation[-1].loss_error)


def chance(counts: Mapping[str, Mapping[str, int]]) -> float | None:
    """Return the accuracy on validation images of always naming the most frequent class; None without images.

    counts: part → class → images; without a validation part the training part stands for it.
    """
    classes = counts.get("validation") or counts.get("train") or {}
    total = sum(classes.values())
    return max(classes.values()) / total if total else None


def sentence(history: History, chance: float | None = None) -> str:
    """Return the diagnosis of the last phase of a training, by the rule above; "" if there are no epochs.

    chance: accuracy on the validation images of always naming the most frequent class, see `chance`; None: unknown.
    """
    phases = [(name, list(rows)) for name, rows in groupby(history.rows, key=lambda row: row.phase)]
    if not phases or history.epochs == 0:
        return ""
    name, rows = phases[-1]
    diagnosis = _diagnosis(rows, chance)
    return diagnosis if len(phases) == 1 else f"Of the {name}: {diagnosis[0].lower()}{diagnosis[1:]}"


def _diagnosis(rows: Sequence[Measured], chance: float | None) -> str:
    train, validation = ([row for row in rows if row.part == part] for part in ("train", "validation"))
    if infinite := [row for row in rows if not math.isfinite(row.loss)]:
        first = infinite[0]
        return f"Diverged: the {first.part} loss is {first.loss} in epoch {first.epoch}; lower the learning rate."
    if validation and 0 < validation[-1].images < MINIMUM_IMAGES:
        return _few_images(validation[-1])
    if (epochs := len(validation or train)) < MINIMUM_EPOCHS:
        return f"Too few epochs for a diagnosis: {epochs}."
    if not validation:
        return _of_training(train)
    measures = Measures(train, validation, _best(validation), chance)
    return " ".join(filter(None, (_of_both(measures), _worse_in_training(measures))))


def _few_images(last: Measured) -> str:
    low, high = wilson(round(last.images * last.accuracy), last.images)
    return (
        f"Nothing can be read from {last.images} validation images; it takes {MINIMUM_IMAGES} or more. With so few, "
        f"their accuracy of {percent(last.accuracy)} % stands for anything from {percent(low, 0)} to "
        f"{percent(high, 0)} %."
    )


def _of_training(train: Sequence[Measured]) -> str:
    best = _best(train)
    course = _course([row.loss for row in train], best)
    falling = course.before - course.late > _tolerance(course.late_noise, course.low)
    how = "is still falling" if falling else "has stopped falling" if best < _end(train) else "hardly falls any more"
    return (
        f"Only the training images were measured: their loss {how} ({course.late:.3f}). "
        "Whether that is a good fit can only be seen with a validation part."
    )


def _of_both(measures: Measures) -> str:
    validation, train = measures.losses(measures.validation), measures.losses(measures.train)
    best = measures.validation[measures.best]
    if validation.before - validation.late > _tolerance(validation.late_noise, validation.low):
        return _improving(measures, validation)
    if _at_chance(measures):
        return _no_better_than_chance(measures)
    if validation.since - validation.low > _tolerance(validation.since_noise, validation.low):
        if train.since - train.low > _tolerance(train.since_noise, validation.low):
            return _unstable(validation, train, best)
        return f"{_overfitting(validation, train, best)}{_held(measures)} At the end: {measures.gap_at_end().text()}."
    if validation.late_noise > NOISY * max(validation.low, LOWEST_LOSS):
        return _noisy(validation)
    return _fit(measures, validation, train)


def _improving(measures: Measures, validation: Course) -> str:
    window = _window(len(measures.validation))
    over = "the last epoch" if window == 1 else f"the last {window} epochs"
    so_far = f" So far {_chance_words(measures)}." if _at_chance(measures) else ""
    return (
        f"Still improving: the validation loss fell from {validation.before:.3f} to {validation.late:.3f} over {over}; "
        f"more epochs would probably help.{so_far}"
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


def _fit(measures: Measures, validation: Course, train: Course) -> str:
    gap = measures.gap_at_end()
    most_right = max(gap.accuracy.train, gap.accuracy.validation)
    behind = validation.late - train.late > _tolerance(validation.late_noise, validation.low)
    if most_right < 1 - MANY_WRONG and not behind:
        stopped = "stopped falling" if measures.best < _end(measures.validation) else "hardly fall any more"
        return (
            f"Underfitting: both losses {stopped} (training {train.late:.3f}, validation {validation.late:.3f}) with "
            f"{percent(gap.accuracy.train)} % of the training images right; a higher learning rate, less "
            "regularisation or fine-tuning more of the network would help."
        )
    return _by_gap(gap, _course_words(measures.validation, measures.best))


def _by_gap(gap: Gap, course: str) -> str:
    """Return what the gap says where the validation loss has come to rest."""
    limits = f"{100 * SMALL_ACCURACY:.0f} points and {SMALL_LOSS} of loss"
    if gap.size == "large":
        return (
            f"Overfitting: {course}, but the gap to the training images is large (more than {limits}): {gap.text()}. "
            "More photographs, augmented views or more dropout would narrow it."
        )
    if gap.size == "small":
        return f"Good fit: {course}, and the gap is small (at most {limits}): {gap.text()}."
    images = f"{gap.validation_images:,} validation images"
    if gap.accuracy.value <= SMALL_ACCURACY and gap.loss.value <= SMALL_LOSS:
        return (
            f"A good fit as far as {images} can tell: {course}, and the gap looks small (at most {limits}), but may be "
            f"larger: {gap.text()}."
        )
    return (
        f"Perhaps overfitting: {course}, but the gap looks large (more than {limits}); {images} are too few to be "
        f"certain: {gap.text()}."
    )


def _course_words(rows: Sequence[Measured], best: int) -> str:
    """Return how a validation loss came to rest."""
    if best < len(rows) - _window(len(rows)):
        return "the validation loss stopped falling and has not risen since"
    lowest = (
        f"epoch {rows[best].epoch} of {rows[-1].epoch}" if best < _end(rows) else f"the last epoch, {rows[-1].epoch}"
    )
    return f"the validation loss hardly falls any more, and was lowest in {lowest}"


# Chance


def _at_chance(measures: Measures) -> bool:
    """Return whether validation images are classified no better than by always naming the most frequent class."""
    return measures.chance is not None and not _above_chance(measures, measures.chance)


def _above_chance(measures: Measures, chance: float) -> bool:
    """Return whether the accuracy, at the end or in the best epoch, is certainly above a chance level."""
    rows = measures.validation
    return any(
        _lower_end(accuracy, rows[-1].images) > chance
        for accuracy in (measures.accuracies(rows).late, rows[measures.best].accuracy)
    )


def _lower_end(accuracy: float, images: int) -> float:
    return wilson(round(images * accuracy), images)[0] if images else accuracy


def _chance_words(measures: Measures) -> str:
    rows = measures.validation
    accuracy, images = measures.accuracies(rows).late, rows[-1].images
    low, high = wilson(round(images * accuracy), images) if images else (accuracy, accuracy)
    interval = f" (95 %: {percent(low)} to {percent(high)})" if images else ""
    return (
        f"{percent(accuracy)} % of the validation images are right{interval}, and always naming the most frequent "
        f"class would be right for {percent(measures.chance or 0)} %"
    )


def _no_better_than_chance(measures: Measures) -> str:
    gap = measures.gap_at_end()
    if gap.accuracy.size(SMALL_ACCURACY) == "large":
        training = (
            f"The training images were learned by heart ({percent(gap.accuracy.train)} % right, loss "
            f"{gap.loss.train:.3f}; in validation {gap.loss.validation:.3f}): this is overfitting. Check the labels, "
            "take more photographs, or train less of the network."
        )
    else:
        training = (
            f"Of the training images {percent(gap.accuracy.train)} % are right: nothing was learned. Check the labels "
            "and the learning rate."
        )
    return f"No better than chance: {_chance_words(measures)}. {training}"


# What else must be said


def _held(measures: Measures) -> str:
    """Return why the accuracy held while the loss rose, if it did and is above chance; else nothing."""
    accuracy = measures.accuracies(measures.validation)
    level = UNKNOWN_CHANCE if measures.chance is None else measures.chance
    if accuracy.since < accuracy.low - HELD or not _above_chance(measures, level):
        return ""
    return (
        f" The accuracy held ({percent(accuracy.low)} %, then {percent(accuracy.since)} %) because a few mistakes that "
        "become ever more confident raise the loss and change no prediction."
    )


def _worse_in_training(measures: Measures) -> str:
    """Return why training images do worse than validation images in the first epoch, if they do; else nothing."""
    train, validation = measures.train[:1], measures.validation[:1]
    if not train:
        return ""
    of_train, of_validation = ((row.loss, row.accuracy, row.images) for row in (*train, *validation))
    first = gaps.between(of_train, of_validation)
    if not first.reversed:
        return ""
    until = " and to the end" if measures.gap_at_end().reversed else ""
    return (
        f"In epoch {train[0].epoch}{until} the training images did worse than the validation images (in epoch "
        f"{train[0].epoch} {percent(train[0].accuracy)} against {percent(validation[0].accuracy)} % right), and that "
        "is no fault: they are measured while they are trained on, with dropout and augmented views where these are "
        "used, the validation images after the epoch and without."
    )


# Numbers


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
    return max(noise, MATERIAL * max(level, LOWEST_LOSS))


def _window(epochs: int) -> int:
    return max(1, epochs // WINDOWS)


def _end(rows: Sequence[Measured]) -> int:
    """Return the number of the last row."""
    return len(rows) - 1


def _best(rows: Sequence[Measured]) -> int:
    """Return the number of the first row with the lowest loss."""
    return min(range(len(rows)), key=lambda at: rows[at].loss)
