"""Findings as JSON, text and CSV, against what was put in."""

from __future__ import annotations

import csv
import json

import pytest
from rich.cells import cell_len

from regraft.audit.findings import COLUMNS, Audit
from regraft.audit.label_errors import LabelError
from regraft.audit.near_duplicates import Duplicates
from regraft.audit.outliers import Outlier
from regraft.core.errors import UsageError
from regraft.data.index import Index, Row
from regraft.data.inspect import Inspection


def row(path, label="cat", id="", part=None, size=(10, 10)):
    return Row(path=path, location=None, id=id or path, label=label, part=part, format="PNG", size=size)


EQUAL = Duplicates.of([row("b.png", id="1"), row("a.png", id="1")])
NEAR = Duplicates.of([row("small.png", size=(5, 5)), row("large.png", size=(9, 9)), row("again.png", size=(5, 5))])
CONFLICT = Duplicates.of([row("x/p.png", "cat"), row("y/p.png", "dog")])
ACROSS = Duplicates.of(
    [row("t.png", part="train", size=(90, 90)), row("v.png", part="validation"), row("z.png", part="test")]
)
ERROR = LabelError((row("odd.png"), row("odd copy.png", id="odd.png")), "dog", 0.875, 0.125, (row("n.png", "dog"),))
OUTLIER = Outlier((row("far.png", "dog", part="test"),), 0.75, (row("near.png"),))


def audit(*duplicates, label_errors=(ERROR,), outliers=(OUTLIER,), notes=()):
    rows = [row for finding in (*duplicates, *label_errors, *outliers) for row in finding.rows]
    return Audit(Inspection(Index(tuple(rows), "photos")), duplicates, label_errors, outliers, notes)


def test_the_csv_has_a_row_for_each_file_of_each_finding(tmp_path):
    audit(CONFLICT, ACROSS, EQUAL).save(tmp_path / "findings.csv")
    with (tmp_path / "findings.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    assert [
        tuple(record[name] for name in ("finding", "number", "path", "action", "beside")) for record in records
    ] == [
        ("near-duplicate", "1", "x/p.png", "decide the label", ""),
        ("near-duplicate", "1", "y/p.png", "decide the label", "x/p.png"),
        ("near-duplicate", "2", "z.png", "keep", ""),
        ("near-duplicate", "2", "v.png", "remove", "z.png"),
        ("near-duplicate", "2", "t.png", "remove", "z.png"),
        ("duplicate", "3", "a.png", "keep", ""),
        ("duplicate", "3", "b.png", "remove", "a.png"),
        ("label error", "1", "odd.png", "check the label", "n.png"),
        ("label error", "1", "odd copy.png", "check the label", "n.png"),
        ("outlier", "1", "far.png", "look", "near.png"),
    ]
    assert (records[-1]["label"], records[-1]["part"], records[-1]["score"]) == ("dog", "test", "0.7500")
    assert (records[-2]["suggested"], records[-2]["score"]) == ("dog", "0.8750")


def test_paths_of_every_kind_come_back_from_the_csv(tmp_path):
    names = ["comma, name.png", 'quote".png', "写真.png", "line\nbreak.png", "not \udcff text.png"]
    audit(Duplicates.of([row(name) for name in names])).save(tmp_path / "findings.csv")
    with (tmp_path / "findings.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        assert {record["path"] for record in csv.DictReader(file)} >= set(names)


def test_an_earlier_csv_of_findings_is_replaced_and_another_file_is_not(tmp_path):
    path = tmp_path / "findings.csv"
    audit(EQUAL).save(path)
    audit(label_errors=(), outliers=()).save(path, overwrite=True)
    assert path.read_text() == ",".join(COLUMNS) + "\n"
    path.write_text("path,label\na.png,cat\n")
    with pytest.raises(UsageError, match="was not written by regraft"):
        audit(EQUAL).save(path)
    assert path.read_text().startswith("path,label")


def test_the_json_has_the_plain_inspection_and_the_findings():
    plain = Inspection(Index((*EQUAL.rows, *NEAR.rows, *ERROR.rows, *OUTLIER.rows), "photos"))
    values = Audit(plain, (NEAR, EQUAL), (ERROR,), (OUTLIER,), ("a note",)).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["used"] == 8
    assert {name: values[name] for name in ("copies", "near_duplicates", "label_errors", "outliers")} == {
        "copies": 2,
        "near_duplicates": 1,
        "label_errors": 1,
        "outliers": 1,
    }
    assert values["files"]["near_duplicates"] == [
        [
            {"path": "large.png", "label": "cat", "part": None, "action": "keep"},
            {"path": "again.png", "label": "cat", "part": None, "action": "remove"},
            {"path": "small.png", "label": "cat", "part": None, "action": "remove"},
        ]
    ]
    assert [file["path"] for file in values["files"]["label_errors"]] == ["odd.png", "odd copy.png"]
    assert values["files"]["outliers"] == [{"path": "far.png", "label": "dog", "part": "test", "distance": 0.75}]
    assert values["notes"] == ["a note"]


def test_the_text_has_each_finding():
    text = audit(CONFLICT, ACROSS, NEAR, EQUAL, notes=("something was not checked",)).text()
    for words in (
        "2 pictures in more than one file",  # of the plain inspection: equal bytes
        "3 pictures with near-duplicates (saved again, resized, mirrored, cropped)\n",
        "  x/p.png = y/p.png\n      in cat, dog\n",
        "  z.png = v.png and 1 more\n      in train, validation, test\n",
        "  large.png = again.png and 1 more\n",
        "1 likely label error (looks more like another class)\n  odd.png\n      labelled cat, looks like dog (88 %)\n",
        "1 outlier (unlike all other pictures)\n  far.png\n",
        "Note: something was not checked",
    ):
        assert words in text


def test_no_findings_are_counted_too():
    text = audit(label_errors=(), outliers=()).text()
    assert "0 pictures with near-duplicates" in text
    assert "0 likely label errors" in text
    assert "0 outliers" in text


@pytest.mark.parametrize("width", [40, 80, 133])
def test_no_line_is_wider_than_the_terminal_and_none_holds_a_control_character(width):
    names = ["a long folder name/" * 9, "写真" * 40, "\x1b[2J\r\n\u202e\udcff" * 9]
    rows = [row(f"{name}{number}.png", f"{name}{number % 2}") for name in names for number in range(12)]
    duplicates = [Duplicates.of(rows[at : at + 3]) for at in range(0, len(rows), 3)]
    errors = [LabelError((row,), names[1], 0.5, 0.25) for row in rows]
    text = audit(*duplicates, label_errors=errors, outliers=[Outlier((row,), 1.0) for row in rows], notes=names).text(
        width
    )
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "and 26 more; --json lists all" in text


def test_the_repr_is_one_line():
    counts = "1 picture with near-duplicates; 0 possible duplicates; 1 likely label error; 1 outlier"
    assert repr(audit(NEAR)) == f"<Audit of photos: {counts}>"
