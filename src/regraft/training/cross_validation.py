"""Probes: how well a linear head does on features, every image judged by a regression that never saw it.

    examples → folds → one regression for each fold, solved side by side → probabilities of the rows it left out

Nothing that is trained here is kept: a probe says what features are worth, how
many photographs are enough, and which labels look wrong. The inputs are in
memory twice, at four bytes a number; views are not looked at.

How strongly a fold's regression is held is chosen by the log loss in the other
folds, so that no row has a say in the choice by which it is judged. What is left
is that the other folds' regressions learnt from its row, as they should; one
number of a coarse grid carries nothing of it that could be measured (see
tests/graft/test_probe.py), and a full nesting would cost three times as much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from regraft.core.errors import DataError, UsageError
from regraft.core.rng import derive, generator
from regraft.training import standardise
from regraft.training.examples import Examples, check
from regraft.training.heads.linear import GRID, SEARCH_TOLERANCE, TOLERANCE, WORSE
from regraft.training.logistic_regression import Regressions

FOLDS = 5
MOST_SIZES = 7  # of a learning curve, each half of the next

Numbers = NDArray[np.float32]
Folds = NDArray[np.int64]


def cross_validate(
    examples: Examples,
    n_classes: int,
    *,
    folds: int = FOLDS,
    repeats: int = 1,
    seed: int = 0,
    regularisation: float | None = None,
) -> Numbers:
    """Return the probabilities that each row was given by regressions that did not learn from it.

    repeats:        how many times the rows are dealt into folds anew, each by `draw_folds` with its number.
    regularisation: as the linear head has it; None: chosen, for each fold by the others.

    Returns (repeats, n, n_classes); a row's numbers sum to 1.
    Raises DataError if a class is missing or has a single group, or an input is not finite.
    """
    return out_of_fold_probabilities(examples, n_classes, assign_folds(examples, folds, repeats, seed), regularisation)


def out_of_fold_probabilities(
    examples: Examples, n_classes: int, dealt: Folds, regularisation: float | None = None
) -> Numbers:
    """Return what `cross_validate` does, for folds that are dealt already: (repeats, n), which one judges each row."""
    _check(examples, n_classes)
    inputs, rows = _prepared(examples), np.arange(len(examples))
    with threadpool_limits(1):
        judged = [_judged(inputs, examples.labels, n_classes, drawn, rows, regularisation) for drawn in dealt]
    return np.stack(judged)


@dataclass(frozen=True, eq=False)
class CurvePoints:
    """How a linear head does by the number of photographs that it learns from.

    sizes:  so many, about, each regression learnt from; rising.
    labels: (n,), of all rows; each was judged at every size.
    folds:  (repeats, n), which round of a repeat judged the row.
    correct: (sizes, repeats, n) bool.
    """

    sizes: tuple[int, ...]
    labels: NDArray[np.int64]
    folds: Folds
    correct: NDArray[np.bool_]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """The share of rows that is right at each size, (sizes,), mean over the repeats."""
        shares: NDArray[np.float64] = self.correct.mean(axis=(1, 2), dtype=np.float64)
        return shares

    @property
    def recalls(self) -> NDArray[np.float64]:
        """The same of each class, (sizes, classes)."""
        classes = range(int(self.labels.max()) + 1)
        each = [self.correct[:, :, self.labels == label].mean(axis=(1, 2), dtype=np.float64) for label in classes]
        return np.stack(each, axis=1)

    def scores(self, at: int, label: int | None = None) -> NDArray[np.float64]:
        """Return the accuracy in each round at the size number `at`, (rounds,); the recall of one class, if given."""
        rows = slice(None) if label is None else self.labels == label
        return fold_scores(self.correct[at][:, rows], self.folds[:, rows])


def learning_curve(
    examples: Examples,
    n_classes: int,
    sizes: Sequence[int] | None = None,
    *,
    folds: int = FOLDS,
    repeats: int = 3,
    seed: int = 0,
    regularisation: float | None = None,
) -> CurvePoints:
    """Return how accuracy and recall grow with the number of photographs that are learnt from.

    sizes: numbers of photographs; None: as many as there are without the fold that judges, half of that, and so on
           down to one of each class in each fold.

    At a smaller size a random part of each class is learnt from, whole groups first, the same share of each fold;
    every row is judged all the same. Other arguments and errors are those of `cross_validate`.
    Raises UsageError for a size that can't be had.
    """
    _check(examples, n_classes)
    dealt = assign_folds(examples, folds, repeats, seed)
    counts = _counts(sizes, examples.labels, dealt)
    inputs = _prepared(examples)
    right = np.empty((len(counts), repeats, len(examples)), bool)
    for repeat, drawn in enumerate(dealt):
        order = _order(examples, drawn, generator(seed, "curve", repeat))
        for at, count in enumerate(counts):
            with threadpool_limits(1):
                judged = _judged(inputs, examples.labels, n_classes, drawn, order[:count], regularisation)
            right[at, repeat] = judged.argmax(axis=1) == examples.labels
    learnt = tuple(round(count * (1 - 1 / _number(dealt[0]))) for count in counts)
    return CurvePoints(learnt, examples.labels, dealt, right)


def assign_folds(examples: Examples, folds: int = FOLDS, repeats: int = 1, seed: int = 0) -> Folds:
    """Return the fold that each row is judged in, (repeats, n), each repeat dealt anew by `draw_folds`."""
    return np.stack([draw_folds(examples, folds, seed, repeat) for repeat in range(repeats)])


def draw_folds(examples: Examples, folds: int = FOLDS, seed: int = 0, repeat: int = 0) -> Folds:
    """Return the fold that each row is judged in, (n,): stratified, equal groups together.

    There are fewer folds if a class has fewer groups. Raises DataError if one has a single group.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if folds < 2:
        raise UsageError(f"folds is {folds!r}; expected 2 or more.")
    labels, groups = examples.labels, _groups(examples)
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    per_class = np.bincount(pairs[0])
    fewest = int(per_class[per_class > 0].min())
    if fewest < 2:
        raise DataError(
            f"Class {np.flatnonzero(per_class == 1)[0]} has a single image (copies and groups count once); "
            "cross-validation needs two or more. Add photographs, or leave the class out."
        )
    grouped = groups.max() + 1 < len(groups)
    kind = StratifiedGroupKFold if grouped else StratifiedKFold  # the same, and fast for many rows
    draw = kind(min(folds, fewest), shuffle=True, random_state=derive(seed, "folds", repeat) % 2**32)
    found = np.empty(len(labels), np.int64)
    for fold, (_, rows) in enumerate(draw.split(labels, labels, groups if grouped else None)):
        found[rows] = fold
    return found


def fold_scores(right: NDArray[np.bool_], folds: Folds) -> NDArray[np.float64]:
    """Return the share that is right in each round, (rounds,), of both (repeats, n): a fold of a repeat is a round."""
    return np.concatenate([_shares(of_repeat, drawn) for of_repeat, drawn in zip(right, folds, strict=True)])


def _shares(right: NDArray[np.bool_], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.bincount(folds)
    return (np.bincount(folds, right) / np.maximum(counts, 1))[counts > 0]


def take(examples: Examples, rows: NDArray[np.integer]) -> Examples:
    """Return some of the examples, with their views, in memory."""
    groups = None if examples.groups is None else examples.groups[rows]
    views = tuple(np.asarray(view[rows]) for view in examples.views)
    return Examples(np.asarray(examples.inputs[rows]), examples.labels[rows], groups, views)


def _check(examples: Examples, n_classes: int) -> None:
    if examples.labels.ndim > 1:
        raise DataError("These images have several labels each; a probe needs one label an image.")
    check(examples, None, n_classes)


def _prepared(examples: Examples) -> Numbers:
    """Return the inputs flat, centred, of one scale, with a 1 at the end, (n, width + 1)."""
    inputs, start = np.ones((len(examples), math.prod(examples.shape) + 1), np.float32), 0
    for values, _ in examples.batches():
        inputs[start : start + len(values), :-1] = values.reshape(len(values), -1)
        start += len(values)
    standardise.together(inputs[:, :-1], len(inputs))  # the labels have no part in it
    return inputs


def _judged(
    inputs: Numbers,
    labels: NDArray[np.int64],
    n_classes: int,
    folds: Folds,
    learnt: NDArray[np.integer],
    regularisation: float | None,
) -> Numbers:
    """Return the probabilities of all rows (n, n_classes), each by its fold's regression, which learns from `learnt`.

    learnt: numbers of rows; those of its own fold each regression leaves out.
    """
    from scipy.special import softmax

    order = learnt[np.argsort(folds[learnt], kind="stable")]
    regressions = Regressions(inputs[order], labels[order], n_classes, folds[order])
    found = np.empty((len(labels), n_classes), np.float32)
    for fold, weights in enumerate(_solved(regressions, regularisation)):
        rows = folds == fold
        found[rows] = softmax(inputs[rows] @ weights.T, axis=1)
    return found


def _solved(regressions: Regressions, regularisation: float | None) -> Numbers:
    """Return the weights of each, for the given strength, or for that of GRID that the other folds would choose."""
    times = 2 if regressions.weights.shape[1] == 2 else 1  # as the linear head counts
    if regularisation is not None:
        regressions.solve(regularisation * times, TOLERANCE)
        return regressions.weights
    counts, every = np.bincount(regressions.left_out), np.ones(len(regressions.labels), bool)
    kept, least, worse = np.zeros_like(regressions.weights), np.full(len(counts), np.inf), 0
    for strength in GRID:
        regressions.solve(strength * times, SEARCH_TOLERANCE)
        losses = regressions.losses(every) * counts
        others = losses.sum() - losses
        better = others < least
        kept[better], least[better] = regressions.weights[better], others[better]
        worse = 0 if better.any() else worse + 1
        if worse == WORSE:
            break
    return kept


def _counts(sizes: Sequence[int] | None, labels: NDArray[np.int64], dealt: Folds) -> list[int]:
    """Return how many rows are learnt from at each size, those of the fold that is left out included; rising."""
    most, folds = len(labels), _number(dealt[0])
    least = max(len(_cells(labels, drawn)[1]) for drawn in dealt)
    if sizes is None:
        halves = [most >> times for times in range(MOST_SIZES)]
        return sorted({most, *(count for count in halves if count >= least)})
    share = 1 - 1 / folds
    for size in sizes:
        if not math.floor(least * share) <= size <= math.ceil(most * share):
            raise UsageError(
                f"A size is {size}; expected {math.ceil(least * share)} (one of each class in each fold) to "
                f"{math.floor(most * share)} photographs (all but the fold that judges)."
            )
    return sorted({min(max(round(size / share), least), most) for size in sizes})


def _order(examples: Examples, folds: Folds, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the rows in the order in which they are learnt from: of any number of them each class has its share.

    A class's rows of a fold come group by group; the first of each come before all others.
    """
    groups = _groups(examples)
    shuffled = rng.permutation(groups.max() + 1)[groups]
    cell, sizes = _cells(examples.labels, folds)
    order = np.lexsort((shuffled, cell))
    starts = np.cumsum(sizes) - sizes
    place = np.empty(len(order))
    place[order] = (np.arange(len(order)) - np.repeat(starts, sizes)) / np.repeat(sizes, sizes)
    return np.lexsort((rng.permutation(len(order)), place))


def _cells(labels: NDArray[np.int64], folds: Folds) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return which pair of a class and a fold each row is of, numbered from 0, and how many rows each has."""
    _, cell, sizes = np.unique(labels * _number(folds) + folds, return_inverse=True, return_counts=True)
    return cell, sizes


def _groups(examples: Examples) -> NDArray[np.intp]:
    """Return the groups numbered from 0; without any, each row is its own."""
    if examples.groups is None:
        return np.arange(len(examples))
    return np.unique(examples.groups, return_inverse=True)[1]


def _number(folds: Folds) -> int:
    return int(folds.max()) + 1
