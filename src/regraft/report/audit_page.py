"""The page of a deep inspection: one HTML file with the pictures side by side.

A `Audit` enters, the text of the file leaves. The layout is in
`audit.html`. Pictures are read here, those that are shown, one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from PIL import Image

from regraft.audit.findings import Audit, Duplicates, LabelError, Outlier
from regraft.audit.near_duplicates import ALIKE
from regraft.core.text import percent
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import Row
from regraft.report import pages

T = TypeVar("T")

SHOWN_CARDS = 60  # of a section; the CSV lists all
SHOWN_PICTURES = 6  # of a card

CONFLICTS = (
    "One picture stands under several labels, in equal or nearly equal files. Decide which label is right and remove "
    "the other files; left as they are, they teach both."
)
ACROSS = (
    "One picture stands in several parts. What was trained on is then tested on, and the measured accuracy is too "
    "high. The file in front is the one to keep."
)
COPIES = (
    "One picture, in equal or nearly equal files, counts several times. The file in front is the one to keep. Files "
    "with equal bytes never stand on two sides of a split that regraft draws; nearly equal ones can."
)
SUSPECTS = (
    "Each picture was judged by models that had not seen it. These look more like another class: as surely as that "
    "class's own pictures do on average, or more surely than like their own by a half. Beside each are the pictures "
    "most like it."
)
OUTLIERS = (
    "These are farther from all others than most pictures are from theirs: perhaps a drawing among photographs, a "
    "screenshot, or something of no class. Beside each are the pictures most like it."
)


class Shown(NamedTuple):
    """One picture of a card."""

    row: Row
    thumbnail: bytes | None  # JPEG; None if there is no picture to show


class Card(NamedTuple):
    """Pictures to be looked at together.

    first: the pictures it is about; beside: those to compare them with; more: pictures that are not shown.
    """

    title: str
    first: Sequence[Shown]
    beside: Sequence[Shown]
    more: int


class Section(NamedTuple):
    """One kind of finding; `total` tells how many there are, of which `cards` shows the first."""

    title: str
    about: str
    total: int
    cards: Sequence[Card]


def render(found: Audit) -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    return pages.page("audit.html", found=found, sections=[it for it in _sections(found) if it.total], alike=ALIKE)


def _sections(found: Audit) -> Iterator[Section]:
    conflicts = [copies for copies in found.duplicates if len(copies.labels) > 1]
    across = [copies for copies in found.duplicates if len(copies.labels) == 1 and len(copies.parts) > 1]
    others = [copies for copies in found.duplicates if len(copies.labels) == 1 and len(copies.parts) <= 1]
    yield _section("One picture, several labels", CONFLICTS, conflicts, _copies_card)
    yield _section("One picture, several parts", ACROSS, across, _copies_card)
    yield _section("Labels in doubt", SUSPECTS, found.label_errors, _suspect_card)
    yield _section("Far from all others", OUTLIERS, found.outliers, _outlier_card)
    yield _section("Other copies", COPIES, others, _copies_card)


def _section(title: str, about: str, things: Sequence[T], card: Callable[[T], Card]) -> Section:
    return Section(title, about, len(things), [card(thing) for thing in things[:SHOWN_CARDS]])


def _copies_card(copies: Duplicates) -> Card:
    return Card(
        "equal files" if copies.equal else "nearly equal files",
        _shown(copies.rows[:SHOWN_PICTURES]),
        (),
        max(0, len(copies.rows) - SHOWN_PICTURES),
    )


def _suspect_card(suspect: LabelError) -> Card:
    suggested, labelled = percent(suspect.probability, 0), percent(suspect.of_label, 0)
    title = f"seen as {suspect.suggested}, {suggested} %; as labelled, {labelled} %"
    return Card(title, _shown(suspect.rows[:1]), _shown(suspect.nearest), 0)


def _outlier_card(outlier: Outlier) -> Card:
    return Card(f"distance {outlier.distance:.2f}", _shown(outlier.rows[:1]), _shown(outlier.nearest), 0)


def _shown(rows: Sequence[Row]) -> list[Shown]:
    return [Shown(row, _thumbnail(row)) for row in rows]


def _thumbnail(row: Row) -> bytes | None:
    """Return a small picture of a row; None if its file has gone or changed since."""
    try:
        return pages.thumbnail(Image.fromarray(decode(row.location.read(), least=pages.THUMBNAIL_SIDE)))
    except (OSError, ValueError, BrokenImage):
        return None
