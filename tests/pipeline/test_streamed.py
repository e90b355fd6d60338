"""Training on a folder of features that is larger than the memory that it may take: as in memory, read where it is."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import PLAIN, write_photos

import regraft
from regraft.core.errors import StoreError
from regraft.core.remote import storage_path
from regraft.features.unit_shelf import UnitShelf
from regraft.pipeline import feature_folder

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, **PLAIN}
SPLIT = {"split": "0.5/0.3/0.2", "engine": "torch", "near_duplicates": "ignore"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Units of 7 files, the last one short, with a copy, and a broken photograph between others."""
    photos = write_photos(tmp_path_factory.mktemp("photos"), per_class=12)
    shutil.copy(photos / "blue" / "000.png", photos / "blue" / "copy.png")
    (photos / "green" / "0005.png").write_bytes((photos / "green" / "001.png").read_bytes()[:500])
    folder = tmp_path_factory.mktemp("written") / "features"
    regraft.extract(photos, folder, unit_rows=7, **SMALL)
    return folder


@pytest.fixture(scope="module")
def in_place(folder):
    return regraft.train(folder, folder.parent / "in place", memory=0, store=folder.parent / "empty", **SPLIT)


def test_the_model_is_that_of_features_in_memory(folder, in_place):
    report = regraft.train(folder, folder.parent / "model", **SPLIT)
    assert in_place.accuracy == report.accuracy
    np.testing.assert_allclose(in_place.probabilities, report.probabilities, atol=2e-3)
    for name, weights in report.model.head_weights.items():
        np.testing.assert_allclose(in_place.model.head_weights[name], weights, rtol=0.02, atol=2e-3)
    assert in_place.model.chosen["regularisation"] == report.model.chosen["regularisation"]


def test_nothing_is_copied_into_the_store(folder, in_place):
    assert not list((folder.parent / "empty").glob("*/data.mdb"))


def test_it_is_calibrated_and_knows_the_unknown(folder, in_place):
    model = regraft.load(folder.parent / "in place", engine="torch")
    assert model.temperature != 1
    assert len(model.evidence.references) > 0
    assert "Part: test" in in_place.text()


def test_without_a_validation_part_folds_by_the_ids_choose_and_calibrate(folder, tmp_path):
    for memory in (0, 4):
        report = regraft.train(folder, tmp_path / str(memory), memory=memory, **{**SPLIT, "split": "0.8/0.2"})
        assert "fold cross-validation" in report.model.chosen["how"]
        assert report.model.temperature != 1
        assert len(report.model.evidence.scores) == 30


def test_a_head_that_is_trained_in_epochs_reads_the_store(folder, tmp_path):
    report = regraft.train(folder, tmp_path / "m", memory=0, head="mlp", epochs=2, store=tmp_path / "store", **SPLIT)
    assert len(report.model.history.rows) >= 2
    assert list((tmp_path / "store").glob("*/data.mdb"))


def test_a_finished_training_is_known_again(folder, in_place):
    again = regraft.train(folder, folder.parent / "in place", memory=0, **SPLIT)
    assert again.model.run == in_place.model.run


def test_every_row_is_that_of_the_unit_in_any_order(folder):
    features, rows = of_folder(folder)
    expected = {row["id"]: row["features"] for row in rows if row["status"] == "used"}
    numbers = np.random.default_rng(0).permutation(len(features))
    for number, values in zip(numbers, features[numbers], strict=True):
        assert np.array_equal(values.ravel(), np.float32(expected[features.rows[number].id]))


def of_folder(folder):
    from regraft.data.read import SourceOptions
    from regraft.features.extract import Features

    units = feature_folder.find(folder)
    network, index, shelves = feature_folder.read(units, folder.parent / "empty", SourceOptions(), 0)
    return Features(index, network.runner, shelves), [row for table in units.tables() for row in table.to_pylist()]


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"nothing")])
def test_a_unit_that_is_lost_meanwhile_is_told(folder, tmp_path, damage):
    copy = shutil.copytree(folder, tmp_path / "copy")
    features, _ = of_folder(copy)
    damage(sorted(copy.glob("part-*"))[2])
    with pytest.raises(StoreError, match="missing or damaged"):
        features[:]


def test_a_shelf_without_rows_gives_none():
    assert UnitShelf(storage_path("nowhere"), Path("nowhere")).read([], (3,)).shape == (0, 3)
