"""Near-duplicates on the way from a folder to a report: tied wherever something is split, counted, and told."""

from __future__ import annotations

import logging

import pytest
from tests.conftest import PLAIN
from tests.data.pictures import saved, scene

import regraft
from regraft.core.errors import UsageError

SMALL = {"backbone": "mobilenetv3_small_050", "weights": "random", "size": 32, "views": 0, **PLAIN}


def write(folder, count, versions):
    """Write scenes of two classes, each beside as many versions of it, saved again with a comment or at a quality."""
    for position, label in enumerate(("cat", "dog")):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            image = scene(1000 * position + number, (96, 72))
            image.save(folder / label / f"{number:03}.jpg", quality=90)
            for version in range(versions):
                options = {"quality": 90, "comment": b"scanned"} if version == 0 else {"quality": 80 - 5 * version}
                saved(image, quality=90).save(folder / label / f"{number:03} again {version}.jpg", **options)
    return folder


def sides(index):
    """Return the parts of the files of each picture, by the number in their names."""
    parts = {}
    for row in index.used:
        parts.setdefault(row.path.split(".")[0].split(" ")[0], set()).add(row.part)
    return parts


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write(tmp_path_factory.mktemp("pairs") / "photos", 20, 1)


def test_a_comment_in_a_jpeg_does_not_put_a_pair_on_two_sides(pairs):
    index = regraft.split(pairs, seed=1, split="0.5/0.5")
    assert all(len(parts) == 1 for parts in sides(index).values())
    assert len({row.id for row in index.used}) == 80, "the bytes differ"
    ignored = regraft.split(pairs, seed=1, split="0.5/0.5", near_duplicates="ignore")
    assert sum(len(parts) == 2 for parts in sides(ignored).values()) > 5


def test_training_ties_them_and_says_how_many_there_are(pairs, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "regraft"):
        report = regraft.train(pairs, tmp_path / "model", split="0.5/0.5", **SMALL)
    assert "40 near-duplicates" in caplog.text
    assert all(len(parts) == 1 for parts in sides(report.source).values())
    assert (report.evaluation.n, report.evaluation.pictures) == (40, 20)
    assert "40 images show 20 pictures" in report.text()


def test_cross_validation_ties_them_and_counts_each_picture_once(tmp_path):
    photos = write(tmp_path / "photos", 6, 3)
    report = regraft.train(photos, tmp_path / "model", **SMALL)
    assert report.part == "cross-validation"
    assert (report.evaluation.n, report.evaluation.pictures) == (48, 12)
    again = regraft.evaluate(regraft.load(tmp_path / "model"), photos)
    assert again.evaluation.accuracy_interval == report.evaluation.accuracy_interval
    assert again.evaluation.pictures == 12


def test_a_comparison_counts_each_picture_once(tmp_path):
    photos = write(tmp_path / "photos", 6, 1)
    compared = regraft.compare(photos, backbones="mobilenetv3_small_050", weights="random", size=32, **PLAIN)
    assert (compared.images, compared.separate) == (24, 12)


def test_inspect_lists_them(pairs):
    inspection = regraft.inspect(pairs)
    values = inspection.to_dict()
    assert (values["copies"], values["near_duplicates"]) == (0, 40)
    assert ["cat/000 again 0.jpg", "cat/000.jpg"] in map(sorted, values["files"]["near_duplicates"])
    assert "40 pictures saved again, resized, mirrored or cropped" in inspection.text()


def test_an_unknown_choice_is_refused(pairs):
    with pytest.raises(UsageError, match="near-duplicates"):
        regraft.split(pairs, near_duplicates="merge")
