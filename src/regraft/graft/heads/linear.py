"""Multinomial logistic regression on centred features; the strength of its regularisation is chosen.

Solved by scikit-learn. The features are centred and brought to one common
scale, which is folded into the weights, so that what leaves is one linear
layer. Their own scales are kept because they tell something: divided each by
its own, the cross-validated loss on training parts was higher for 10 of 12
(cats-dogs, and Pokémon split three ways; EfficientNet-Lite0, Lite2 and
InceptionV3), by up to a quarter.

While it is solved all training rows are in memory, twice, at four bytes a number.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from regraft.core.options import option, require
from regraft.core.progress import log
from regraft.core.rng import derive
from regraft.graft.history import Fitted, History, Measured

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from regraft.graft.examples import Examples
    from regraft.graft.options import FitOptions

GRID = tuple(10 ** (exponent / 2) for exponent in range(10, -3, -1))  # 100,000 down to 0.1, two a decade
DEFAULT = 100.0  # where the training rows are too few to choose from
FOLDS = 5
WORSE = 2  # levels in a row without a lower log loss end the search
SEARCH_TOLERANCE, TOLERANCE = 1e-4, 1e-5  # of the mean loss's gradient, at its largest; to choose, and to end
MAX_ITERATIONS = 1000

NEEDS_HELD_OUT = False  # it chooses by cross-validation of the training rows where no part may choose


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the linear head."""

    regularisation: float | None = option(
        None, "weight of half the squared weights against the summed log loss; none: chosen by log loss"
    )

    def __post_init__(self) -> None:
        value = self.regularisation
        fit = value is None or (isinstance(value, int | float) and 0 < value < math.inf)
        require(fit, "regularisation", value, "a number above 0, or none to have it chosen")


def build(shape: tuple[int, ...], n_classes: int, options: Options) -> nn.Sequential:  # noqa: ARG001 (all heads alike)
    """Return the untrained head: inputs (n, *shape) → logits (n, n_classes)."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), n_classes))


def fit(
    train: Examples,
    validation: Examples | None,
    n_classes: int,
    options: Options,
    fit_options: FitOptions,
    *,
    checkpoint: Path | None = None,  # noqa: ARG001 (all heads alike)
) -> Fitted:
    """Return the regression, its strength of regularisation chosen unless the options give it.

    The choice is the strength of GRID with the lowest mean log loss, the stronger of equals: on the validation part
    if there is one, else by 5-fold cross-validation of the training rows, stratified, equal groups together (fewer
    folds if a class has fewer groups; DEFAULT if one has a single group). GRID is gone down from the strongest until
    WORSE levels in a row are no better, each starting from the solution of the one before.

    `checkpoint` is not used: there is nothing between the start and the end to come back to.
    Raises DataError for a class without a training row, or inputs that are not finite.
    """
    from regraft.graft import loop
    from regraft.graft.examples import check

    check(train, validation, n_classes)
    began = time.perf_counter()
    weight, bias, chosen = _solved(train, validation, options, fit_options.seed)
    with loop.seeded(fit_options.seed, "head"):
        module = build(train.shape, n_classes, options)
    module.load_state_dict({"1.weight": weight, "1.bias": bias})
    seconds = time.perf_counter() - began
    parts = {"train": train, "validation": validation}
    rows = [Measured(0, part, *loop.evaluate(module, rows), None, seconds) for part, rows in parts.items() if rows]
    return Fitted(module.eval(), History(rows), chosen)


def _solved(
    train: Examples, validation: Examples | None, options: Options, seed: int
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Return weight and bias for the inputs as they are, and what was chosen.

    On one thread: these problems are small, and where other work shares the processor a second thread costs more
    than it brings. The answer is then also the same whatever the number of cores.
    """
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from regraft.graft import standardise

    mean, scale = standardise.learn_common(train)
    rows = _Rows(_standardised(train, mean, scale), train.labels)
    held = _Rows(_standardised(validation, mean, scale), validation.labels) if validation else None
    with threadpool_limits(1):
        chosen = _chosen(options, rows, held, train.groups, seed)
        regression = _Regression(rows)
        if not regression.solve(chosen["regularisation"], TOLERANCE):
            log.warning("The linear head is near its solution, not at it: stopped at %d iterations.", MAX_ITERATIONS)
    weight, bias = regression.logit_weights()
    weight = weight / scale  # what divided the inputs
    return torch.from_numpy(weight), torch.from_numpy(bias - weight @ mean), chosen


def _standardised(examples: Examples, mean: np.ndarray, scale: float) -> np.ndarray:
    """Return all inputs, flattened and standardised, (n, width) float32."""
    import numpy as np

    standardised = np.empty((len(examples), len(mean)), np.float32)
    start = 0
    for inputs, _ in examples.batches():
        standardised[start : start + len(inputs)] = (inputs.reshape(len(inputs), -1) - mean) / scale
        start += len(inputs)
    return standardised


class _Rows(NamedTuple):
    """Standardised inputs and labels, and which of them are meant; they are copied out only while they are used."""

    inputs: np.ndarray
    labels: np.ndarray
    chosen: Any = slice(None)

    def only(self, rows: np.ndarray) -> _Rows:
        """Return the same with other rows meant."""
        return self._replace(chosen=rows)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the inputs and labels of the rows that are meant."""
        return self.inputs[self.chosen], self.labels[self.chosen]


class _Regression:
    """The regression on some rows, solved for one strength after another, each from the last one's solution."""

    def __init__(self, rows: _Rows) -> None:
        from sklearn.linear_model import LogisticRegression

        self.rows = rows
        self.model = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)

    def solve(self, regularisation: float, tolerance: float) -> bool:
        """Find the weights for this strength; return whether they were found."""
        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            self.model.set_params(C=1 / regularisation, tol=tolerance).fit(*self.rows.read())
        return not caught

    def log_loss(self, held: _Rows) -> float:
        """Return the mean log loss of other rows, in nats."""
        import torch
        from torch.nn.functional import cross_entropy

        weight, bias = self.logit_weights()
        inputs, labels = held.read()
        return cross_entropy(torch.from_numpy(inputs @ weight.T + bias), torch.from_numpy(labels)).item()

    def logit_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Return weight (classes, width) and bias (classes,); of two classes, the one logit is shared out evenly."""
        import numpy as np

        weight, bias = self.model.coef_, self.model.intercept_
        if len(bias) > 1:
            return weight, bias
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2


Trial = tuple[_Regression, _Rows]  # a regression, and the rows that judge it


def _chosen(options: Options, rows: _Rows, held: _Rows | None, groups: np.ndarray | None, seed: int) -> dict[str, Any]:
    """Return the strength, how it came about, and the log loss of each that was tried."""
    if options.regularisation is not None:
        return {"regularisation": float(options.regularisation), "how": "given"}
    if held:
        trials = [(_Regression(rows), held)]
        how = "lowest log loss on the validation part"
    else:
        folds = _folds(rows.labels, groups, seed)
        trials = [(_Regression(rows.only(fit)), rows.only(rest)) for fit, rest in folds]
        how = f"lowest log loss in {len(trials)}-fold cross-validation of the training part"
    if not trials:
        return {"regularisation": DEFAULT, "how": "default: a class has too few training images to choose from"}
    tried = _path(trials)
    best = min(tried, key=lambda strength: tried[strength])
    judge = "validation" if held else "train"
    return {"regularisation": best, "how": how, "judged_on": judge, "tried": [list(pair) for pair in tried.items()]}


def _path(trials: Sequence[Trial]) -> dict[float, float]:
    """Return the mean log loss by strength, down GRID until WORSE strengths in a row are no better."""
    tried: dict[float, float] = {}
    for strength in GRID:
        for regression, _ in trials:
            regression.solve(strength, SEARCH_TOLERANCE)
        losses = [regression.log_loss(held) for regression, held in trials]
        tried[strength] = sum(losses) / len(losses)
        if min(list(tried.values())[-WORSE:]) > min(tried.values()):
            break
    return tried


def _folds(labels: np.ndarray, groups: np.ndarray | None, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows to fit on and the rows to judge by; no fold at all if a class has a single group."""
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.arange(len(labels)) if groups is None else groups
    classes = np.unique(labels)
    fewest = min(len(np.unique(groups[labels == label])) for label in classes)
    if fewest < 2:
        return
    folds = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=derive(seed, "folds") % 2**32)
    for fit, rest in folds.split(labels, labels, groups):
        if len(rest) and len(np.unique(labels[fit])) == len(classes):
            yield fit, rest
