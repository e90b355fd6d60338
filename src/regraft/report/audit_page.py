"""The page of an audit: one HTML file with the pictures side by side.

An `Audit` enters, the text of the file leaves. The layout is in `audit.html`.
Pictures are read here, those that are shown, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from regraft.audit.findings import Audit
from regraft.audit.label_errors import LabelError
from regraft.audit.near_duplicates import Duplicates
from regraft.audit.outliers import Outlier
from regraft.core.text import percent
from regraft.data.index import Row
from regraft.report import pages

T = TypeVar("T")

CARDS = 60  # of a section; the CSV lists all
PICTURES = 6  # of a card
SUBJECT_SIDE, BESIDE_SIDE = 320, 200  # pixels of what is to be decided about, and of what it is compared with

CONFLICTS = (
    "One picture has several labels, in equal or nearly equal files. Decide which label is right and remove "
    "the other files; if they stay, the model is trained on both."
)
LEAKS = (
    "One picture is in several parts. The model is then tested on pictures that it was trained on, and the measured "
    "accuracy is too high. The first file is the one to keep."
)
DUPLICATES = (
    "One picture counts several times, in equal or nearly equal files. The first file is the one to keep. "
    "They never stand on two sides of a split that regraft makes."
)
POSSIBLE = (
    "Perhaps one picture, framed, lightened, tilted, under a bar or cropped. They count each for itself; if it is one "
    "picture, keep one of them, so that it does not stand on two sides of a split."
)
LABEL_ERRORS = (
    "Each picture was classified by models that were not trained on it. These look more like another class: as much "
    "as that class's own pictures do on average, or more than like their own by 50 percentage points. Beside each are "
    "the pictures most like it."
)
OUTLIERS = (
    "These are farther from all others than most pictures are from theirs: perhaps a drawing among photographs, a "
    "screenshot, or something of no class. Beside each are the pictures most like it."
)


class Picture(NamedTuple):
    """One picture of a card, with all of its files there that have equal bytes."""

    rows: Sequence[Row]
    thumbnail: bytes | None  # None if there is no picture to show


class Card(NamedTuple):
    """Pictures to be looked at together.

    subject: the pictures it is about; beside: those to compare them with; more: how many are not shown.
    """

    title: str
    subject: Sequence[Picture]
    beside: Sequence[Picture]
    more: int


class Section(NamedTuple):
    """One kind of finding; `total` is how many there are, of which `cards` shows the first."""

    title: str
    about: str
    total: int
    cards: Sequence[Card]


def render(audit: Audit, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    sections = [section for section in _sections(audit) if section.total]
    made = pages.made(command, audit.inspection.index.name, seed=audit.seed)
    return pages.page("audit.html", audit=audit, sections=sections, made=made)


def _sections(audit: Audit) -> Iterator[Section]:
    conflicts = [duplicates for duplicates in audit.duplicates if len(duplicates.labels) > 1]
    agreeing = [duplicates for duplicates in audit.duplicates if len(duplicates.labels) == 1]
    leaks = [duplicates for duplicates in agreeing if len(duplicates.parts) > 1]
    others = [duplicates for duplicates in agreeing if len(duplicates.parts) <= 1]
    yield _section("One picture, several labels", CONFLICTS, conflicts, _duplicates_card)
    yield _section("One picture, several parts", LEAKS, leaks, _duplicates_card)
    yield _section("Perhaps one picture", POSSIBLE, audit.possible, _duplicates_card)
    yield _section("Likely label errors", LABEL_ERRORS, audit.label_errors, _label_error_card)
    yield _section("Outliers", OUTLIERS, audit.outliers, _outlier_card)
    yield _section("Other duplicates", DUPLICATES, others, _duplicates_card)


def _section(title: str, about: str, findings: Sequence[T], card: Callable[[T], Card]) -> Section:
    return Section(title, about, len(findings), [card(finding) for finding in findings[:CARDS]])


def _duplicates_card(duplicates: Duplicates) -> Card:
    return Card(
        "equal files" if duplicates.equal else "nearly equal files" if duplicates.certain else "alike",
        _pictures(duplicates.rows[:PICTURES]),
        (),
        max(0, len(duplicates.rows) - PICTURES),
    )


def _label_error_card(error: LabelError) -> Card:
    label, suggested = (f"{percent(value, 0)} %" for value in (error.label_probability, error.probability))
    title = f"looks like {error.suggested}, {suggested}; as labelled, {label}"
    return Card(title, _pictures(error.rows[:1]), _pictures(error.nearest, BESIDE_SIDE), 0)


def _outlier_card(outlier: Outlier) -> Card:
    return Card(
        f"distance {outlier.distance:.2f}", _pictures(outlier.rows[:1]), _pictures(outlier.nearest, BESIDE_SIDE), 0
    )


def _pictures(rows: Sequence[Row], side: int = SUBJECT_SIDE) -> list[Picture]:
    files: dict[str, list[Row]] = {}
    for row in rows:
        files.setdefault(row.id or row.path, []).append(row)
    return [Picture(equal, pages.thumbnail_of(equal[0], side)) for equal in files.values()]
