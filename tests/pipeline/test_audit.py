"""An audit of a folder whose faults were put there."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from tests.conftest import PLAIN

from regraft.core.errors import DataError, UsageError
from regraft.core.options import change, make
from regraft.data.read import read
from regraft.pipeline.inspect import inspect as look
from regraft.pipeline.options import AuditOptions

OPTIONS = make(AuditOptions, {**PLAIN, "size": 64})


def inspect(source, **options):
    return look(source, deep=True, options=change(OPTIONS, **options))


BICUBIC = Image.Resampling.BICUBIC
COLOURS = {"red": (255, 70, 50), "green": (60, 255, 80), "blue": (70, 60, 255), "grey": (250, 250, 250)}


def scene(kind, seed, side=96):
    """A picture of shapes large and small, never twice the same, in the colour of its kind."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (cells, cells), np.uint8)).resize((side, side), BICUBIC))
        for cells in (5, 17, 60)
    ]
    grey = np.average(layers, axis=0, weights=(5, 3, 1))[..., None] / 255
    return Image.fromarray((grey * COLOURS[kind]).astype(np.uint8))


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def source(tmp_path):
    """Three kinds of scene, twelve each, and one of every fault."""
    folder = tmp_path / "photos"
    for position, kind in enumerate(("red", "green", "blue")):
        for number in range(12):
            save(scene(kind, 100 * position + number), folder / kind / f"{number:02}.png")
    save(scene("red", 900), folder / "green" / "wrong.png")
    crop = ImageOps.mirror(scene("green", 101)).crop((6, 4, 92, 90)).resize((70, 70))
    save(crop, folder / "green" / "crop of 01.jpg")
    save(scene("blue", 203).resize((48, 48)), folder / "red" / "blue small.png")
    save(ImageEnhance.Brightness(scene("red", 7)).enhance(0.7), folder / "red" / "07 darker.png")
    (folder / "red" / "copy.png").write_bytes((folder / "red" / "05.png").read_bytes())
    (folder / "green" / "blue 07.png").write_bytes((folder / "blue" / "07.png").read_bytes())
    (folder / "green" / "cut.png").write_bytes((folder / "green" / "00.png").read_bytes()[:-40])
    return folder


def hashes(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_every_fault_is_found_and_no_file_is_touched(source):
    before = hashes(source)
    audit = inspect(source)
    groups = [{row.path for row in duplicates.rows} for duplicates in audit.duplicates]
    assert sorted(map(sorted, groups)) == [
        ["blue/03.png", "red/blue small.png"],
        ["blue/07.png", "green/blue 07.png"],
        ["green/01.png", "green/crop of 01.jpg"],
        ["red/05.png", "red/copy.png"],
    ]
    possible = [sorted(row.path for row in duplicates.rows) for duplicates in audit.possible]
    assert possible == [["red/07 darker.png", "red/07.png"]]
    assert {duplicates.action(row) for duplicates in audit.possible for row in duplicates.rows} == {"compare"}
    assert [len(duplicates.labels) for duplicates in audit.duplicates] == [2, 2, 1, 1], (
        "what is under two labels comes first"
    )
    errors = {row.path: error.suggested for error in audit.label_errors for row in error.rows}
    assert errors == {
        "green/wrong.png": "red",
        "green/blue 07.png": "blue",
        "red/blue small.png": "blue",
    }
    assert [row.path for row in audit.inspection.index.broken] == ["green/cut.png"]
    assert hashes(source) == before


def test_what_is_shown_beside_a_finding_is_no_duplicate_of_it(source):
    audit = inspect(source)
    error = next(error for error in audit.label_errors if error.rows[0].path == "green/blue 07.png")
    beside = [row.path for row in error.nearest]
    assert len(beside) == 3
    assert "blue/07.png" not in beside
    assert {row.label for row in error.nearest} == {"blue"}


def test_a_picture_like_no_other_is_an_outlier(source):
    save(scene("grey", 1).point(lambda value: 255 * (value > 120)), source / "green" / "odd.png")
    (source / "green" / "odd copy.png").write_bytes((source / "green" / "odd.png").read_bytes())
    audit = inspect(source)
    assert [row.path for row in audit.outliers[0].rows] == ["green/odd copy.png", "green/odd.png"]


def test_duplicates_across_parts_come_before_others(source, tmp_path):
    parts = tmp_path / "parts"
    for path in sorted(source.rglob("*.png")):
        part = "test" if path.stem in ("00", "01", "copy") else "train"
        save_as = parts / part / path.parent.name / path.name
        save_as.parent.mkdir(parents=True, exist_ok=True)
        save_as.write_bytes(path.read_bytes())
    audit = inspect(parts)
    across = [duplicates for duplicates in audit.duplicates if len(duplicates.parts) > 1]
    assert [[row.path for row in duplicates.rows] for duplicates in across] == [
        ["test/red/copy.png", "train/red/05.png"]
    ]
    assert audit.duplicates.index(across[0]) == 2, "after the two that stand under two labels"


def test_a_second_audit_gives_the_same_as_the_first(source, tmp_path):
    for name in ("first.csv", "second.csv"):
        inspect(source).save(tmp_path / name)
    assert (tmp_path / "first.csv").read_text() == (tmp_path / "second.csv").read_text()
    with (tmp_path / "first.csv").open(newline="") as file:
        assert {record["finding"] for record in csv.DictReader(file)} >= {"duplicate", "near-duplicate", "label error"}


def test_an_index_that_was_read_already_is_taken_as_it_is(source):
    audit = inspect(read(source))
    assert "green/blue 07.png" not in [row.path for duplicates in audit.duplicates for row in duplicates.rows], (
        "it was ignored"
    )
    assert len(audit.duplicates) == 3


def test_conflicts_are_refused_if_they_are_to_be(source):
    with pytest.raises(DataError, match="also has another label"):
        inspect(source, conflicts="error")


def test_a_cut_below_all_features_is_refused(source):
    with pytest.raises(UsageError, match="expected a --cut above the input"):
        inspect(source, cut="input")


@pytest.mark.parametrize("counts", [{"green": 1}, {"green": 2, "blue": 1}, {"red": 12}, {"green": 12, "blue": 3}])
def test_few_pictures_or_classes_are_looked_at_as_far_as_they_go(tmp_path, counts):
    for kind, count in counts.items():
        for number in range(count):
            save(scene(kind, number), tmp_path / "photos" / kind / f"{number}.png")
    audit = inspect(tmp_path / "photos")
    assert audit.label_errors == ()
    assert audit.notes == ("No label was checked: that takes two classes of 5 separate pictures or more each.",)


def test_a_class_that_is_too_small_is_named_and_the_others_are_checked(source):
    for number in range(3):
        save(scene("grey", number), source / "rare" / f"{number}.png")
    audit = inspect(source)
    assert audit.notes == ("Labels not checked, with fewer than 5 separate pictures each: rare.",)
    assert "green/wrong.png" in [row.path for error in audit.label_errors for row in error.rows]


def test_a_source_of_broken_images_alone_is_reported_and_fails_nothing(tmp_path):
    for number in range(3):
        path = tmp_path / "photos" / "green" / f"{number}.png"
        save(scene("green", number), path)
        path.write_bytes(path.read_bytes()[:-40])
    audit = inspect(tmp_path / "photos")
    assert len(audit.inspection.index.broken) == 3
    assert audit.duplicates == audit.label_errors == audit.outliers == ()
    assert "3 broken" in audit.text()
