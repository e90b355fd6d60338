"""What an audit of labelled images found, as JSON, as lines for a terminal and as a CSV to act on.

The findings enter, each from its own file of this folder. The page with the
pictures is left to `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from regraft.audit.label_errors import LabelError
from regraft.audit.near_duplicates import Duplicates
from regraft.audit.outliers import Outlier
from regraft.core.results import Result
from regraft.core.text import count, csv_text, rest_line, shorten
from regraft.data.inspect import Inspection

COLUMNS = ("finding", "number", "path", "label", "part", "action", "suggested", "score", "beside")
LISTED = 10  # of each finding on a terminal

Findings = Sequence[Duplicates | LabelError | Outlier]


@dataclass(frozen=True, repr=False)
class Audit(Result):
    """What needs a second look in labelled images.

    inspection:   what is known without their features.
    duplicates:   those under several labels first, then those in several parts, then in the source's order.
    possible:     pairs that may show one picture; they are not tied.
    label_errors: the most certain first.
    outliers:     the farthest first.
    notes:        what was not checked, and why.
    seed:         of the folds by which label errors are found.
    """

    inspection: Inspection
    duplicates: tuple[Duplicates, ...] = ()
    label_errors: tuple[LabelError, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    notes: tuple[str, ...] = ()
    seed: int = 0
    possible: tuple[Duplicates, ...] = ()

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Audit of {self.inspection.index.name}: {'; '.join(self.counts)}>"

    @property
    def near_duplicates(self) -> tuple[Duplicates, ...]:
        """The duplicates that do not all have equal bytes."""
        return tuple(duplicates for duplicates in self.duplicates if not duplicates.equal)

    @property
    def counts(self) -> tuple[str, str, str, str]:
        """How many there are of each finding, in words."""
        return (
            count(self.near_duplicates, "picture") + " with near-duplicates",
            count(self.possible, "possible duplicate"),
            count(self.label_errors, "likely label error"),
            count(self.outliers, "outlier"),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what the plain inspection gives, and the counts and files of these findings, as JSON-able data.

        Files that all have equal bytes stand under "copies" alone.
        """
        inspected = self.inspection.to_dict()
        kinds: dict[str, Findings] = {
            "near_duplicates": self.near_duplicates,
            "possible_duplicates": self.possible,
            "label_errors": self.label_errors,
            "outliers": self.outliers,
        }
        lists = {
            "near_duplicates": [duplicates.files() for duplicates in self.near_duplicates],
            "possible_duplicates": [duplicates.files() for duplicates in self.possible],
            "label_errors": [file for error in self.label_errors for file in error.files()],
            "outliers": [file for outlier in self.outliers for file in outlier.files()],
        }
        return {
            **inspected,
            **{name: len(findings) for name, findings in kinds.items()},
            "notes": list(self.notes),
            "files": {**inspected["files"], **lists},
        }

    def text(self, width: int = 80) -> str:
        """Return all findings as plain text, no line wider than `width` columns (40 at least)."""
        width = max(width, 40)
        duplicates, possible, errors, outliers = self.counts
        blocks = [
            self.inspection.text(width, near_duplicates=False).rstrip("\n"),
            _block(f"{duplicates} (saved again, resized, mirrored, cropped)", self.near_duplicates, width),
            _block(f"{possible} (perhaps framed, lightened, tilted; each counts for itself)", self.possible, width),
            _block(f"{errors} (looks more like another class)", self.label_errors, width),
            _block(f"{outliers} (unlike all other pictures)", self.outliers, width),
            *("\n".join(shorten(line, width) for line in wrap(f"Note: {note}", width)) for note in self.notes),
        ]
        return "\n\n".join(blocks) + "\n"

    def formats(self) -> dict[str, Callable[[], str]]:
        """Return what gives the text of a file, by its name's ending; .csv has a row for each file of each finding."""
        return {**super().formats(), ".csv": self.csv}

    def csv(self, *, formulas: bool = False) -> str:
        """Return a CSV with a row for each file of each finding; `formulas` as `core/text.csv_text` has it."""
        return csv_text([COLUMNS, *self._records()], formulas=formulas)

    def _records(self) -> Iterator[tuple[object, ...]]:
        names = ["duplicate" if duplicates.equal else "near-duplicate" for duplicates in self.duplicates]
        yield from _records(names, self.duplicates)
        yield from _records(["possible duplicate"] * len(self.possible), self.possible)
        yield from _records(["label error"] * len(self.label_errors), self.label_errors)
        yield from _records(["outlier"] * len(self.outliers), self.outliers)


def _block(title: str, findings: Findings, width: int) -> str:
    lines = [line for finding in findings[:LISTED] for line in finding.lines(width)]
    return "\n".join([*wrap(title, width), *lines, *rest_line(findings, LISTED)])


def _records(names: Sequence[str], findings: Findings) -> Iterator[tuple[object, ...]]:
    for number, (name, finding) in enumerate(zip(names, findings, strict=True), start=1):
        for row, *rest in finding.records():
            yield name, number, row.path, row.label or "", row.part or "", *rest
