"""What a fitted model is calibrated on: rows that it was not trained on, and that are not reported on.

A linear head on frozen features is fitted again without each fifth of the training
rows, with the regularisation that was chosen, and its logits for that fifth are
taken: they are many, and the validation part chooses less. Where the validation
part is large, or the head or the tail is trained in epochs, its rows are taken,
as they have chosen nothing but the epoch.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from regraft.core import plugins
from regraft.core.errors import DataError
from regraft.model import calibration
from regraft.training import heads

if TYPE_CHECKING:
    from regraft.model.model import Model
    from regraft.training.examples import Examples
    from regraft.training.losses import Loss

ENOUGH = 500  # rows of a validation part, for folds of the training part to be spared
SMALLEST = 1e-30  # probability whose logarithm is taken


def calibrated(made: Model, train: Examples, held: Examples | None, loss: Loss) -> Model:
    """Return the model with the temperature that rows fit which it was not trained on; as it is if there are none.

    train, held: what was trained on, and what chose; `held` is None where that was done by folds of `train`.
    loss:        that of the training, with its weights and smoothing.
    """
    logits = _logits(made, train, held, loss)
    if logits is None:
        return made
    temperature = calibration.fit_temperature(*logits, loss)
    return dataclasses.replace(made, temperature=temperature)


def _logits(made: Model, train: Examples, held: Examples | None, loss: Loss) -> tuple[np.ndarray, np.ndarray] | None:
    """Return logits (n, outputs) and labels of rows that were not trained on; None if there are none."""
    solved = made.tail is None and not plugins.load(heads, made.head_name).NEEDS_HELD_OUT
    if solved and not loss.multilabel and (held is None or len(held) < ENOUGH):
        out_of_fold = _out_of_fold(train, float(made.chosen["regularisation"]), len(made.classes), loss)
        if out_of_fold is not None:
            return out_of_fold, train.labels
    return (made.logits(held.inputs), held.labels) if held else None


def _out_of_fold(train: Examples, regularisation: float, n_classes: int, loss: Loss) -> np.ndarray | None:
    """Return the logits of each training row by a regression without it; None if a class has a single group."""
    from regraft.training import cross_validation

    try:
        folds = cross_validation.assign_folds(train)
    except DataError:
        return None
    (probabilities,) = cross_validation.out_of_fold_probabilities(train, n_classes, folds, regularisation, loss)
    logarithms: np.ndarray = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST))
    return logarithms[:, 1:] - logarithms[:, :1] if loss.outputs(n_classes) == 1 else logarithms
