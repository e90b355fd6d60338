"""The page of a source that was inspected unit by unit: its counts and lists, without pictures."""

from __future__ import annotations

from regraft.data.inspect_units import UnitInspection
from regraft.report import inspection_page
from regraft.report.pages import Section


def render(inspection: UnitInspection, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    values = inspection.to_dict()
    classes = [["", "images"], *([name, f"{number:,}"] for name, number in values["classes"].items())]
    notes = [["note"], *([note] for note in values["notes"])]
    return inspection_page.page(
        values, command, [Section("Notes", rows=notes), Section("Images of each class", rows=classes)]
    )
