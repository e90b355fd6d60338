"""What a fitted model is calibrated on: rows that it was not trained on, and that are not reported on.

A head that is solved is fitted again without each fifth of the training
rows, with what was chosen, and its logits for that fifth are
taken: they are many, and the validation part chooses less. Where the validation
part is large, or the head or the tail is trained in epochs, its rows are taken,
as they have chosen nothing but the epoch. By the same rows the model knows how far
images of its classes are from those that it keeps (see `model/evidence`).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from regraft.core import plugins
from regraft.core.errors import DataError
from regraft.core.options import fields, make
from regraft.core.rng import generator
from regraft.model import calibration, evidence
from regraft.training import heads
from regraft.training.options import FitOptions

if TYPE_CHECKING:
    from regraft.model.evidence import Evidence
    from regraft.model.model import Model
    from regraft.training.examples import Examples
    from regraft.training.losses import Loss

ENOUGH = 500  # rows of a validation part, for folds of the training part to be spared


def calibrated(made: Model, train: Examples, held: Examples | None, loss: Loss) -> Model:
    """Return the model with the temperature and the evidence of rows that it was not trained on; as it is without any.

    train, held: what was trained on, and what chose; `held` is None where that was done by folds of `train`.
    loss:        that of the training, with its weights and smoothing.
    """
    known = _logits(made, train, held, loss)
    if known is None:
        return made
    rows, logits = known
    temperature = calibration.fit_temperature(logits, rows.labels, loss, rows.independent)
    kept = None if loss.multilabel or not np.isfinite(logits).all() else _evidence(train, rows, logits, made.seed)
    return dataclasses.replace(made, temperature=temperature, evidence=kept)


def _logits(made: Model, train: Examples, held: Examples | None, loss: Loss) -> tuple[Examples, np.ndarray] | None:
    """Return rows that were not trained on, with their logits (n, outputs); None if there are none."""
    solved = made.tail is None and not plugins.load(heads, made.head_name).NEEDS_HELD_OUT
    if solved and not loss.multilabel and (held is None or len(held) < ENOUGH):
        out_of_fold = _out_of_fold(train, made, loss)
        if out_of_fold is not None:
            return train, out_of_fold
    return (held, made.logits(held.inputs)) if held else None


def _out_of_fold(train: Examples, made: Model, loss: Loss) -> np.ndarray | None:
    """Return the logits of each training row by a head without it; None if a class has a single group."""
    from regraft.training import cross_validation

    try:
        folds = cross_validation.deal_folds(train)
    except DataError:
        return None
    if "regularisation" not in made.chosen:
        return _by_head(train, made, folds[0])
    regularisation, n_classes = float(made.chosen["regularisation"]), len(made.classes)  # all folds side by side
    logits: np.ndarray = cross_validation.out_of_fold_logits(train, n_classes, folds, regularisation, loss)[0]
    return logits[:, 1:] - logits[:, :1] if loss.outputs(n_classes) == 1 else logits


def _by_head(train: Examples, made: Model, fold_of: np.ndarray) -> np.ndarray:
    """Return the logits of each training row by the model's head, fitted without the fold of the row."""
    from regraft.training.cross_validation import take

    head, n_classes = plugins.load(heads, made.head_name), len(made.classes)
    options = make(FitOptions, {name: made.options[name] for name in fields(FitOptions)})
    settings, _ = head.decided(made.chosen, options.head_settings, options)
    logits = np.empty((len(train), made.loss.outputs(n_classes)), np.float32)
    for fold in range(int(fold_of.max()) + 1):
        others, own = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        weights = head.fit(take(train, others), None, n_classes, settings, options).weights
        logits[own] = head.logits(weights, np.asarray(train.inputs[own]), settings)
    return logits


def _evidence(train: Examples, rows: Examples, logits: np.ndarray, seed: int) -> Evidence:
    """Return the evidence of rows and their logits; the neighbours of a row are never of its own group."""
    chosen = evidence.choose(train.labels, generator(seed, "references"))
    references = _directions(train, chosen)
    if rows is not train:
        return evidence.of_rows(references, evidence.distances(_directions(rows), references), logits)
    groups = np.arange(len(train)) if train.groups is None else np.asarray(train.groups)
    far = evidence.distances(_directions(rows), references, (groups, groups[chosen]))
    return evidence.of_rows(references, far, logits)


def _directions(rows: Examples, numbers: np.ndarray | None = None) -> np.ndarray:
    numbers = np.arange(len(rows)) if numbers is None else numbers
    starts = range(0, len(numbers), evidence.ROWS)
    batches = [np.asarray(rows.inputs[numbers[start : start + evidence.ROWS]]) for start in starts]
    return np.concatenate([evidence.directions(batch) for batch in batches])
