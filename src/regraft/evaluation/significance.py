"""How far a measured number can be trusted: intervals of an accuracy, and tests of whether B did better than A.

Counts enter `wilson`, which images each of two models classified correctly enters
`mcnemar`, their scores in the same rounds of a cross-validation enter
`corrected_t_test`. The two tests return a `Paired`: the difference with its
interval, a p-value and one of three outcomes. "undecided" is an outcome too, and
with few images the usual one. Several tests together go through `holm_bonferroni`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from regraft.core.errors import DataError
from regraft.core.options import require
from regraft.training.examples import effective_number as effective_number

LEVEL = 0.95
ROUNDING = 1e-12  # differences of scores that vary by less than this are all equal

Outcome = Literal["better", "worse", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How B compares with A on the same images.

    difference: accuracy of B minus accuracy of A, in [-1, 1].
    low, high:  its 95 % interval.
    p_value:    probability of a difference at least this large if A and B were equally good.
    basis:      what they were compared on, e.g. "the same 161 images".
    """

    difference: float
    low: float
    high: float
    p_value: float
    basis: str

    @property
    def outcome(self) -> Outcome:
        """Whether B is better than A; decided only where the test and the interval agree."""
        if self.p_value >= 1 - LEVEL or self.low <= 0 <= self.high:
            return "undecided"
        return "better" if self.difference > 0 else "worse"

    def text(self, b: str = "the second", a: str = "the first") -> str:
        """Return the comparison as one sentence, in percentage points; `b` and `a` name the two."""
        difference, low, high = (points(value) for value in (self.difference, self.low, self.high))
        numbers = f"{difference} percentage points on {self.basis} (95 %: {low} to {high}; p {_p(self.p_value)})"
        if self.outcome == "undecided":
            return f"Undecided whether {b} is better than {a}: {numbers}."
        sentence = f"{b} is {self.outcome} than {a}: {numbers}."
        return sentence[0].upper() + sentence[1:]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers and the outcome as JSON-able data."""
        return {**dataclasses.asdict(self), "outcome": self.outcome}


def wilson(correct: float, n: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the score interval of a proportion, (low, high), both in [0, 1].

    correct: how many of the `n` images were classified correctly.
    n:       how many there are, or how many independent ones they are worth.
    level:   the confidence level, in (0, 1).
    Raises DataError if there are no images, or more correct ones than images.
    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    if not 0 <= correct <= n or n == 0:
        raise DataError(f"No interval for {correct} correct of {n}; expected at least one image, and 0 to n correct.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (correct + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(correct * (n - correct) / n + z * z / 4)
    return (centre - half if correct else 0.0), (centre + half if correct < n else 1.0)


def interval(
    correct: NDArray[np.bool_], pictures: NDArray[np.integer] | None = None, learned_from: float = 1.0
) -> tuple[float, float]:
    """Return the 95 % interval of the share of images that are correct (n,): Wilson's, of the effective number.

    pictures: (n,), equal for versions of one picture; None: no image is a version of another.
    learned_from: in a cross-validation, the fraction of the images that each model was trained on that measured. The
              interval is then of the model that was trained on all. Folds share what they learn, so that an image
              counts as this fraction of one (as in Nadeau and Bengio 2003, whose 1 / n + test / train it is); and the
              model of all makes fewer errors, by nothing up to the square root of the fraction, so that the upper end
              goes up. Without it the interval held the accuracy of that model in 87 of 100, and nearly all others
              were too low; with it in 95, see the simulation in tests/evaluation/test_significance.py.
    Without an image it is all there is, (0, 1).
    """
    if not len(correct):
        return 0.0, 1.0
    n = learned_from * (len(correct) if pictures is None else effective_number(pictures))
    low, high = wilson(min(np.count_nonzero(correct) * (n / len(correct)), n), n)
    return float(low), float(high + (1 - math.sqrt(learned_from)) * (1 - high))


def difference_interval(correct_a: int, n_a: int, correct_b: int, n_b: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference of two proportions, of different images: A's minus B's, in [-1, 1].

    correct_a, correct_b: how many of the `n_a` and of the `n_b` images.
    Source: Newcombe's method 10 for independent proportions (1998, Statistics in Medicine 17:873).
    """
    (a_low, a_high), (b_low, b_high) = wilson(correct_a, n_a), wilson(correct_b, n_b)
    a, b = correct_a / n_a, correct_b / n_b
    return a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def mcnemar(
    correct_a: NDArray[np.bool_] | Sequence[bool],
    correct_b: NDArray[np.bool_] | Sequence[bool],
    pictures: NDArray[np.integer] | None = None,
) -> Paired:
    """Return how B compares with A, from which of the same images each classified correctly.

    correct_a, correct_b: (n_images,) bool, in the same order.
    pictures:             (n_images,), equal for versions of one picture, which count once: for the model that is right
                          about more of them. None: no image is a version of another.
    Raises DataError if there are no images, or the shapes differ.
    Source: the p-value is McNemar's exact one (1947, doi:10.1007/BF02295996), the interval Newcombe's method 10
    (1998, Statistics in Medicine 17:2635).
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise DataError(
            f"Predictions of shapes {a.shape} and {b.shape} can't be compared; expected one of each for every image."
        )
    codes = np.arange(len(a)) if pictures is None else np.unique(pictures, return_inverse=True)[1]
    votes = np.bincount(codes, b.astype(float) - a)  # of each picture
    worth = effective_number(codes) / len(a)  # of an image
    both, only_b, only_a, neither = (worth * np.count_nonzero(rows) for rows in (a & b, b & ~a, a & ~b, ~a & ~b))
    low, high = _newcombe(both, only_b, only_a, neither)
    of = f", of {len(votes):,} pictures" if len(votes) < len(a) else ""
    return Paired(
        difference=float(b.mean() - a.mean()),
        low=low,
        high=high,
        p_value=_sign_test(int((votes > 0).sum()), int((votes < 0).sum())),
        basis=f"the same {len(a):,} images{of}",
    )


def corrected_t_test(scores_a: Sequence[float], scores_b: Sequence[float], test_fraction: float) -> Paired:
    """Return how B compares with A, from their accuracies in the same rounds of a repeated cross-validation.

    scores_a, scores_b: (rounds,) in [0, 1]; a round is one held-out fold of one repeat, in the same order.
    test_fraction:      fraction of the images that a round holds out, in (0, 1): 1 / folds.
    Raises DataError if there are fewer than two rounds, or the shapes differ; UsageError for a fraction out of range.

    The rounds train on much the same images, so their scores are not independent, and a plain t-test finds
    differences that do not exist; the corrected resampled t-test allows for it.
    Source: Nadeau & Bengio 2003, doi:10.1023/A:1024068626366.
    """
    require(0 < test_fraction < 1, "test_fraction", test_fraction, "a number above 0 and below 1")
    a, b = np.asarray(scores_a, dtype=np.float64), np.asarray(scores_b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise DataError(
            f"Scores of shapes {a.shape} and {b.shape} can't be compared; expected at least two rounds of each."
        )
    return _t_test(b - a, test_fraction / (1 - test_fraction))


def holm_bonferroni(tests: Sequence[Paired]) -> list[Paired]:
    """Return the comparisons, in order, with p-values corrected for their number.

    At the 5 % level, a false "better" or "worse" anywhere among them then has a probability of 5 % at most.
    Source: Holm 1979, Scandinavian Journal of Statistics 6:65; equation as in Wright 1992, doi:10.2307/2532694.
    """
    corrected, largest = list(tests), 0.0
    for smaller, at in enumerate(sorted(range(len(tests)), key=lambda at: tests[at].p_value)):
        largest = max(largest, min(1.0, (len(tests) - smaller) * tests[at].p_value))
        corrected[at] = dataclasses.replace(tests[at], p_value=largest)
    return corrected


def points(difference: float) -> str:
    """Return a difference of two fractions in percentage points, with its sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")


def _sign_test(gained: int, lost: int) -> float:
    """Return the two-sided p-value of a binomial test: `gained` heads and `lost` tails of a fair coin."""
    flips, count, ways = gained + lost, 0, 1  # ways: to get k heads, in whole numbers of any length
    for k in range(min(gained, lost) + 1):
        count += ways
        ways = ways * (flips - k) // (k + 1)
    return min(1.0, 2 * count / (1 << flips))


def _t_test(differences: NDArray[np.float64], test_to_train: float) -> Paired:
    from scipy.special import stdtr, stdtrit  # Student's t distribution and its inverse; scipy.stats loads for a second

    rounds, mean = len(differences), float(differences.mean())
    spread = float(differences.std(ddof=1)) if np.ptp(differences) > ROUNDING else 0.0
    error = spread * math.sqrt(1 / rounds + test_to_train)
    half = float(stdtrit(rounds - 1, (1 + LEVEL) / 2)) * error
    return Paired(
        difference=mean,
        low=max(mean - half, -1.0),
        high=min(mean + half, 1.0),
        p_value=2 * float(stdtr(rounds - 1, -abs(mean) / error)) if error else float(abs(mean) <= ROUNDING),
        basis=f"{rounds} rounds of cross-validation",
    )


def _newcombe(both: float, only_b: float, only_a: float, neither: float) -> tuple[float, float]:
    """Return the interval of the difference of two paired proportions, from the four counts of the 2 by 2 table."""
    n = both + only_b + only_a + neither
    correct_b, correct_a = both + only_b, both + only_a
    b, a = correct_b / n, correct_a / n
    (b_low, b_high), (a_low, a_high) = wilson(correct_b, n), wilson(correct_a, n)
    phi = _phi(both, only_b, only_a, neither)

    def reach(one: float, other: float) -> float:
        return math.sqrt(one**2 - 2 * phi * one * other + other**2)

    difference = b - a
    return difference - reach(b - b_low, a_high - a), difference + reach(b_high - b, a - a_low)


def _phi(both: float, only_b: float, only_a: float, neither: float) -> float:
    """Return the correlation of the two, in [-1, 1], with Newcombe's continuity correction."""
    margins = (both + only_b) * (only_a + neither) * (both + only_a) * (only_b + neither)
    if not margins:
        return 0.0
    together = both * neither - only_b * only_a
    half = (both + only_b + only_a + neither) / 2
    return (together if together < 0 else max(together - half, 0.0)) / math.sqrt(margins)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
