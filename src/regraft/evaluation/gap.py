"""The gap between training and validation: how far apart the two are in accuracy and in loss, with intervals.

What was measured on both parts enters, a `Gap` leaves; what it means is left to
`diagnosis`. A gap is "small" or "large" only where the images show it: the
accuracy's interval is Newcombe's for two sets of images, the loss's comes from
its spread over the validation images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.core.text import percent
from regraft.evaluation.significance import difference_interval, points

SMALL_ACCURACY = 0.05  # a gap of no more is small, …
SMALL_LOSS = 0.1  # … in nats: the true class of a new image is then less probable by a factor of 0.9
STANDARD_ERRORS = 1.96  # of a 95 % interval

Size = Literal["small", "large", "undecided"]


@dataclass(frozen=True)
class Difference:
    """How much better one measure is on the training images than on the validation images, with its 95 % interval."""

    train: float
    validation: float
    value: float  # above 0: better on the training images
    low: float
    high: float

    def size(self, small: float) -> Size:
        """Return whether it is at most `small`, certainly and probably more, or neither can be told."""
        if self.high <= small:
            return "small"
        return "large" if self.value > small and self.low > 0 else "undecided"


@dataclass(frozen=True)
class Gap:
    """The difference between two parts of so many images each; where that is unknown, 0, the intervals are points."""

    accuracy: Difference
    loss: Difference
    train_images: int
    validation_images: int

    @property
    def size(self) -> Size:
        """Return "small" where both measures say so, "large" where one does."""
        sizes = {self.accuracy.size(SMALL_ACCURACY), self.loss.size(SMALL_LOSS)}
        return "large" if "large" in sizes else "small" if sizes == {"small"} else "undecided"

    @property
    def reversed(self) -> bool:
        """Whether the training images certainly do worse than the validation images, by more than is small."""
        return self.accuracy.value < -SMALL_ACCURACY and self.accuracy.high < 0

    def text(self) -> str:
        """Return both measures of both parts, and how far apart the accuracies are."""
        accuracy, loss = self.accuracy, self.loss
        interval = f" (95 %: {points(accuracy.low)} to {points(accuracy.high)})" if self.validation_images else ""
        return (
            f"accuracy {percent(accuracy.train)} % in training, {percent(accuracy.validation)} % in validation, "
            f"{points(accuracy.value)} points{interval}; loss {loss.train:.3f} and {loss.validation:.3f}"
        )


def between(train: tuple[float, float, int], validation: tuple[float, float, int], loss_error: float = 0.0) -> Gap:
    """Return the gap between two parts: loss, accuracy and number of images (0: unknown) of each.

    loss_error: standard error of the validation loss; 0: unknown.
    """
    (train_loss, train_accuracy, n), (loss, accuracy, n_validation) = train, validation
    low = high = value = train_accuracy - accuracy
    if n and n_validation:
        low, high = difference_interval(round(n * train_accuracy), n, round(n_validation * accuracy), n_validation)
    half = STANDARD_ERRORS * loss_error
    of_loss = loss - train_loss
    return Gap(
        Difference(train_accuracy, accuracy, value, min(low, value), max(high, value)),
        Difference(train_loss, loss, of_loss, of_loss - half, of_loss + half),
        n,
        n_validation,
    )
