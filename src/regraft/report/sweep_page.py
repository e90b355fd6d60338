"""The page of a learning-rate sweep: the loss against the rate, and the rate to begin with."""

from __future__ import annotations

from typing import Any

from regraft.report import pages, plots
from regraft.report.pages import Section


def render(sweep: Any) -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8.

    sweep: a `Sweep` of the pipeline.
    """
    figure = plots.rate_sweep(sweep.rates.tolist(), sweep.losses.tolist(), sweep.suggestion)
    return pages.plain(
        "Learning rate", sweep.sentence(), [Section("Loss against learning rate", pages.picture(figure))]
    )
