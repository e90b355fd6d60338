"""The page of a comparison: which backbone and cut to take, and whether more photographs would help.

A `Comparison` enters, the text of one HTML file leaves. The layout is in
`comparison.html`.
"""

from __future__ import annotations

from regraft.evaluation.comparison import Comparison
from regraft.report import pages, plots


def render(comparison: Comparison) -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    curve, picture = comparison.learning_curve, ""
    if curve and len(curve.sizes) > 1:
        figure = plots.learning_curve(curve.sizes, curve.accuracy, curve.low, curve.high, curve.recalls)
        picture = pages.picture(figure)
    return pages.page("comparison.html", comparison=comparison, rows=comparison.rows(), picture=picture)
