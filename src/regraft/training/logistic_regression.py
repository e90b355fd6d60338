"""Regularised softmax regressions on the same rows, each leaving out a share of them, solved side by side.

What each minimises is the mean cross-entropy of its rows plus half the
penalty times the squared weights, by L-BFGS (Nocedal and Wright, Numerical
Optimization, 2006, algorithm 7.4). One pass over the rows serves all that are
not solved yet: their weights stand under each other in one matrix product.
Where a row may have several labels, a logistic regression of each label
stands where the classes do: the sum of their cross-entropies is minimised.

A large pass is shared out among the cores, always at the same rows and summed
in the same order, so that the answer is the same on any number of cores.
NumPy's own threads should be switched off meanwhile: they'd be one too many.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from regraft.core.machine import cores

MEMORY = 10  # steps that the curvature is told from
MAX_ITERATIONS = 1000  # of one `solve`
TRIES = 10  # lengths of one step
SHARES = 8  # parts of the rows that may be worked on at the same time
BLOCK = 1024  # rows of one matrix product: they and their logits stay in the cache
SMALL = 4e6  # multiplications up to which a pass is left to one core


class Regressions:
    """As many regressions as `left_out` names, at least one; `weights` are 0 before the first `solve`.

    inputs:      (n, width) float32; the last number of each row is 1: what is learnt for it, the bias, has no penalty.
    labels:      (n,) int64, 0 to classes - 1; or (n, classes) float32 of 0 and 1, where a row may have several.
    left_out:    (n,) int64, sorted: the regression that does not learn from the row; -1 for a row that all learn from.
    row_weights: (n,) what a row counts, or None: all 1.
    smoothing:   share of each label that is spread evenly over all classes, or over yes and no.
    weights:     (regressions, classes, width) float32.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        labels: np.ndarray,
        classes: int,
        left_out: np.ndarray,
        *,
        row_weights: np.ndarray | None = None,
        smoothing: float = 0.0,
    ) -> None:
        self.inputs, self.labels, self.left_out = inputs, labels, left_out
        self._row_weights = None if row_weights is None else row_weights.astype(np.float32)
        self._smoothing = smoothing
        number = max(1, int(left_out.max()) + 1)
        self.weights = np.zeros((number, classes, inputs.shape[1]), np.float32)
        self._counts = len(labels) - np.bincount(left_out[left_out >= 0], minlength=number)
        self._penalty = np.zeros((number, 1, inputs.shape[1]), np.float32)
        self._before = self.weights  # what the last but one `solve` found
        self._loss = np.zeros(number)
        self._gradient = np.zeros_like(self.weights)
        self._taken = np.zeros(number, np.int64)  # how many steps; of the last ones, each at its number % MEMORY:
        self._steps = np.zeros((MEMORY, *self.weights.shape), np.float32)  # how the weights changed
        self._bends = np.zeros_like(self._steps)  # and the gradient with them

    def solve(self, strength: float, tolerance: float) -> bool:
        """Solve all for a penalty of `strength` / rows, until no step is worth more than `tolerance`.

        A step is worth what it is expected to lower the objective by, in nats. A strength after others is begun where
        the last two solutions point to, so go through strengths in even steps of their logarithm, from the strongest.
        Returns whether all were solved within MAX_ITERATIONS.
        """
        self._change(strength)
        self._before, self.weights = self.weights, 2 * self.weights - self._before
        going = np.arange(len(self.weights))
        self._loss, self._gradient = self._objective(going, self.weights)
        for _ in range(MAX_ITERATIONS):
            direction = self._direction(going)
            worth = _dot(self._gradient[going], direction) / 2  # nothing is expected before the first step
            more = (worth > tolerance) | ((self._taken[going] == 0) & (worth > 0))
            going = self._step(going[more], direction[more])
            if not len(going):
                return True
        return False

    def losses(self, judging: np.ndarray) -> np.ndarray:
        """Return for each the mean log loss (regressions,), in nats, of the rows it leaves out and that are `judging`.

        judging: (n,) bool, one or more of what each leaves out. Of several labels it is the mean over them, too.
        """
        sums, counts = np.zeros((2, len(self.weights)))
        for rows, out in self._blocks():
            if out >= 0:
                entropy = self._errors(self._logits(rows, self.weights[out : out + 1]), rows)
                sums[out] += entropy[0, judging[rows]].sum(dtype=np.float64)
                counts[out] += judging[rows].sum()
        return sums / counts / (1 if self.labels.ndim == 1 else self.labels.shape[1])

    def _change(self, strength: float) -> None:
        """Set the penalty; what is known of the curvature becomes that of the new objective."""
        penalty = np.zeros_like(self._penalty)
        penalty[:, :, :-1] = _each(strength / self._counts)
        self._bends += (penalty - self._penalty) * self._steps
        self._penalty = penalty

    def _direction(self, which: np.ndarray) -> np.ndarray:
        """Return what to subtract from the weights of these: the gradient times an estimate of the inverse Hessian."""
        direction: np.ndarray = self._gradient[which]
        shares: list[np.ndarray] = []
        past = [(self._taken[which] - 1 - back) % MEMORY for back in range(min(MEMORY, self._taken[which].max()))]
        for slot in past:
            step, bend = self._steps[slot, which], self._bends[slot, which]
            shares.append(_ratio(_dot(step, direction), _dot(step, bend)))
            direction -= _each(shares[-1]) * bend
        direction *= _each(self._length(which))
        for slot, share in zip(reversed(past), reversed(shares), strict=True):
            step, bend = self._steps[slot, which], self._bends[slot, which]
            direction += _each(share - _ratio(_dot(bend, direction), _dot(step, bend))) * step
        return direction

    def _length(self, which: np.ndarray) -> np.ndarray:
        """Return how far to go along the gradient: by the last step's curvature; a length of 1 before any."""
        last = (self._taken[which] - 1) % MEMORY
        step, bend = self._steps[last, which], self._bends[last, which]
        norm = np.sqrt(_dot(self._gradient[which], self._gradient[which]))
        length: np.ndarray = np.where(
            self._taken[which] > 0, _ratio(_dot(step, bend), _dot(bend, bend)), _ratio(1.0, norm)
        )
        return length

    def _step(self, which: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Take a step against the direction, shortened until it is good; return which found one.

        A step is good if the loss falls, within what float32 can tell, and the slope at its end is at most half as
        steep up as it was down at its start: the objective is convex, so a slope is a surer sign than the loss.
        """
        length, slope, left = np.ones(len(which)), _dot(self._gradient[which], direction), np.arange(len(which))
        for _ in range(TRIES if len(which) else 0):
            tried = which[left]
            weights = self.weights[tried] - _each(length[left]) * direction[left]
            loss, gradient = self._objective(tried, weights)
            end = -_dot(gradient, direction[left])
            good = (end <= slope[left] / 2) & (loss <= self._loss[tried] * (1 + 1e-6) + 1e-7)
            self._move(tried[good], weights[good], loss[good], gradient[good])
            length[left] *= np.clip(_ratio(slope[left], slope[left] + end), 0.1, 0.5)  # to where the slope may be 0
            left = left[~good]
            if not len(left):
                break
        found: np.ndarray = np.delete(which, left)
        return found

    def _move(self, which: np.ndarray, weights: np.ndarray, loss: np.ndarray, gradient: np.ndarray) -> None:
        slot = self._taken[which] % MEMORY
        self._steps[slot, which] = weights - self.weights[which]
        self._bends[slot, which] = gradient - self._gradient[which]
        self.weights[which], self._loss[which], self._gradient[which] = weights, loss, gradient
        self._taken[which] += 1

    def _objective(self, which: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the objective (len(which),) and its gradient for the regressions `which` at these weights."""
        loss, gradient = self._summed(which, weights)
        counts, held = self._counts[which], self._penalty[which] * weights
        return loss / counts + _dot(held, weights) / 2, gradient / _each(counts) + held

    def _summed(self, which: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the cross-entropy and its gradient, summed over the rows that each learns from."""
        blocks = list(self._blocks())
        if len(self.inputs) * weights.size <= SMALL:
            return self._part(blocks, which, weights)
        parts = [blocks[start::SHARES] for start in range(min(SHARES, len(blocks)))]
        with ThreadPoolExecutor(min(cores(), len(parts))) as pool:
            (loss, gradient), *others = pool.map(lambda part: self._part(part, which, weights), parts)
        for more_loss, more_gradient in others:
            loss += more_loss
            gradient += more_gradient
        return loss, gradient

    def _part(
        self, blocks: list[tuple[slice, int]], which: np.ndarray, weights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the same of some blocks of rows."""
        loss, gradient = np.zeros(len(which)), np.zeros_like(weights)
        for rows, out in blocks:
            learning = np.flatnonzero(which != out)
            some = slice(None) if len(learning) == len(which) else learning
            logits = self._logits(rows, weights[some])
            loss[some] += self._errors(logits, rows).sum(axis=1, dtype=np.float64)
            flat = logits.reshape(-1, logits.shape[2])
            gradient[some] += (flat @ self.inputs[rows]).reshape(-1, *weights.shape[1:])
        return loss, gradient

    def _errors(self, logits: np.ndarray, rows: slice) -> np.ndarray:
        """Return the cross-entropy (regressions, rows) of these rows; logits become its gradient by them."""
        errors = _softmax_errors if self.labels.ndim == 1 else _sigmoid_errors
        entropy = errors(logits, self.labels[rows], self._smoothing)
        if self._row_weights is not None:
            entropy *= self._row_weights[rows]
            logits *= self._row_weights[rows]
        return entropy

    def _blocks(self) -> Iterator[tuple[slice, int]]:
        """Yield up to BLOCK rows and who leaves them out, which is the same for all of them."""
        ends = np.flatnonzero(np.diff(self.left_out, append=self.left_out[-1] + 1)) + 1
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            for start in range(first, end, BLOCK):
                yield slice(start, min(start + BLOCK, end)), int(self.left_out[first])

    def _logits(self, rows: slice, weights: np.ndarray) -> np.ndarray:
        """Return (regressions, classes, rows)."""
        flat: np.ndarray = weights.reshape(-1, weights.shape[2]) @ self.inputs[rows].T
        return flat.reshape(*weights.shape[:2], flat.shape[1])


def _softmax_errors(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    """Return the cross-entropy (regressions, rows) of the classes `labels`; logits become its gradient by them."""
    places, share = np.arange(len(labels)), smoothing / logits.shape[1]
    logits -= logits.max(axis=1, keepdims=True)
    right = (1 - smoothing) * logits[:, labels, places]
    if smoothing:
        right += share * logits.sum(axis=1)
    np.exp(logits, out=logits)
    total = logits.sum(axis=1)
    logits /= total[:, None]
    logits[:, labels, places] -= 1 - smoothing
    if smoothing:
        logits -= share
    entropy: np.ndarray = np.log(total) - right
    return entropy


def _sigmoid_errors(logits: np.ndarray, labels: np.ndarray, smoothing: float) -> np.ndarray:
    """Return the same, summed over several labels (rows, classes), each a yes or no of its own."""
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
    """Return a number for each regression so that it multiplies its weights."""
    return numbers.astype(np.float32)[:, None, None]
