"""What a fitted model is calibrated on: rows that it was not trained on, and that are not reported on.

A head on frozen features is fitted again without each fifth of the training rows,
with the regularisation or for the epochs that were chosen, and its logits for that
fifth are taken: they are many, and the validation part chooses less. Where the
validation part is large, or a tail was trained, or one head further, its rows are
taken. They have chosen the epoch, so that the logits look better on them than they
are: where they are few, they never make the answers more confident. Of rows that
are more than the memory may hold some are drawn. By the same rows the model knows how far
images of its classes are from those that it keeps (see `model/evidence`), and what
its true labels are given (`model/calibration`).

The model that is kept has learned from more images than the fits that gave these
logits (from all training rows, and where it is trained again from those that chose
as well). So no theorem holds for it: it is a little better than they were, and its
prediction sets hold the true label rather more often than is asked. The report
measures how often, on the part that has chosen nothing.
"""

from __future__ import annotations

import dataclasses
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.core import plugins
from regraft.core.errors import DataError, Diverged
from regraft.core.progress import log
from regraft.core.rng import generator
from regraft.features.extract import Features
from regraft.model import calibration, evidence
from regraft.model.evidence import Reference
from regraft.training import heads, losses
from regraft.training.streamed_rows import too_many

if TYPE_CHECKING:
    from regraft.model.evidence import Evidence
    from regraft.model.model import Model
    from regraft.training.examples import Examples
    from regraft.training.losses import Loss
    from regraft.training.options import FitOptions

ENOUGH = 500  # rows of a validation part, for folds of the training part to be spared
DRAWN = 20_000  # of rows that are more than the memory may hold


def calibrated(
    made: Model,
    train: Examples,
    held: Examples | None,
    options: FitOptions,
    *,
    from_scratch: bool = True,
    unknown: Features | None = None,
) -> Model:
    """Return the model with the temperature and the evidence of rows that it was not trained on; as it is without any.

    train, held: what was trained on, and what chose; `held` is None where that was done by folds of `train`.
    from_scratch: whether the training began without a trained head.
    unknown:      features of images of none of the classes, which teach what is unknown.
    """
    loss = losses.of(options, train.labels)
    known = _logits(made, train, held, options, loss, from_scratch)
    if known is None:
        return made
    rows, logits, of_train = known
    temperature = calibration.fit_temperature(logits, rows.labels, loss, rows.independent)
    if rows is held and len(held) < ENOUGH and not loss.smoothing:
        temperature = max(1.0, temperature)
    kept = (
        None
        if loss.multilabel or not np.isfinite(logits).all()
        else _evidence(train, rows, logits, made.seed, unknown, of_train=of_train)
    )
    if kept is None:
        return dataclasses.replace(made, temperature=temperature)
    true = calibration.of_true_labels(made.loss.probabilities(logits / temperature), rows.labels, rows.pictures)
    chosen = {**made.chosen, "calibrated_on": f"{len(rows):,} images that it was not trained on"}
    return dataclasses.replace(made, temperature=temperature, evidence=kept, true_probabilities=true, chosen=chosen)


def _logits(
    made: Model, train: Examples, held: Examples | None, options: FitOptions, loss: Loss, from_scratch: bool
) -> tuple[Examples, np.ndarray, bool] | None:
    """Return rows that were not trained on, their logits (n, outputs), and whether they are of `train`; or None."""
    of_head = made.tail is None and from_scratch and not loss.multilabel
    if of_head and (held is None or len(held) < ENOUGH):
        try:
            return *(_regressions if "regularisation" in made.chosen else _by_head)(made, train, options, loss), True
        except (DataError, Diverged) as error:  # a class has a single group, or a fold goes astray
            log.debug("Calibrated on the held-out rows: %s", error)
    if held is None:
        return None
    rows = _drawn(held, options)[0] if too_many([held], options.memory) else held
    return rows, made.logits(rows.inputs), False


def _drawn(rows: Examples, options: FitOptions) -> tuple[Examples, np.ndarray]:
    """Return DRAWN of the rows, in memory, without views, and their numbers; all, if they are no more."""
    from regraft.training.cross_validation import take

    numbers = np.sort(generator(options.seed, "calibration").permutation(len(rows))[:DRAWN])
    if len(numbers) == len(rows):
        return rows, numbers
    pictures = None if rows.pictures is None else rows.pictures[numbers]
    return dataclasses.replace(take(dataclasses.replace(rows, views=()), numbers), pictures=pictures), numbers


def _regressions(made: Model, train: Examples, options: FitOptions, loss: Loss) -> tuple[Examples, np.ndarray]:
    """Return training rows with their logits by regressions without them; all folds are solved side by side."""
    from regraft.training import cross_validation

    regularisation, n_classes = float(made.chosen["regularisation"]), len(made.classes)
    if too_many([train], options.memory):
        rows, numbers = _drawn(train, options)
        more: dict[str, Any] = {"seed": options.seed, "memory": options.memory}
        logits = cross_validation.streamed_logits(train, numbers, n_classes, regularisation, loss, **more)
    else:
        rows, folds = train, cross_validation.deal_folds(train)
        (logits,) = cross_validation.out_of_fold_logits(train, n_classes, folds, regularisation, loss)
    return rows, logits[:, 1:] - logits[:, :1] if loss.outputs(n_classes) == 1 else logits


def _by_head(made: Model, train: Examples, options: FitOptions, loss: Loss) -> tuple[Examples, np.ndarray]:
    """Return the training rows with their logits by the model's head, fitted without it for what was chosen."""
    from regraft.training import cross_validation

    train = train.in_memory()
    if train.fresh or not train.finite:
        raise DataError("The features, or views that are computed for each epoch, are too many for so many trainings.")
    head, n_classes = plugins.load(heads, made.head_name), len(made.classes)
    decided = head.decided(made.chosen, options.head_settings, options)
    (fold_of,) = cross_validation.deal_folds(train)
    logits = np.empty((len(train), loss.outputs(n_classes)), np.float32)
    for fold in np.unique(fold_of):
        others = cross_validation.take(train, np.flatnonzero(fold_of != fold))
        weights = head.fit(others, None, n_classes, *decided).weights
        logits[fold_of == fold] = head.logits(weights, train.inputs[fold_of == fold], decided[0])
    return train, logits


def _evidence(
    train: Examples, rows: Examples, logits: np.ndarray, seed: int, unknown: Features | None, *, of_train: bool
) -> Evidence:
    """Return the evidence of rows and their logits; the neighbours of a row are never of its own group."""
    chosen = evidence.choose(train.labels, generator(seed, "references"))
    references = _directions(train, chosen)
    groups, own = (np.arange(len(each)) if each.groups is None else np.asarray(each.groups) for each in (train, rows))
    far = evidence.distances(_directions(rows), references, (own, groups[chosen]) if of_train else None)
    taught = None if unknown is None else _taught(train, rows, unknown, seed, of_train=of_train)
    return dataclasses.replace(evidence.of_rows(references, far, logits, taught), named=_named(train, chosen))


def _taught(
    train: Examples, rows: Examples, unknown: Features, seed: int, *, of_train: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and bias of the log-odds of an unknown class, and the log-odds of rows that had no part in them.

    A linear head tells the directions of images of the classes from those of the unknown class; rows of the training
    part have theirs from heads without them.
    """
    from regraft.training import cross_validation
    from regraft.training.examples import Examples
    from regraft.training.heads import linear
    from regraft.training.options import FitOptions

    known, own = rows if of_train else train, _directions(rows)
    inputs = [
        own if of_train else _directions(known),
        evidence.directions(np.asarray(unknown[np.arange(len(unknown))])),
    ]
    groups = np.arange(len(known)) if known.groups is None else np.asarray(known.groups)
    both = Examples(
        np.concatenate(inputs),
        np.repeat([0, 1], [len(known), len(unknown)]),
        np.append(groups, unknown.groups() + groups.max() + 1),
    )
    fitted = linear.fit(both, None, 2, linear.Options(), FitOptions(seed=seed, balance="weights"))
    weight, bias = (np.diff(fitted.weights[name], axis=0)[0] for name in ("1.weight", "1.bias"))
    if not of_train:
        return np.append(weight, bias), own @ weight + bias
    loss = losses.of(FitOptions(balance="weights"), both.labels)
    folds, strength = cross_validation.deal_folds(both, seed=seed), fitted.chosen["regularisation"]
    logits = cross_validation.out_of_fold_logits(both, 2, folds, strength, loss)[0, : len(known)]
    return np.append(weight, bias), logits[:, 1] - logits[:, 0]


def _named(train: Examples, numbers: np.ndarray) -> tuple[Reference, ...]:
    """Return what names training images; of a path from the root of this machine's disk the end alone."""
    rows = [train.inputs.rows[number] for number in numbers] if isinstance(train.inputs, Features) else []
    return tuple(Reference(row.id, _end(row.path)) for row in rows)


def _end(path: str) -> str:
    return "/".join(PurePath(path).parts[-2:]) if PurePath(path).is_absolute() else path


def _directions(rows: Examples, numbers: np.ndarray | None = None) -> np.ndarray:
    numbers = np.arange(len(rows)) if numbers is None else numbers
    starts = range(0, len(numbers), evidence.ROWS)
    batches = [np.asarray(rows.inputs[numbers[start : start + evidence.ROWS]]) for start in starts]
    return np.concatenate([evidence.directions(batch) for batch in batches])
