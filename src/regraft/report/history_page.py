"""The page of a training's history: the learning curves, and what was measured after each epoch."""

from __future__ import annotations

from functools import partial

from regraft.core.text import percent
from regraft.report import pages, plots
from regraft.report.pages import Section
from regraft.training.history import History

LISTED = 200


def render(history: History, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    draw = partial(plots.training_curves, history.to_list(), history.watch)
    rows = [
        [str(row.epoch), row.phase, row.part, f"{row.loss:.4f}", percent(row.accuracy), f"{row.seconds:.1f}"]
        for row in history.rows[-LISTED:]
    ]
    titles = ["epoch", "phase", "part", "loss", "accuracy, %", "seconds"]
    sections = [
        Section("Learning curves", pages.chart(draw)),
        Section("Each epoch", rows=[titles, *rows]),
    ]
    return pages.plain("Training", history.text(), sections, pages.made(command, ""))
