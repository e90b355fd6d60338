"""The page of a comparison: which backbone and cut to take, and whether more photographs would help.

A `Comparison` enters, the text of one HTML file leaves. The layout is in
`comparison.html`.
"""

from __future__ import annotations

from functools import partial

from regraft.evaluation.comparison import Comparison
from regraft.evaluation.learning_curve import LearningCurve
from regraft.report import pages, plots


def render(comparison: Comparison, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    return pages.page(
        "comparison.html",
        comparison=comparison,
        rows=comparison.rows(),
        curve=_curve(comparison.learning_curve),
        made=pages.made(command, comparison.source, seed=comparison.seed),
    )


def _curve(curve: LearningCurve | None) -> pages.Chart | None:
    if curve is None or len(curve.sizes) < 2:
        return None
    numbers = curve.sizes, curve.accuracy, curve.low, curve.high, curve.recalls
    return pages.chart(partial(plots.learning_curve, *numbers))
