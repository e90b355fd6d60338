"""The page of an inspection: images of each class, sizes, formats, and the files that were left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regraft.core.text import count
from regraft.data.index import PARTS
from regraft.data.inspect import Inspection
from regraft.report import pages, plots
from regraft.report.pages import Section

LISTED = 50  # files of a table


def render(inspection: Inspection) -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    values = inspection.to_dict()
    lead = f"{values['used']:,} used, {values['ignored']:,} ignored, {values['broken']:,} broken"
    files = values["files"]
    copies = [[" = ".join(paths)] for paths in files["copies"]]
    conflicts = [[row["path"], row["label"]] for group in files["conflicts"] for row in group]
    return pages.plain(
        values["source"] or "images",
        f"{lead}; {count(values['classes'], 'class', 'classes')}.",
        [
            _classes(inspection),
            Section("Sizes in pixels", rows=[["", "smallest", "median", "largest"], *_sizes(values["sizes"])]),
            Section("Formats", rows=[["", "images"], *([name, f"{n:,}"] for name, n in values["formats"].items())]),
            _list("Broken files", ["file", "reason"], [[row["path"], row["reason"]] for row in files["broken"]]),
            _list("The same picture under several labels", ["file", "label"], conflicts),
            _list("The same picture in several files", ["files"], copies),
            _list(
                "Converted, or left out, so that other programs may show other pixels",
                ["file", "what"],
                [[row["path"], row["reason"]] for row in files["remarks"]],
            ),
            _list("Ignored files", ["file", "reason"], [[row["path"], row["reason"]] for row in files["ignored"]]),
        ],
    )


def _classes(inspection: Inspection) -> Section:
    index = inspection.index
    parts = {part: rows.class_counts for part in PARTS if (rows := index.part(part))} or {"images": index.class_counts}
    picture = pages.picture(plots.class_counts(parts)) if index.class_counts else ""
    return Section("Images of each class", picture)


def _sizes(sizes: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    return [[side, *(f"{values[kind]:,}" for kind in ("min", "median", "max"))] for side, values in sizes.items()]


def _list(title: str, titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> Section:
    more = f"and {len(rows) - LISTED:,} more" if len(rows) > LISTED else ""
    return Section(f"{title} ({len(rows):,})", rows=[titles, *rows[:LISTED]], numbers=False, more=more)
