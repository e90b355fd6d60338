"""The page of a search: the combinations that were tried, the best first, and what the best model does."""

from __future__ import annotations

from typing import Any

from regraft.core.text import percent
from regraft.report import pages
from regraft.report.pages import Section

LISTED = 40


def render(tuned: Any, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8.

    tuned: a `Tuned` of the pipeline.
    """
    names = list(dict.fromkeys(name for trial in tuned.trials for name in trial.parameters))
    ordered = sorted(tuned.trials, key=lambda trial: (len(trial.losses) < tuned.folds, trial.loss))
    rows = [
        [f"{trial.loss:.4f}", percent(trial.accuracy), *(_shown(trial.parameters.get(name, "")) for name in names)]
        for trial in ordered[:LISTED]
    ]
    evaluation = tuned.report.to_dict()
    lead = f"Best of {len(tuned.trials)} combinations: {tuned.best.text()}"
    measures = [[name.replace("_", " "), f"{value:.4g}"] for name, value in evaluation.items() if _is_number(value)]
    return pages.plain(
        "Search on stored features",
        lead,
        [
            Section("Combinations, the best first", rows=[["log loss", "accuracy, %", *names], *rows]),
            Section(f"The best model on the {tuned.report.part} part", rows=[["", "value"], *measures]),
        ],
        pages.made(command, tuned.report.source.name, seed=tuned.report.model.options.get("seed", "")),
        tuned.report.notes,
    )


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
