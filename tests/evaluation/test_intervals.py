from __future__ import annotations

import math

import pytest

from regraft.core.errors import DataError
from regraft.evaluation.intervals import wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 …
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_the_published_one(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("level", "z"), [(0.95, 1.959963984540054), (0.99, 2.5758293035489004)])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (1, 2), (7, 9), (971, 1000), (99_999, 100_000)])
def test_the_interval_is_the_closed_formula(successes, n, level, z):
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = wilson(successes, n, level)
    assert (low, high) == pytest.approx((middle - half, middle + half), abs=1e-12)
    assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 2), (0, -1)])
def test_counts_that_cannot_be_are_refused(successes, n):
    with pytest.raises(DataError, match=f"{successes} right of {n}"):
        wilson(successes, n)
