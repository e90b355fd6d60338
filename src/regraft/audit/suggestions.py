"""What to label next: the photographs that are suggested, and those that are not to be labelled, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from regraft.core.results import Result
from regraft.core.text import count, csv_text, percent, printable, rest_line, table
from regraft.data.index import Index
from regraft.model.predict import Prediction

COLUMNS = ("number", "path", "label", "predicted", "percent", "certainty")
LISTED = 20  # on a terminal
LABELLED = "has a label already"


@dataclass(frozen=True, kw_only=True, repr=False)
class Suggestions(Result):
    """Photographs to label next, the least certain first.

    index:       all photographs; what is not to be labelled is ignored (it has a label, it is a copy) or broken.
    predictions: of those that are suggested.
    certainty:   of each of them, from 0 to 1.
    """

    index: Index
    predictions: tuple[Prediction, ...]
    certainty: tuple[float, ...]

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Suggestions: {self.summary()}>"

    def __len__(self) -> int:
        return len(self.predictions)

    def summary(self) -> str:
        """Return in a line how many are suggested, and of how many."""
        labelled = sum(row.reason == LABELLED for row in self.index.ignored)
        left_out = {
            "with a label already": labelled,
            "copies": len(self.index.ignored) - labelled,
            "broken": len(self.index.broken),
        }
        listed = "".join(f", {number:,} {what}" for what, number in left_out.items() if number)
        return f"{count(len(self), 'photograph')} to label, of {len(self.index.used):,} without a label{listed}"

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return for each its path, the predicted label, the probability in per cent, and how certain that is."""
        return [
            (item.path, item.label, percent(item.ranked[0][1]), f"{certainty:.2f}")
            for item, certainty in zip(self.predictions, self.certainty, strict=True)
        ]

    def text(self) -> str:
        """Return them as lines for a terminal, the least certain first."""
        lines = [["", "predicted", "%", "certainty"], *map(list, self.rows()[:LISTED])] if self.predictions else []
        broken = [f"  {printable(row.path)}: {row.reason}" for row in self.index.broken.rows[:LISTED]]
        broken = ["Broken:", *broken, *rest_line(self.index.broken, LISTED)] if broken else []
        shown = table(lines, left=2) if lines else []
        return "\n".join([f"{self.summary()}.", *shown, *rest_line(self.predictions, LISTED), *broken])

    def to_dict(self) -> dict[str, Any]:
        """Return them as JSON-able data, with what is left out and why."""
        left_out = [row for row in self.index if row.status != "used"]
        return {
            "suggestions": [
                {**item.to_dict(), "certainty": float(f"{certainty:.6g}")}
                for item, certainty in zip(self.predictions, self.certainty, strict=True)
            ],
            "left_out": [{"path": row.path, "status": row.status, "reason": row.reason} for row in left_out],
        }

    def csv(self, *, formulas: bool = False) -> str:
        """Return a line for each, with an empty column for its label: filled in, `regraft train` reads it."""
        lines = [(number, path, "", *more) for number, (path, *more) in enumerate(self.rows(), start=1)]
        return csv_text([COLUMNS, *lines], formulas=formulas)

    def formats(self) -> dict[str, Callable[[], str]]:
        """Return what gives the text of a file, by its name's ending."""
        return {**super().formats(), ".csv": self.csv}
