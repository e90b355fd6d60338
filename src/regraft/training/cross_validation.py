"""Cross-validation: how well a linear head does on features, each image predicted by a regression that never saw it.

    examples → folds → one regression for each fold, solved side by side → probabilities of the rows that it left out

Nothing that is trained here is kept: it shows what features are worth, how many
photographs are enough, and which labels look wrong. The inputs are in memory
twice, at four bytes a number; views are not read.

The regularisation of a fold's regression is chosen by the log loss in the other
folds, so that no row takes part in the choice by which it is predicted. The
regressions of the other folds are trained on that row, as they should be; the
choice of one number of a coarse grid reveals nothing measurable of it (see
tests/training/test_cross_validation.py), and nested cross-validation would cost
three times as much.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from regraft.core.errors import DataError, UsageError
from regraft.core.rng import derive, generator
from regraft.training import standardise, streamed_rows
from regraft.training.examples import Examples, check
from regraft.training.folds import deal
from regraft.training.heads.linear import GRID, SEARCH_TOLERANCE, TOLERANCE, WORSE
from regraft.training.logistic_regression import Regressions, Rows
from regraft.training.losses import Loss
from regraft.training.streamed_rows import Part, StreamedRows

FOLDS = 5
PLAIN = Loss()
MOST_SIZES = 7  # of a learning curve, each half of the next

Numbers = NDArray[np.float32]
Folds = NDArray[np.int64]


def cross_validate(
    examples: Examples,
    n_classes: int,
    *,
    n_folds: int = FOLDS,
    repeats: int = 1,
    seed: int = 0,
    regularisation: float | None = None,
) -> Numbers:
    """Return the probabilities of each row by regressions that were not trained on it.

    repeats:        how often the rows are assigned to other folds, each time by `draw_folds` with its number.
    regularisation: as in the linear head; None: chosen, for each fold by the others.

    Returns (repeats, n, n_classes); the probabilities of a row sum to 1.
    Raises DataError if a class is missing or has a single group, or an input is not finite.
    """
    folds = assign_folds(examples, n_folds, repeats, seed)
    return out_of_fold_probabilities(examples, n_classes, folds, regularisation)


def out_of_fold_probabilities(
    examples: Examples, n_classes: int, folds: Folds, regularisation: float | None = None
) -> Numbers:
    """Return what `cross_validate` does for folds that are assigned already: (repeats, n), the fold of each row."""
    logits = out_of_fold_logits(examples, n_classes, folds, regularisation)
    return np.stack([PLAIN.probabilities(rows) for rows in logits]).astype(np.float32)


def out_of_fold_logits(
    examples: Examples, n_classes: int, folds: Folds, regularisation: float | None = None, loss: Loss = PLAIN
) -> Numbers:
    """Return the logits of each row by regressions that were not trained on it, (repeats, n, n_classes).

    folds: (repeats, n), the fold of each row.
    loss:  with the weights and the smoothing that the regressions minimise.
    """
    _check(examples, n_classes)
    inputs, rows, labels = _prepared(examples), np.arange(len(examples)), examples.labels
    with threadpool_limits(1):
        repeats = [_predicted(inputs, labels, n_classes, fold_of, rows, regularisation, loss) for fold_of in folds]
    return np.stack(repeats)


def streamed_logits(
    examples: Examples,
    rows: NDArray[np.integer],
    n_classes: int,
    regularisation: float,
    loss: Loss,
    *,
    seed: int,
    memory: float,
) -> Numbers:
    """Return the logits (len(rows), n_classes) of some rows by regressions without them, of which memory holds a part.

    They are solved on all rows, whose folds are those by which the linear head chooses its regularisation.
    memory: gigabytes of rows that are kept. Raises DataError if a class is in one fold only.
    """
    fold_of = streamed_rows.folds(examples, seed, FOLDS)
    if fold_of.max() < 0:
        raise DataError("A class has too few images to be in several folds.")
    with threadpool_limits(1):
        passes = StreamedRows([Part(dataclasses.replace(examples, views=()), fold_of)], loss, memory)
        regressions = Regressions(passes, n_classes)
        regressions.solve(regularisation * (2 if n_classes == 2 else 1), SEARCH_TOLERANCE)
    inputs = (np.asarray(examples.inputs[rows], np.float32).reshape(len(rows), -1) - passes.mean) / passes.scale
    logits = np.empty((len(rows), n_classes), np.float32)
    for fold, weights in enumerate(regressions.weights):
        own = fold_of[rows] == fold
        logits[own] = inputs[own] @ weights[:, :-1].T + weights[:, -1]
    return logits


@dataclass(frozen=True, eq=False)
class CurvePoints:
    """How a linear head does by the number of photographs that it is trained on.

    sizes:   about how many photographs each regression was trained on; rising.
    labels:  (n,), of all rows; each was predicted at every size.
    folds:   (repeats, n), the fold of each row in each repeat.
    correct: (sizes, repeats, n) bool.
    """

    sizes: tuple[int, ...]
    labels: NDArray[np.int64]
    folds: Folds
    correct: NDArray[np.bool_]

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """The accuracy at each size, (sizes,), mean over the repeats."""
        accuracy: NDArray[np.float64] = self.correct.mean(axis=(1, 2), dtype=np.float64)
        return accuracy

    @property
    def recalls(self) -> NDArray[np.float64]:
        """The recall of each class at each size, (sizes, classes)."""
        classes = range(int(self.labels.max()) + 1)
        recalls = [self.correct[:, :, self.labels == label].mean(axis=(1, 2), dtype=np.float64) for label in classes]
        return np.stack(recalls, axis=1)

    def scores(self, at: int, label: int | None = None) -> NDArray[np.float64]:
        """Return the accuracy in each fold of each repeat at the size number `at`, or the recall of one class."""
        rows = slice(None) if label is None else self.labels == label
        return fold_scores(self.correct[at][:, rows], self.folds[:, rows])


def learning_curve(
    examples: Examples,
    n_classes: int,
    sizes: Sequence[int] | None = None,
    *,
    n_folds: int = FOLDS,
    repeats: int = 3,
    seed: int = 0,
    regularisation: float | None = None,
) -> CurvePoints:
    """Return how accuracy and recall grow with the number of photographs that are trained on.

    sizes: numbers of photographs; None: all but one fold, half of that, and so on down to one of each class in each
           fold.

    At a smaller size each class is sampled, whole groups first, in the same proportion from each fold; every row is
    predicted at every size. Other arguments and errors are those of `cross_validate`.
    Raises UsageError for a size out of range.
    """
    _check(examples, n_classes)
    folds = assign_folds(examples, n_folds, repeats, seed)
    counts = _counts(sizes, examples.labels, folds)
    inputs = _prepared(examples)
    correct = np.empty((len(counts), repeats, len(examples)), bool)
    for repeat, fold_of in enumerate(folds):
        order = _order(examples, fold_of, generator(seed, "curve", repeat))
        for at, count in enumerate(counts):
            with threadpool_limits(1):
                predicted = _predicted(inputs, examples.labels, n_classes, fold_of, order[:count], regularisation)
            correct[at, repeat] = predicted.argmax(axis=1) == examples.labels
    trained_on = tuple(round(count * (1 - 1 / _number(folds[0]))) for count in counts)
    return CurvePoints(trained_on, examples.labels, folds, correct)


def assign_folds(examples: Examples, n_folds: int = FOLDS, repeats: int = 1, seed: int = 0) -> Folds:
    """Return the fold of each row in each repeat, (repeats, n), by `draw_folds`."""
    return np.stack([draw_folds(examples, n_folds, seed, repeat) for repeat in range(repeats)])


def draw_folds(examples: Examples, n_folds: int = FOLDS, seed: int = 0, repeat: int = 0) -> Folds:
    """Return the fold of each row, (n,), at random: stratified, equal groups together.

    There are fewer folds than `n_folds` if a class has fewer groups. Raises DataError if one has a single group.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    if n_folds < 2:
        raise UsageError(f"n_folds is {n_folds!r}; expected 2 or more.")
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
    splitter_type = StratifiedGroupKFold if grouped else StratifiedKFold  # equivalent, and fast for many rows
    splitter = splitter_type(min(n_folds, fewest), shuffle=True, random_state=derive(seed, "folds", repeat) % 2**32)
    fold_of = np.empty(len(labels), np.int64)
    for fold, (_, rows) in enumerate(splitter.split(labels, labels, groups if grouped else None)):
        fold_of[rows] = fold
    return fold_of


def deal_folds(examples: Examples, n_folds: int = FOLDS, seed: int = 0) -> Folds:
    """Return the fold of each row, (1, n), see `folds`: almost what `draw_folds` gives.

    Raises DataError if a class has a single group.
    """
    groups = _groups(examples)
    for label in np.unique(examples.labels):
        if len(np.unique(groups[examples.labels == label])) < 2:
            raise DataError(f"Class {label} has a single image (copies and groups count once).")
    return deal(examples.labels, groups, n_folds, generator(seed, "dealt folds"))[None]


def fold_scores(correct: NDArray[np.bool_], folds: Folds) -> NDArray[np.float64]:
    """Return the accuracy in each fold of each repeat, (repeats · folds,), from two arrays (repeats, n)."""
    return np.concatenate([_accuracies(rows, fold_of) for rows, fold_of in zip(correct, folds, strict=True)])


def _accuracies(correct: NDArray[np.bool_], fold_of: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.bincount(fold_of)
    return (np.bincount(fold_of, correct) / np.maximum(counts, 1))[counts > 0]


def take(examples: Examples, rows: NDArray[np.integer]) -> Examples:
    """Return the examples of these rows, with their views, in memory."""
    groups = None if examples.groups is None else examples.groups[rows]
    views = tuple(np.asarray(view[rows]) for view in examples.views)
    return Examples(np.asarray(examples.inputs[rows]), examples.labels[rows], groups, views)


def _check(examples: Examples, n_classes: int) -> None:
    if examples.labels.ndim > 1:
        raise DataError("These images have several labels each; expected one label for each image.")
    check(examples, None, n_classes)


def _prepared(examples: Examples) -> Numbers:
    """Return the inputs flattened, centred, divided by one scale, with a 1 at the end, (n, width + 1)."""
    inputs, start = np.ones((len(examples), math.prod(examples.shape) + 1), np.float32), 0
    for values, _ in examples.batches():
        inputs[start : start + len(values), :-1] = values.reshape(len(values), -1)
        start += len(values)
    standardise.centre_and_scale(inputs[:, :-1], len(inputs))  # no label is used
    return inputs


def _predicted(
    inputs: Numbers,
    labels: NDArray[np.int64],
    n_classes: int,
    fold_of: Folds,
    rows: NDArray[np.integer],
    regularisation: float | None,
    loss: Loss = PLAIN,
) -> Numbers:
    """Return the logits of all rows (n, n_classes), each by its fold's regression.

    rows: row numbers that regressions are trained on; each leaves out those of its own fold.
    """
    order = rows[np.argsort(fold_of[rows], kind="stable")]
    counts = None if loss.weights is None else loss.weights[labels[order]]
    ordered = Rows(inputs[order], labels[order], fold_of[order], row_weights=counts, smoothing=loss.smoothing)
    regressions = Regressions(ordered, n_classes)
    logits = np.empty((len(labels), n_classes), np.float32)
    for fold, weights in enumerate(_solved(regressions, ordered, regularisation)):
        held = fold_of == fold
        logits[held] = inputs[held] @ weights.T
    return logits


def _solved(regressions: Regressions, rows: Rows, regularisation: float | None) -> Numbers:
    """Return the weights of each, for this regularisation, or for that of GRID that the other folds choose."""
    times = 2 if regressions.weights.shape[1] == 2 else 1  # as in the linear head
    if regularisation is not None:
        regressions.solve(regularisation * times, TOLERANCE)
        return regressions.weights
    counts = np.bincount(rows.left_out)
    best, lowest, worse = np.zeros_like(regressions.weights), np.full(len(counts), np.inf), 0
    for strength in GRID:
        regressions.solve(strength * times, SEARCH_TOLERANCE)
        losses = regressions.losses() * counts
        others = losses.sum() - losses
        better = others < lowest
        best[better], lowest[better] = regressions.weights[better], others[better]
        worse = 0 if better.any() else worse + 1
        if worse == WORSE:
            break
    return best


def _counts(sizes: Sequence[int] | None, labels: NDArray[np.int64], folds: Folds) -> list[int]:
    """Return how many rows are sampled for each size, those of the fold that is left out included; rising."""
    most = len(labels)
    least = max(len(_cells(labels, fold_of)[1]) for fold_of in folds)
    if sizes is None:
        halves = [most >> times for times in range(MOST_SIZES)]
        return sorted({most, *(count for count in halves if count >= least)})
    fraction = 1 - 1 / _number(folds[0])
    for size in sizes:
        if not math.floor(least * fraction) <= size <= math.ceil(most * fraction):
            raise UsageError(
                f"A size is {size}; expected {math.ceil(least * fraction)} (one of each class in each fold) to "
                f"{math.floor(most * fraction)} photographs (all but one fold)."
            )
    return sorted({min(max(round(size / fraction), least), most) for size in sizes})


def _order(examples: Examples, fold_of: Folds, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the rows in an order any beginning of which has each class and fold in proportion.

    A class's rows of a fold come group by group; the first of each come before all others.
    """
    groups = _groups(examples)
    shuffled = rng.permutation(groups.max() + 1)[groups]
    cell, sizes = _cells(examples.labels, fold_of)
    order = np.lexsort((shuffled, cell))
    starts = np.cumsum(sizes) - sizes
    position = np.empty(len(order))  # within the cell, in [0, 1)
    position[order] = (np.arange(len(order)) - np.repeat(starts, sizes)) / np.repeat(sizes, sizes)
    return np.lexsort((rng.permutation(len(order)), position))


def _cells(labels: NDArray[np.int64], fold_of: Folds) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the pair of a class and a fold that each row belongs to, numbered from 0, and how many rows each has."""
    _, cell, sizes = np.unique(labels * _number(fold_of) + fold_of, return_inverse=True, return_counts=True)
    return cell, sizes


def _groups(examples: Examples) -> NDArray[np.intp]:
    """Return the groups numbered from 0; without any, each row is a group."""
    if examples.groups is None:
        return np.arange(len(examples))
    return np.unique(examples.groups, return_inverse=True)[1]


def _number(fold_of: Folds) -> int:
    return int(fold_of.max()) + 1
