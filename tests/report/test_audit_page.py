"""The page of an audit, read back as a browser would."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import pytest
from PIL import Image
from tests.report.browser import Reader

from regraft.audit.findings import Audit
from regraft.audit.label_errors import LabelError
from regraft.audit.near_duplicates import Duplicates
from regraft.audit.outliers import Outlier
from regraft.data.index import Index, Row
from regraft.data.inspect import Inspection
from regraft.report import audit_page


@dataclass(frozen=True)
class Painted:
    """A location that holds a picture of one colour; without a colour, what is no picture."""

    colour: str | None

    def read(self):
        file = io.BytesIO()
        if self.colour:
            Image.new("RGB", (300, 200), self.colour).save(file, "PNG")
        return file.getvalue()


def row(path, label="cat", part=None, colour="red"):
    return Row(path=path, location=Painted(colour), id=path, label=label, part=part, format="PNG", size=(300, 200))


def audit(duplicates=(), label_errors=(), outliers=(), notes=(), name="photos"):
    rows = [row for finding in (*duplicates, *label_errors, *outliers) for row in finding.rows]
    return Audit(Inspection(Index(tuple(rows), name)), duplicates, label_errors, outliers, notes)


def colour(address):
    data = base64.b64decode(address.removeprefix("data:image/webp;base64,"))
    return max(Image.open(io.BytesIO(data)).convert("RGB").resize((1, 1)).getcolors())[1]


@pytest.fixture
def full():
    duplicates = [
        Duplicates.of([row("x/a.png", "cat"), row("y/a.png", "dog")]),
        Duplicates.of([row("train/b.png", part="train"), row("test/b.png", part="test")]),
        Duplicates.of([row(f"c{number}.png") for number in range(9)]),
    ]
    error = LabelError((row("odd.png", colour="blue"),), "dog", 0.97, 0.02, (row("like odd.png", "dog"),))
    outlier = Outlier((row("far.png", colour="lime"),), 0.61, (row("near far.png"),))
    return audit(duplicates, [error], [outlier], ["A note."])


def test_each_finding_stands_in_its_section_with_its_pictures(full):
    page = Reader(audit_page.render(full))
    titles = ["One picture, several labels", "One picture, several parts", "Likely label errors", "Outliers"]
    assert [heading for heading in page.headings if heading and not heading.isdigit()] == [*titles, "Other duplicates"]
    for words in ("looks like dog, 97 %; as labelled, 2 %", "distance 0.61", "nearly equal files, 3 more", "A note."):
        assert words in page.text
    pictures = {image["alt"]: image["src"] for image in page.all("img")}
    assert {"x/a.png", "y/a.png", "test/b.png", "odd.png", "like odd.png", "far.png", "near far.png"} <= pictures.keys()
    assert colour(pictures["odd.png"])[2] > 240
    assert colour(pictures["far.png"])[1] > 240


def test_the_page_needs_nothing_beside_it(full):
    text = audit_page.render(full)
    assert all(address.startswith("data:image/webp;base64,") for address in Reader(text).pictures())
    assert "http" not in text
    assert "<script" not in text


def test_a_long_section_shows_its_first_cards_and_says_how_many_more():
    errors = [LabelError((row(f"{number}.png", colour=None),), "dog", 0.9, 0.1) for number in range(75)]
    page = Reader(audit_page.render(audit(label_errors=errors)))
    assert page.text.count("looks like dog") == audit_page.CARDS == 60
    assert "and 15 more" in page.text


def test_a_picture_that_can_not_be_read_any_more_is_shown_as_missing():
    page = Reader(audit_page.render(audit(outliers=[Outlier((row("gone.png", colour=None),), 0.5)])))
    assert page.pictures() == []
    assert "no picture" in page.text
    assert "gone.png" in page.text


def test_no_findings_make_a_page_too():
    assert "Nothing needs a second look." in Reader(audit_page.render(audit())).text


def test_names_are_shown_and_never_become_markup():
    evil = "<script>alert(1)</script>\udcff.png"
    duplicates = [Duplicates.of([row(evil, "<b>cat"), row("other.png", "<b>cat")])]
    text = audit_page.render(audit(duplicates, notes=["<i>"], name="<u>photos"))
    assert "<script" not in text
    assert all(name in Reader(text).text for name in ("<b>cat", "<i>", "<u>photos", "<script>alert(1)</script>"))
    text.encode()
