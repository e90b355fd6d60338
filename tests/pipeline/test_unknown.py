"""A picture of none of the classes: predict says so, and how well is measured with strangers."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from tests.conftest import PLAIN

import regraft
from regraft.core.errors import DataError, RefusedFile, UsageError
from regraft.model.predict import write_csv

SMALL = {"backbone": "test_resnet", "size": 64, "weights": "random", "views": 0, **PLAIN}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def model(photos, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    regraft.train(photos, folder, **SMALL, split="0.7/0.3", store=store)
    return regraft.load(folder, **PLAIN)


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("strangers"), np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


def test_a_stranger_is_unknown_and_its_ranking_is_still_shown(model, strangers, store, tmp_path):
    predictions = regraft.predict(model, strangers, false_alarms=0.1, store=store)
    assert all(item.unknown and len(item.ranked) == 3 for item in predictions)
    assert "unknown (novelty" in predictions[0].text()
    assert json.loads(json.dumps(predictions[0].to_dict()))["unknown"] is True
    write_csv(predictions, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["unknown"] for row in rows} == {"yes"}
    assert float(rows[0]["novelty"]) == pytest.approx(predictions[0].novelty, rel=1e-5)


def test_images_of_the_classes_are_mostly_known_and_none_is_unknown_at_no_false_alarms(model, photos, strangers, store):
    assert np.mean([item.unknown for item in regraft.predict(model, photos, false_alarms=0.1, store=store)]) <= 0.2
    assert not any(item.unknown for item in regraft.predict(model, strangers, false_alarms=0, store=store))


def test_a_fraction_of_false_alarms_out_of_range_is_refused(model, strangers):
    with pytest.raises(UsageError, match=r"--false-alarms is 1\.5"):
        regraft.predict(model, strangers, false_alarms=1.5)


def test_evaluate_counts_strangers_that_are_caught(model, photos, strangers, store):
    report = regraft.evaluate(model, photos, strangers=strangers, store=store)
    assert (report.strangers.n, report.strangers.roc_auc) == (4, 1)
    assert report.to_dict()["strangers"]["n"] == 4
    assert "of 4 strangers" in report.text()
    assert "of 4 strangers" in report.html()


def test_strangers_of_which_none_can_be_read_are_refused(model, photos, store, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff no picture")
    with pytest.raises(DataError, match="None of the 1 strangers"):
        regraft.evaluate(model, photos, strangers=tmp_path, store=store)


def test_a_model_that_kept_no_evidence_says_so(model, photos, strangers, store, tmp_path):
    model.save(tmp_path / "model")
    (tmp_path / "model" / "evidence.safetensors").unlink()
    with pytest.raises(RefusedFile, match=r"evidence.safetensors is missing"):
        regraft.load(tmp_path / "model")
    sums = (tmp_path / "model" / "SHA256SUMS").read_text().splitlines(keepends=True)
    (tmp_path / "model" / "SHA256SUMS").write_text("".join(line for line in sums if "evidence" not in line))
    old = regraft.load(tmp_path / "model", **PLAIN)
    assert regraft.predict(old, strangers, store=store)[0].novelty is None
    with pytest.raises(DataError, match="no training images that tell the unknown"):
        regraft.evaluate(old, photos, strangers=strangers, store=store)
