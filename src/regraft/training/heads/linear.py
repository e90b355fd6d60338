"""Logistic regression on centred features, with its regularisation chosen.

It is multinomial; of two classes the sigmoid loss is the same model with one
output, the difference of the two. Where an image may have several labels, each
label has a regression, all with the same regularisation.

The features are centred and divided by one common scale, which is folded into
the weights, so that the result is one linear layer. Their own scales are kept
because they carry information: divided each by its own, the cross-validated loss
on training parts was higher for 10 of 12 (cats-dogs, and Pokémon split three
ways; EfficientNet-Lite0, Lite2 and InceptionV3), by up to a quarter.

It is trained on the images as they are and on all their views, each of which
has an equal fraction of the image's weight. While it is solved all these rows
are in memory, once, at four bytes a number; where they are more than the options
allow, the rest is read again in each pass (see `streamed_rows`): the same
problem, with folds by the images' ids. Nothing here needs PyTorch until
`Fitted.module` is asked for.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from regraft.core.options import option, require
from regraft.core.progress import log
from regraft.core.rng import generator
from regraft.training.history import Fitted

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from regraft.training.checkpoint import Checkpoint
    from regraft.training.examples import Examples
    from regraft.training.hooks import Hooks
    from regraft.training.logistic_regression import Passes, Regressions
    from regraft.training.losses import Loss
    from regraft.training.options import FitOptions

GRID = tuple(10 ** (exponent / 2) for exponent in range(10, -3, -1))  # 100,000 down to 0.1, two a decade
# Where the training rows are too few to choose from. One image of each class, mean log loss of ten draws by 100, 10 and
# 1: cats-dogs 0.48, 0.43, 0.41, Pokémon 1.46, 1.45, 1.46, CIFAR-10 1.79, 1.64, 1.55.
DEFAULT = 1.0
FOLDS = 5
WORSE = 2  # values in a row without a lower log loss end the search
SEARCH_TOLERANCE, TOLERANCE = 1e-5, 1e-7  # expected gain of a further step, in nats: in the search, and at the end

TRAINABLE = True
NEEDS_HELD_OUT = False  # without a validation part it chooses by cross-validation of the training rows


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the linear head."""

    regularisation: float | None = option(
        None, "L2 penalty, 1/C in scikit-learn; none: chosen by the log loss of the validation part or of folds"
    )

    def __post_init__(self) -> None:
        value = self.regularisation
        fit = value is None or (isinstance(value, int | float) and 0 < value < math.inf)
        require(fit, "regularisation", value, "a number above 0, or none to have it chosen")


def build(shape: tuple[int, ...], n_outputs: int, options: Options) -> nn.Sequential:  # noqa: ARG001 (all heads alike)
    """Return the untrained head: inputs (n, *shape) → logits (n, n_outputs)."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), n_outputs))


def logits(weights: Mapping[str, np.ndarray], inputs: np.ndarray, options: Options) -> np.ndarray:  # noqa: ARG001
    """Return the logits (n, n_outputs) of inputs (n, *shape) without PyTorch; `weights` is the head's state_dict."""
    flat = inputs.reshape(len(inputs), -1).astype(weights["1.weight"].dtype, copy=False)
    result: np.ndarray = flat @ weights["1.weight"].T + weights["1.bias"]
    return result


def fit(
    train: Examples,
    validation: Examples | None,
    n_classes: int,
    options: Options,
    fit_options: FitOptions,
    *,
    checkpoint: Checkpoint | None = None,  # noqa: ARG001 (all heads alike)
    hooks: Hooks | None = None,  # noqa: ARG001 (all heads alike)
    device: str = "cpu",  # noqa: ARG001 (all heads alike)
) -> Fitted:
    """Return the regression; its regularisation is chosen unless the options give it.

    Chosen is the value of GRID with the lowest mean log loss, of equals the strongest: on the validation part if there
    is one, else by 5-fold cross-validation of the training rows, stratified, equal groups together (fewer folds if a
    class has fewer groups; DEFAULT if one has a single group). GRID is searched from the strongest value down until
    WORSE values in a row are no better. The log loss is that of images as they are, never of views.

    The loss of the options is minimised and measured: with `balance`, weights or oversample, a class has the more
    weight the rarer it is. `checkpoint` and `hooks` are not used, as it has no epochs, nor is `device`: NumPy solves it
    on the CPU.
    Raises DataError for a class without a training row, or inputs that are not finite; UsageError for a loss that
    does not fit the labels.
    """
    import numpy as np

    from regraft.training import losses
    from regraft.training.examples import check
    from regraft.training.solved import history_of

    check(train, validation, n_classes)
    loss = losses.of(fit_options, train.labels)
    began = time.perf_counter()
    weight, bias, chosen = _solved(train, validation, n_classes, options, loss, fit_options)
    if loss.outputs(n_classes) == 1:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    weights = {"1.weight": weight.astype(np.float32), "1.bias": bias.astype(np.float32)}
    seconds = time.perf_counter() - began
    history = history_of(partial(logits, weights, options=options), train, validation, loss, seconds)
    return Fitted(weights, partial(build, train.shape, len(bias), options), history, chosen)


def decided(chosen: Mapping[str, Any], options: Options, fit_options: FitOptions) -> tuple[Options, FitOptions]:
    """Return both options with the regularisation that was chosen."""
    return dataclasses.replace(options, regularisation=chosen["regularisation"]), fit_options


def _solved(
    train: Examples, validation: Examples | None, n_classes: int, options: Options, loss: Loss, fit_options: FitOptions
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return weight (n_classes, width) and bias for inputs that are not centred or scaled, and what was chosen."""
    import numpy as np
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from regraft.training.logistic_regression import MAX_ITERATIONS, Regressions
    from regraft.training.streamed_rows import too_many

    search = options.regularisation is None
    held = validation if search and validation else None
    streams = too_many([train, held] if held else [train], fit_options.memory)
    with threadpool_limits(1):
        problem = (_streamed if streams else _in_memory)(train, held, loss, fit_options, folds=search and not held)
        two = n_classes == 2 and not loss.multilabel  # each class has half the weights of their difference
        times = len(train.all_inputs) * (2 if two else 1)
        chosen = _chosen(options, problem, n_classes, held, times)
        regression = Regressions(problem.trained, n_classes)
        if not regression.solve(chosen["regularisation"] * times, TOLERANCE):
            log.warning("The linear head is near its solution, not at it: stopped at %d iterations.", MAX_ITERATIONS)
    weight, bias = regression.weights[0, :, :-1].astype(np.float64) / problem.scale, regression.weights[0, :, -1]
    return weight, bias - weight @ problem.mean, chosen


class _Problem(NamedTuple):
    """What is solved: rows, centred and divided by one scale.

    searched: the rows, each of which is left out by a regression that it chooses among; None if none may choose.
    trained:  the same for one regression on the whole training part.
    """

    searched: Passes | None
    trained: Passes
    mean: np.ndarray
    scale: float


def _in_memory(train: Examples, held: Examples | None, loss: Loss, fit_options: FitOptions, *, folds: bool) -> _Problem:
    """Read the training rows, their views and the validation part into memory, sorted by what leaves them out."""
    import numpy as np

    from regraft.training import standardise
    from regraft.training.logistic_regression import Rows

    fold_of = _folds(train, fit_options.seed) if folds else np.full(len(train), -1)
    parts = [dataclasses.replace(train, inputs=inputs, views=()) for inputs in train.all_inputs]
    n_train = len(train) * len(parts)
    left_out, clean = np.tile(fold_of, len(parts)), np.arange(n_train) < len(train)
    if held:  # left out by the single regression
        parts.append(held)
        left_out, clean = np.append(left_out, np.zeros(len(held), np.int64)), np.append(clean, np.ones(len(held), bool))
    order = np.argsort(left_out, kind="stable")
    positions = np.argsort(order)  # of each row after sorting
    inputs, start = np.ones((len(order), math.prod(train.shape) + 1), np.float32), 0
    for values, _ in (batch for part in parts for batch in part.batches()):
        inputs[positions[start : start + len(values)], :-1] = values.reshape(len(values), -1)
        start += len(values)
    labels = np.concatenate([part.labels for part in parts])[order]
    mean, scale = standardise.centre_and_scale(inputs[:, :-1], n_train)

    def rows(which: slice, left_out: np.ndarray) -> Rows:
        weights = None if loss.weights is None else loss.weights[labels[which]]
        more: dict[str, Any] = {"row_weights": weights, "smoothing": loss.smoothing, "measured": clean[order][which]}
        return Rows(inputs[which], labels[which], left_out, **more)

    searched = rows(slice(None), left_out[order]) if left_out.max() >= 0 else None
    return _Problem(searched, rows(slice(n_train), np.full(n_train, -1)), mean, scale)


def _streamed(train: Examples, held: Examples | None, loss: Loss, fit_options: FitOptions, *, folds: bool) -> _Problem:
    """Read the same rows once, and keep what the memory allows; the others are read in each pass."""
    import numpy as np

    from regraft.training import streamed_rows
    from regraft.training.streamed_rows import Part, StreamedRows

    fold_of = streamed_rows.folds(train, fit_options.seed, FOLDS) if folds else np.full(len(train), -1)
    views = [dataclasses.replace(train, inputs=inputs, views=()) for inputs in train.all_inputs]
    parts = [Part(view, fold_of, measured=number == 0) for number, view in enumerate(views)]
    if held:
        parts.append(Part(held, np.zeros(len(held), np.int64), trained=False))
    rows = StreamedRows(parts, loss, fit_options.memory)
    searched = rows if held or fold_of.max() >= 0 else None
    return _Problem(searched, rows.whole(), rows.mean, float(rows.scale))


def _chosen(options: Options, problem: _Problem, n_classes: int, held: Examples | None, times: int) -> dict[str, Any]:
    """Return the regularisation, how it was chosen, and the log loss of each value that was tried."""
    from regraft.training.logistic_regression import Regressions

    if options.regularisation is not None:
        return {"regularisation": float(options.regularisation), "how": "given"}
    if problem.searched is None:
        return {"regularisation": DEFAULT, "how": "default: a class has too few training images to choose from"}
    regressions = Regressions(problem.searched, n_classes)
    tried = dict(_path(regressions, times))
    how = f"{len(regressions.weights)}-fold cross-validation of the training part"
    return {
        "regularisation": min(tried, key=lambda strength: tried[strength]),
        "how": f"lowest log loss {'on the validation part' if held else 'in ' + how}",
        "judged_on": "validation" if held else "train",
        "tried": [list(pair) for pair in tried.items()],
    }


def _path(regressions: Regressions, times: int) -> Iterator[tuple[float, float]]:
    """Yield values of the regularisation and their mean log loss, down GRID until WORSE in a row are no better."""
    losses: list[float] = []
    for strength in GRID:
        regressions.solve(strength * times, SEARCH_TOLERANCE)
        losses.append(float(regressions.losses().mean()))
        yield strength, losses[-1]
        if min(losses[-WORSE:]) > min(losses):
            return


def _folds(train: Examples, seed: int) -> np.ndarray:
    """Return the fold of each row, (n,), or -1 for none: for all rows if a class has a single group."""
    import numpy as np

    from regraft.training.folds import deal

    labels, fold_of = _strata(train.labels), np.full(len(train), -1)
    groups = np.arange(len(labels)) if train.groups is None else train.groups
    classes = np.unique(labels)
    fewest = min(len(np.unique(groups[labels == label])) for label in classes)
    if fewest < 2:
        return fold_of
    dealt = deal(labels, groups, min(FOLDS, fewest), generator(seed, "folds"))
    for fold in np.unique(dealt):
        if len(np.unique(labels[dealt != fold])) == len(classes):
            fold_of[dealt == fold] = fold_of.max() + 1
    return fold_of


def _strata(labels: np.ndarray) -> np.ndarray:
    """Return what the folds are stratified by, (n,): the class; of several labels the rarest, or that it has none."""
    import numpy as np

    if labels.ndim == 1:
        return labels
    rarity = np.where(labels > 0, labels.sum(axis=0), np.inf)
    strata: np.ndarray = np.where(labels.any(axis=1), rarity.argmin(axis=1), labels.shape[1])
    return strata
