"""Regularised softmax regressions on the same rows, each leaving out some of them, solved side by side.

Each minimises the mean cross-entropy of its rows plus half the penalty times the
sum of the squared weights, by L-BFGS (Nocedal and Wright, Numerical
Optimization, 2006, algorithm 7.4). One pass over the rows serves all that are
not solved yet: their weights are stacked in one matrix product. Where a row may
have several labels, the classes are replaced by a logistic regression of each
label: the sum of their cross-entropies is minimised.

The rows are in memory (`Rows`), or read again in each pass (see `streamed_rows`).
A large pass is divided among the cores, always at the same rows and summed in
the same order, so that the result is the same on any number of cores. NumPy's
own threads should be switched off meanwhile (`threadpool_limits`), as they would
compete for the cores. All of it is NumPy on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from regraft.core.machine import cores

MEMORY = 10  # steps from which the curvature is estimated
MAX_ITERATIONS = 1000  # of one `solve`
TRIES = 10  # lengths of one step
TASKS = 8  # into which a pass is divided
BLOCK = 1024  # rows of one matrix product: they and their logits stay in the cache
SMALL = 4e6  # multiplications up to which a pass runs on one core


class Passes(Protocol):
    """Rows that are passed over: what regressions sum over them.

    counts: (regressions,) how many rows each is trained on.
    width:  numbers in a row, the last of which is 1: its weight, the bias, has no penalty.
    """

    @property
    def counts(self) -> np.ndarray:
        """See above."""
        ...

    @property
    def width(self) -> int:
        """See above."""
        ...

    def summed(self, which: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cross-entropy (len(which),) and its gradient, summed over the rows that each is trained on."""
        ...

    def left_out_losses(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the summed log loss (regressions,) of the measured rows that each leaves out, and their number."""
        ...


class Regressions:
    """As many regressions as the rows' `counts`; `weights` are 0 before the first `solve`.

    weights: (regressions, classes, width) float32.
    """

    def __init__(self, rows: Passes, classes: int) -> None:
        self._rows, self._counts = rows, rows.counts
        self.weights = np.zeros((len(self._counts), classes, rows.width), np.float32)
        self._penalty = np.zeros((len(self._counts), 1, rows.width), np.float32)
        self._before = self.weights  # the solution of the last `solve` but one
        self._loss = np.zeros(len(self._counts))
        self._gradient = np.zeros_like(self.weights)
        self._taken = np.zeros(len(self._counts), np.int64)  # steps; of the last ones, each at its number % MEMORY:
        self._steps = np.zeros((MEMORY, *self.weights.shape), np.float32)  # the changes of the weights
        self._bends = np.zeros_like(self._steps)  # and those of the gradient

    def solve(self, strength: float, tolerance: float) -> bool:
        """Solve all for a penalty of `strength` / rows, until no step is expected to gain more than `tolerance` nats.

        After two solutions the next starts from their extrapolation, so call with strengths in even steps of their
        logarithm, from the strongest. Returns whether all were solved within MAX_ITERATIONS.
        """
        self._change(strength)
        self._before, self.weights = self.weights, 2 * self.weights - self._before
        unsolved = np.arange(len(self.weights))
        self._loss, self._gradient = self._objective(unsolved, self.weights)
        for _ in range(MAX_ITERATIONS):
            direction = self._direction(unsolved)
            gain = _dot(self._gradient[unsolved], direction) / 2  # no estimate before the first step
            more = (gain > tolerance) | ((self._taken[unsolved] == 0) & (gain > 0))
            unsolved = self._step(unsolved[more], direction[more])
            if not len(unsolved):
                return True
        return False

    def losses(self) -> np.ndarray:
        """Return the mean log loss of each, (regressions,), in nats, on the measured rows that it leaves out.

        It is 0 where it leaves out none. Of several labels it is the mean over them, too.
        """
        sums, counts = self._rows.left_out_losses(self.weights)
        result: np.ndarray = sums / np.maximum(counts, 1)
        return result

    def _change(self, strength: float) -> None:
        """Set the penalty; the estimate of the curvature becomes that of the new objective."""
        penalty = np.zeros_like(self._penalty)
        penalty[:, :, :-1] = _each(strength / self._counts)
        self._bends += (penalty - self._penalty) * self._steps
        self._penalty = penalty

    def _direction(self, which: np.ndarray) -> np.ndarray:
        """Return the gradient of these times an estimate of the inverse Hessian, to be subtracted from the weights."""
        direction: np.ndarray = self._gradient[which]
        ratios: list[np.ndarray] = []
        past = [(self._taken[which] - 1 - back) % MEMORY for back in range(min(MEMORY, self._taken[which].max()))]
        for slot in past:
            step, bend = self._steps[slot, which], self._bends[slot, which]
            ratios.append(_ratio(_dot(step, direction), _dot(step, bend)))
            direction -= _each(ratios[-1]) * bend
        direction *= _each(self._length(which))
        for slot, ratio in zip(reversed(past), reversed(ratios), strict=True):
            step, bend = self._steps[slot, which], self._bends[slot, which]
            direction += _each(ratio - _ratio(_dot(bend, direction), _dot(step, bend))) * step
        return direction

    def _length(self, which: np.ndarray) -> np.ndarray:
        """Return the step along the gradient by the curvature of the last step; of length 1 before any."""
        last = (self._taken[which] - 1) % MEMORY
        step, bend = self._steps[last, which], self._bends[last, which]
        norm = np.sqrt(_dot(self._gradient[which], self._gradient[which]))
        length: np.ndarray = np.where(
            self._taken[which] > 0, _ratio(_dot(step, bend), _dot(bend, bend)), _ratio(1.0, norm)
        )
        return length

    def _step(self, which: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Take a step against the direction, shortened until it is good; return which regressions took one.

        A step is good if the loss falls, within the precision of float32, and the slope at its end is at most half as
        steep up as it was down at its start: the objective is convex, so a slope is more precise than the loss.
        """
        length, slope, remaining = np.ones(len(which)), _dot(self._gradient[which], direction), np.arange(len(which))
        for _ in range(TRIES if len(which) else 0):
            tried = which[remaining]
            weights = self.weights[tried] - _each(length[remaining]) * direction[remaining]
            loss, gradient = self._objective(tried, weights)
            end = -_dot(gradient, direction[remaining])
            good = (end <= slope[remaining] / 2) & (loss <= self._loss[tried] * (1 + 1e-6) + 1e-7)
            self._move(tried[good], weights[good], loss[good], gradient[good])
            ratio = _ratio(slope[remaining], slope[remaining] + end)  # to where the slope may be 0
            length[remaining] *= np.clip(ratio, 0.1, 0.5)
            remaining = remaining[~good]
            if not len(remaining):
                break
        stepped: np.ndarray = np.delete(which, remaining)
        return stepped

    def _move(self, which: np.ndarray, weights: np.ndarray, loss: np.ndarray, gradient: np.ndarray) -> None:
        slot = self._taken[which] % MEMORY
        self._steps[slot, which] = weights - self.weights[which]
        self._bends[slot, which] = gradient - self._gradient[which]
        self.weights[which], self._loss[which], self._gradient[which] = weights, loss, gradient
        self._taken[which] += 1

    def _objective(self, which: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the objective (len(which),) and its gradient for the regressions `which` at these weights."""
        loss, gradient = self._rows.summed(which, weights)
        counts, held = self._counts[which], self._penalty[which] * weights
        return loss / counts + _dot(held, weights) / 2, (gradient / _each(counts) + held).astype(np.float32)


def counts(left_out: np.ndarray) -> np.ndarray:
    """Return how many rows each regression is trained on, at least one regression, by which leaves out each row."""
    number = max(1, int(left_out.max()) + 1)
    result: np.ndarray = len(left_out) - np.bincount(left_out[left_out >= 0], minlength=number)
    return result


class Rows:
    """Rows in memory.

    inputs:      (n, width) float32; the last feature of each row is 1.
    labels:      (n,) int64, 0 to classes - 1; or (n, classes) float32 of 0 and 1, where a row may have several.
    left_out:    (n,) int64, sorted: the regression that is not trained on the row; -1 for none.
    row_weights: (n,) the weights of the rows, or None: all 1.
    measured:    (n,) bool, the rows on which a regression that leaves them out is measured; None: all.
    smoothing:   the fraction of each label that is spread evenly over all classes, or over yes and no.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        left_out: np.ndarray,
        *,
        row_weights: np.ndarray | None = None,
        measured: np.ndarray | None = None,
        smoothing: float = 0.0,
    ) -> None:
        self.inputs, self.labels, self.left_out = inputs, labels, left_out
        self.width = inputs.shape[1]
        self._row_weights = None if row_weights is None else row_weights.astype(np.float32)
        self._measured = np.ones(len(labels), bool) if measured is None else measured
        self._smoothing = smoothing

    @property
    def counts(self) -> np.ndarray:
        """How many rows each regression is trained on."""
        return counts(self.left_out)

    def summed(self, which: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cross-entropy and its gradient, summed over the rows that each is trained on."""
        blocks = list(self._blocks())
        if len(self.inputs) * weights.size <= SMALL:
            return self._summed_blocks(blocks, which, weights)
        parts = [blocks[start::TASKS] for start in range(min(TASKS, len(blocks)))]
        with ThreadPoolExecutor(min(cores(), len(parts))) as pool:
            (loss, gradient), *others = pool.map(lambda part: self._summed_blocks(part, which, weights), parts)
        for more_loss, more_gradient in others:
            loss += more_loss
            gradient += more_gradient
        return loss, gradient

    def _summed_blocks(
        self, blocks: list[tuple[slice, int]], which: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same of these blocks of rows."""
        loss, gradient = np.zeros(len(which)), np.zeros_like(weights)
        self._add(blocks, which, weights, loss, gradient)
        return loss, gradient

    def add(self, which: np.ndarray, weights: np.ndarray, loss: np.ndarray, gradient: np.ndarray) -> None:
        """Add the same to sums that there are, on one core."""
        self._add(self._blocks(), which, weights, loss, gradient)

    def _add(
        self,
        blocks: Iterable[tuple[slice, int]],
        which: np.ndarray,
        weights: np.ndarray,
        loss: np.ndarray,
        gradient: np.ndarray,
    ) -> None:
        for rows, out in blocks:
            training = np.flatnonzero(which != out)
            selected = slice(None) if len(training) == len(which) else training
            logits = self._logits(rows, weights[selected])
            loss[selected] += self._errors(logits, rows).sum(axis=1, dtype=np.float64)
            flat = logits.reshape(-1, logits.shape[2])
            gradient[selected] += (flat @ self.inputs[rows]).reshape(-1, *weights.shape[1:])

    def left_out_losses(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the summed log loss of the measured rows that each leaves out, and their number."""
        sums, counts = np.zeros((2, len(weights)))
        for rows, out in self._blocks():
            if out >= 0:
                entropy = self._errors(self._logits(rows, weights[out : out + 1]), rows)
                sums[out] += entropy[0, self._measured[rows]].sum(dtype=np.float64)
                counts[out] += self._measured[rows].sum()
        return sums / (1 if self.labels.ndim == 1 else self.labels.shape[1]), counts

    def _errors(self, logits: np.ndarray, rows: slice) -> np.ndarray:
        """Return the cross-entropy (regressions, rows) of these rows; logits become its gradient by them."""
        errors = _softmax_errors if self.labels.ndim == 1 else _sigmoid_errors
        entropy = errors(logits, self.labels[rows], self._smoothing)
        if self._row_weights is not None:
            entropy *= self._row_weights[rows]
            logits *= self._row_weights[rows]
        return entropy

    def _blocks(self) -> Iterator[tuple[slice, int]]:
        """Yield blocks of up to BLOCK rows, each left out by the same regression, and its number."""
        ends = np.flatnonzero(np.diff(self.left_out, append=self.left_out[-1] + 1)) + 1
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            for start in range(first, end, BLOCK):
                yield slice(start, min(start + BLOCK, end)), int(self.left_out[first])

    def _logits(self, rows: slice, weights: np.ndarray) -> np.ndarray:
        """Return the logits of these rows, (regressions, classes, rows)."""
        flat: np.ndarray = weights.reshape(-1, weights.shape[2]) @ self.inputs[rows].T
        return flat.reshape(*weights.shape[:2], flat.shape[1])


def _softmax_errors(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    """Return the cross-entropy (regressions, rows) of the classes `labels`; logits become its gradient by them."""
    rows, spread = np.arange(len(labels)), smoothing / logits.shape[1]
    logits -= logits.max(axis=1, keepdims=True)
    target = (1 - smoothing) * logits[:, labels, rows]
    if smoothing:
        target += spread * logits.sum(axis=1)
    np.exp(logits, out=logits)
    total = logits.sum(axis=1)
    logits /= total[:, None]
    logits[:, labels, rows] -= 1 - smoothing
    if smoothing:
        logits -= spread
    entropy: np.ndarray = np.log(total) - target
    return entropy


def _sigmoid_errors(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    """Return the same, summed over several labels (rows, classes), each a binary one."""
    targets = (labels * (1 - smoothing) + smoothing / 2).T.astype(np.float32)
    softplus = np.logaddexp(0, logits)
    entropy: np.ndarray = (softplus - targets * logits).sum(axis=1)
    np.exp(logits - softplus, out=logits)  # the sigmoid
    logits -= targets
    return entropy


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    products: np.ndarray = np.einsum("pkw,pkw->p", first, second)
    return products.astype(np.float64)


def _ratio(above: np.ndarray | float, below: np.ndarray) -> np.ndarray:
    """Return above / below, or 0 where below isn't above 0."""
    ratio: np.ndarray = np.where(below > 0, above / np.where(below > 0, below, 1), 0)
    return ratio


def _each(numbers: np.ndarray) -> np.ndarray:
    """Return the numbers, one for each regression, in the shape in which they multiply the weights."""
    return numbers.astype(np.float32)[:, None, None]
