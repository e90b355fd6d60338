"""Which files show one picture, of files made for it; the pixels are compared in test_similarity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.audit.near_duplicates import Duplicates, find_pairs
from regraft.data.index import Row
from regraft.data.read import read

ROW = Row(path="", location=None, label="cat", format="PNG", size=(10, 10))


def noise(seed, path):
    """Write a picture with large shapes and small ones, never twice the same."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8)).resize((96, 96), Image.BICUBIC))
        for cells in (5, 17, 60)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.average(layers, axis=0, weights=(5, 3, 1)).astype(np.uint8)).save(path)


@pytest.fixture
def rows(tmp_path):
    """Six files: four pictures, of which 1 is there again, smaller, as 4 and with equal bytes as 5."""
    for number in range(4):
        noise(number, tmp_path / "cat" / f"{number}.png")
    Image.open(tmp_path / "cat" / "1.png").resize((48, 48)).save(tmp_path / "cat" / "4.png")
    (tmp_path / "cat" / "5.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes())
    return read(tmp_path).used.rows


def all_near(count):
    """Neighbours of which every row has every other, equally near."""
    numbers = np.array([[other for other in range(count) if other != at] for at in range(count)])
    return numbers, np.ones(numbers.shape, np.float32)


def test_pairs_connect_equal_bytes_and_other_versions_of_one_picture(rows):
    pairs = find_pairs(rows, *all_near(6))
    names = [{Path(rows[at].path).stem for at in pair} for pair in pairs]
    assert {"1", "5"} in names and len(names) == 2
    assert set.union(*names) == {"1", "4", "5"}


def test_images_whose_features_are_far_apart_are_not_compared(rows):
    numbers, cosines = all_near(6)
    assert len(find_pairs(rows, numbers, 0.6 * cosines)) == 1, "of equal bytes alone"


def test_files_that_vanish_while_they_are_compared_are_like_no_other(rows):
    for row in rows:
        Path(row.location.path).unlink()
    assert len(find_pairs(rows, *all_near(6))) == 1, "of equal bytes alone"


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
