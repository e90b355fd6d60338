"""The page of what to label next: the photographs, the least certain first, and the broken ones."""

from __future__ import annotations

from regraft.audit.suggestions import Suggestions
from regraft.core.text import percent
from regraft.report import pages
from regraft.report.pages import Photo, Section

SHOWN = 200  # photographs; the CSV has all
ABOUT = (
    "Those that the model is least certain of, and that are unlike each other. A photograph that is of none of the "
    "classes is best left out, or labelled as a class of its own."
)


def render(suggestions: Suggestions, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    rows = {row.path: row for row in suggestions.index.used}
    photos = [
        Photo(pages.thumbnail_of(rows[item.path]), f"{number}. {_answer(item.ranked)}", item.path)
        for number, item in enumerate(suggestions.predictions[:SHOWN], start=1)
    ]
    more = len(suggestions) - len(photos)
    broken = suggestions.index.broken
    sections = [
        Section("Photographs", photos=photos, about=ABOUT, more=f"and {more:,} more; the CSV has all" if more else ""),
        Section("Broken", rows=[["File", "Why"], *([row.path, row.reason] for row in broken)], total=len(broken)),
    ]
    made = pages.made(command, suggestions.index.name)
    return pages.plain("What to label next", f"{suggestions.summary()}.", sections, made)


def _answer(ranked: tuple[tuple[str, float], ...]) -> str:
    return " or ".join(f"{label} {percent(probability, 0)} %" for label, probability in ranked[:2])
