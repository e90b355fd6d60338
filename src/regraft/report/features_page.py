"""The page of features: how many there are, of which images, and what computed them."""

from __future__ import annotations

from functools import partial
from typing import Any

from regraft.report import pages, plots
from regraft.report.pages import Section


def render(features: Any, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8.

    features: `Features` of the room features.
    """
    values = features.to_dict()
    rows = [[name, str(value)] for name, value in values.items() if name not in ("parts", "source")]
    index = features.index
    parts = {part: index.part(part).class_counts for part in values["parts"]} or {"images": index.class_counts}
    chart = pages.chart(partial(plots.class_counts, parts)) if index.class_counts else None
    return pages.plain(
        values["source"] or "features",
        features.text(),
        [
            Section("What they are", rows=[["", "value"], *rows], texts=[1]),
            Section("Images of each class", chart),
        ],
        pages.made(command, values["source"]),
    )
