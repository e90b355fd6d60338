"""Near-duplicates on the way from a folder to a report: tied wherever something is split, counted, and told."""

from __future__ import annotations

import dataclasses
import logging

import pytest
from sklearn.model_selection import KFold, StratifiedGroupKFold, cross_val_score
from tests.conftest import PLAIN
from tests.data.pictures import saved, scene

import regraft
from regraft.core.errors import UsageError
from regraft.features import fingerprints
from regraft.features.store.store import Store

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


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A report of a training without near-duplicates, the folder of a re-saved version of each of its pictures."""
    folder = tmp_path_factory.mktemp("learned")
    for position, label in enumerate(("cat", "dog")):
        for name in ("photos", "saved again", "half new"):
            (folder / name / label).mkdir(parents=True)
        for number in range(12):
            image = scene(500 * position + number, (96, 72))
            image.save(folder / "photos" / label / f"{number}.jpg", quality=90)
            image.save(folder / "saved again" / label / f"{number}.jpg", quality=70)
            half = image if number < 6 else scene(5000 + 500 * position + number, (96, 72))
            half.save(folder / "half new" / label / f"{number}.jpg", quality=70)
    return regraft.train(folder / "photos", folder / "model", split="0.5/0.5", **SMALL), folder


def test_pictures_that_were_trained_on_are_not_new_when_they_are_saved_again(learned):
    report, folder = learned
    again = regraft.evaluate(report.model, folder / "saved again")
    assert (again.part, again.evaluation.n, again.trained_on) == ("test", 12, 0)
    assert {row.path for row in again.index} == {row.path for row in report.index}
    assert any("12 images: a picture that was trained on, saved again" in note for note in again.notes)


def test_new_pictures_are_evaluated_beside_those_that_were_trained_on(learned):
    report, folder = learned
    again = regraft.evaluate(report.model, folder / "half new", part="all")
    trained = sum(row.part == "train" for row in report.source if int(row.path.split("/")[1][:-4]) < 6)
    assert (again.evaluation.n, again.trained_on) == (24, trained)
    assert f"of which {trained} were trained on: no measure" in again.text()
    assert '<p class="number">' not in again.html()
    assert again.to_dict()["trained_on"] == trained


def test_a_model_without_a_test_part_is_measured_on_what_is_new_alone(learned, tmp_path):
    _, folder = learned
    report = regraft.train(folder / "photos", tmp_path / "model", **SMALL)
    assert report.part == "cross-validation"
    again = regraft.evaluate(report.model, folder / "half new")
    assert (again.part, again.evaluation.n, again.trained_on) == ("new images", 12, 0)
    known = regraft.evaluate(report.model, folder / "saved again")
    assert known.trained_on == 24
    assert any("cross-validation, when the model was trained" in note for note in known.notes)


def test_another_store_can_not_tell_them_and_says_so(learned, tmp_path):
    report, folder = learned
    again = regraft.evaluate(report.model, folder / "saved again", store=tmp_path / "store")
    assert again.part == "all"
    assert any("24 images of the training are not in this store" in note for note in again.notes)


def test_features_that_were_never_split_are_tied_before_folds_are_made_of_them(pairs):
    features = regraft.extract(regraft.read(pairs), **SMALL)
    tied = features.with_index(fingerprints.compare(features.index, Store()))
    assert (len(set(features.groups())), len(set(tied.groups()))) == (80, 40)
    assert regraft.fit(features).chosen == regraft.fit(tied).chosen
    apart = features.with_index(dataclasses.replace(features.index, compared=True))
    assert regraft.fit(features).temperature != regraft.fit(apart).temperature


def test_a_history_counts_each_picture_once(tmp_path):
    photos = write(tmp_path / "photos", 24, 3)
    report = regraft.train(photos, tmp_path / "model", split="0.5/0.25/0.25", head="mlp", epochs=5, **SMALL)
    images = {row.part: row.images for row in report.model.history.rows}
    assert images == {"train": 24, "validation": 12}
    assert "Nothing can be read from 12 validation images" in report.text()


def test_scikit_learns_splitters_take_the_groups_and_are_watched_without(pairs, caplog):
    paths = sorted(pairs.rglob("*.jpg"))
    labels = [path.parent.name for path in paths]
    groups = regraft.groups(paths)
    assert len(set(groups.tolist())) == 40
    classifier = regraft.Classifier(**SMALL)
    apart = StratifiedGroupKFold(2)
    assert len(cross_val_score(classifier, paths, labels, groups=groups, cv=apart)) == 2
    assert "were trained on" not in caplog.text
    cross_val_score(classifier, paths, labels, cv=KFold(2, shuffle=True, random_state=0))
    assert "or other versions of them, were trained on, so that the score is too high" in caplog.text
