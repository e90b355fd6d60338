"""Intervals: how far a share counted on a few images may lie from the true one.

Counts enter, the two ends of an interval leave. How the counts come about is
left to `metrics`.
"""

from __future__ import annotations

from regraft.core.errors import DataError


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a share, (low, high), both in [0, 1].

    successes: how many of the `n` images were right.
    level:     the confidence, in (0, 1).
    Raises DataError if there are no images, or more right than there are.
    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    from scipy.stats import binomtest

    if not 0 <= successes <= n or n == 0:
        raise DataError(
            f"No interval for {successes} right of {n}. Expected at least one image, and 0 to n of them right."
        )
    interval = binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)
