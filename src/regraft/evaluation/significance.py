"""Paired comparison: did B do better than A on the same images?

Which images each got right enters, or their scores in the same rounds of a
cross-validation; a `Paired` leaves: the difference with its interval, a p-value
and one of three words. "undecided" is an answer too, and with few images the
usual one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from regraft.core.errors import DataError
from regraft.core.options import require
from regraft.evaluation.intervals import wilson

LEVEL = 0.95
NO_SPREAD = 1e-12  # scores whose differences differ by less than this differ by rounding alone

Outcome = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How B compares with A on the same images.

    difference: accuracy of B less that of A, in [-1, 1].
    low, high:  its 95 % interval.
    p_value:    how often chance alone makes a difference at least as large.
    basis:      what they were compared on, e.g. "the same 161 images".
    """

    difference: float
    low: float
    high: float
    p_value: float
    basis: str

    @property
    def outcome(self) -> Outcome:
        """What B is, compared with A; decided only where the test and the interval agree."""
        if self.p_value >= 1 - LEVEL or self.low <= 0 <= self.high:
            return "undecided"
        return "better" if self.difference > 0 else "worse"

    def text(self, b: str = "the second", a: str = "the first") -> str:
        """Return the comparison as one sentence, in percentage points, with the names of the two."""
        points, low, high = (_points(share) for share in (self.difference, self.low, self.high))
        numbers = f"{points} percentage points on {self.basis} (95 %: {low} to {high}; p {_p(self.p_value)})"
        if self.outcome == "undecided":
            return f"Undecided whether {b} is better than {a}: {numbers}."
        sentence = f"{b} is {self.outcome} than {a}: {numbers}."
        return sentence[0].upper() + sentence[1:]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers and the outcome as JSON-able data."""
        return {**dataclasses.asdict(self), "outcome": self.outcome}


def paired(right_a: NDArray[np.bool_] | Sequence[bool], right_b: NDArray[np.bool_] | Sequence[bool]) -> Paired:
    """Return how B compares with A, from which of the same images each got right.

    right_a, right_b: (n_images,) bool, in the same order.
    Raises DataError if there are no images, or not one answer of each for every image.
    Source: the p-value is McNemar's exact one (1947, doi:10.1007/BF02295996), the interval Newcombe's method 10
    (1998, Statistics in Medicine 17:2635).
    """
    from scipy.stats import binomtest

    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise DataError(
            f"Answers of the shapes {a.shape} and {b.shape} can't be paired; expected one of each for every image."
        )
    both, gained, lost = (int(np.count_nonzero(rows)) for rows in (a & b, b & ~a, a & ~b))
    low, high = _newcombe(both, gained, lost, len(a) - both - gained - lost)
    changed = gained + lost
    return Paired(
        difference=(gained - lost) / len(a),
        low=low,
        high=high,
        p_value=float(binomtest(gained, changed).pvalue) if changed else 1.0,
        basis=f"the same {len(a):,} images",
    )


def paired_repeats(scores_a: Sequence[float], scores_b: Sequence[float], test_share: float) -> Paired:
    """Return how B compares with A, from their accuracies in the same rounds of a repeated cross-validation.

    scores_a, scores_b: (rounds,) shares in [0, 1]; a round is one held-out fold of one repeat, in the same order.
    test_share:         how much of the images a round holds out, in (0, 1): 1 / folds.
    Raises DataError if there are fewer than two rounds, or not as many of each; UsageError for a share out of range.

    The rounds train on much the same images, so their scores are not independent, and a plain t-test finds
    differences that are not there; the corrected resampled one allows for it.
    Source: Nadeau & Bengio 2003, doi:10.1023/A:1024068626366.
    """
    require(0 < test_share < 1, "test_share", test_share, "a share above 0 and below 1")
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise DataError(
            f"Scores of the shapes {a.shape} and {b.shape} can't be paired; expected at least two rounds of each."
        )
    return _corrected_t(b - a, test_share / (1 - test_share))


def _corrected_t(differences: NDArray[np.float64], test_to_train: float) -> Paired:
    from scipy.stats import t

    rounds, mean = len(differences), float(differences.mean())
    spread = float(differences.std(ddof=1)) if np.ptp(differences) > NO_SPREAD else 0.0
    error = spread * math.sqrt(1 / rounds + test_to_train)
    half = float(t.ppf((1 + LEVEL) / 2, rounds - 1)) * error
    return Paired(
        difference=mean,
        low=max(mean - half, -1.0),
        high=min(mean + half, 1.0),
        p_value=2 * float(t.sf(abs(mean) / error, rounds - 1)) if error else float(abs(mean) <= NO_SPREAD),
        basis=f"{rounds} rounds of cross-validation",
    )


def _newcombe(both: int, gained: int, lost: int, neither: int) -> tuple[float, float]:
    """Return the interval of the difference of two paired shares; the four counts are those of the 2 by 2 table."""
    n = both + gained + lost + neither
    with_b, with_a = both + gained, both + lost
    b, a = with_b / n, with_a / n
    (b_low, b_high), (a_low, a_high) = wilson(with_b, n, LEVEL), wilson(with_a, n, LEVEL)
    phi = _phi(both, gained, lost, neither)

    def reach(one: float, other: float) -> float:
        return math.sqrt(one**2 - 2 * phi * one * other + other**2)

    difference = b - a
    return difference - reach(b - b_low, a_high - a), difference + reach(b_high - b, a - a_low)


def _phi(both: int, gained: int, lost: int, neither: int) -> float:
    """Return how the two go together, in [-1, 1], corrected for continuity as Newcombe has it."""
    margins = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    if not margins:
        return 0.0
    together = both * neither - gained * lost
    half = (both + gained + lost + neither) / 2
    return (together if together < 0 else max(together - half, 0.0)) / math.sqrt(margins)


def _points(share: float) -> str:
    """Return a difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
