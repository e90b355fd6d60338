"""Several tests at once: what chance makes of many is more than what it makes of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from regraft.evaluation.significance import Paired


def holm(pairs: Sequence[Paired]) -> list[Paired]:
    """Return the comparisons, in order, with p-values that hold for all of them together.

    At the 5 % level there is then one false "better" or "worse" among all of them in one case of twenty at most.
    Source: Holm 1979, Scandinavian Journal of Statistics 6:65; equation as in Wright 1992, doi:10.2307/2532694.
    """
    found, least = list(pairs), 0.0
    order = sorted(range(len(pairs)), key=lambda at: pairs[at].p_value)
    for smaller, at in enumerate(order):
        least = max(least, min(1.0, (len(pairs) - smaller) * pairs[at].p_value))
        found[at] = dataclasses.replace(pairs[at], p_value=least)
    return found
