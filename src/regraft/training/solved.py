"""What heads that are solved, without epochs, have in common."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from regraft.training.examples import Examples
from regraft.training.history import History, Measured
from regraft.training.losses import Loss


def history_of(
    logits: Callable[[np.ndarray], np.ndarray],
    train: Examples,
    validation: Examples | None,
    loss: Loss,
    seconds: float,
) -> History:
    """Return loss and accuracy of the images of both parts as they are, without views; `seconds` the fit took."""

    def measured(name: str, examples: Examples, seconds: float) -> Measured:
        rows = np.concatenate([logits(inputs) for inputs, _ in examples.batches()])
        return Measured(0, name, *loss.measure(rows, examples.labels), None, seconds, images=len(examples))

    parts = [measured("train", train, seconds)]
    return History(parts + ([measured("validation", validation, 0.0)] if validation else []))
