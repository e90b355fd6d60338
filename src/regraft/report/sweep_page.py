"""The page of a learning-rate sweep: the loss against the rate, and the rate to begin with."""

from __future__ import annotations

from functools import partial
from typing import Any

from regraft.report import pages, plots
from regraft.report.pages import Section


def render(sweep: Any, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8.

    sweep: a `Sweep` of the pipeline.
    """
    draw = partial(plots.rate_sweep, sweep.rates.tolist(), sweep.losses.tolist(), sweep.suggestion)
    section = Section("Loss against learning rate", pages.chart(draw))
    return pages.plain("Learning rate", sweep.sentence(), [section], pages.made(command, ""))
