"""Which files show one picture, and which of them is to be kept; what one picture is stands in test_similar."""

from __future__ import annotations

from dataclasses import replace

from regraft.audit.near_duplicates import Duplicates, find
from regraft.data.index import Row

ROW = Row(path="", location=None, label="cat", format="PNG", size=(10, 10))


def test_files_of_one_picture_are_together_and_those_under_two_labels_come_first():
    rows = [replace(ROW, path=path, id=path) for path in ("a", "b", "c", "d", "e")]
    rows[1] = replace(rows[1], version_of="a")
    rows[3] = replace(rows[3], version_of="c", label="dog")
    assert [[row.path for row in files.rows] for files in find(rows)] == [["c", "d"], ["a", "b"]]


def duplicates(*rows):
    return Duplicates.of([replace(ROW, id=row["path"], **row) for row in rows])


def test_the_largest_of_the_last_part_is_kept():
    sizes = duplicates(
        {"path": "small.png", "size": (5, 5)},
        {"path": "large.png", "size": (9, 9)},
        {"path": "again.png", "size": (5, 5)},
    )
    assert [row.path for row in sizes.rows] == ["large.png", "again.png", "small.png"]
    assert [sizes.action(row) for row in sizes.rows] == ["keep", "remove", "remove"]
    parts = duplicates(
        {"path": "t.png", "part": "train", "size": (90, 90)},
        {"path": "v.png", "part": "validation"},
        {"path": "z.png", "part": "test"},
    )
    assert [row.path for row in parts.rows] == ["z.png", "v.png", "t.png"]


def test_files_under_two_labels_are_for_people_to_decide():
    conflict = duplicates({"path": "x/p.png", "label": "cat"}, {"path": "y/p.png", "label": "dog"})
    assert {conflict.action(row) for row in conflict.rows} == {"decide the label"}
