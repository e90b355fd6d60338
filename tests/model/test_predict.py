"""Prediction: a row for every input, in order, whatever the input is."""

from __future__ import annotations

import csv
import dataclasses
import zipfile

import numpy as np
import pytest
from PIL import Image
from tests.conftest import PLAIN

import regraft
from regraft.core.errors import DataError
from regraft.model.predict import Prediction, write_csv
from regraft.network.trunk import Choice
from regraft.pipeline.train import train


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    return train(photos, tmp_path_factory.mktemp("predict") / "model", **PLAIN, views=0, preset="fast").model


@pytest.fixture
def inputs(photos, tmp_path):
    """A mixed bag: a picture, a missing file, a text, a folder with a broken picture, an archive."""
    bag = tmp_path / "bag"
    bag.mkdir()
    whole = (photos / "red" / "000.png").read_bytes()
    (bag / "a.png").write_bytes(whole)
    (bag / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (bag / "c.txt").write_text("no picture")
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:
        archive.write(photos / "blue" / "000.png", "deep/in/side.png")
    return [photos / "green" / "001.png", tmp_path / "missing.jpg", bag, tmp_path / "more.zip"]


def test_every_input_has_a_row_in_the_order_given(model, inputs):
    rows = regraft.predict(model, inputs, top=2)
    assert [row.path.rpartition("/")[2] for row in rows] == [
        "001.png",
        "missing.jpg",
        "a.png",
        "b.jpg",
        "c.txt",
        "side.png",
    ]
    assert [row.status for row in rows] == ["ok", "broken", "ok", "broken", "ignored", "ok"]
    assert [row.label for row in rows] == ["green", "", "red", "", "", "blue"]
    assert all(row.error for row in rows if row.status != "ok")


def test_an_image_has_the_same_probabilities_whatever_it_comes_as(model, photos):
    path = photos / "red" / "003.png"
    image = Image.open(path).convert("RGB")
    array = np.asarray(image)
    for inputs in (path, str(path), path.read_bytes(), image, array):
        assert np.array_equal(model.predict_proba(inputs), model.predict_proba([path]))
    batch = model.predict_proba(np.stack([array, 255 - array]))
    assert batch.shape == (2, 3) and np.allclose(batch.sum(axis=1), 1)
    (row,) = model.predict(image, top=1)
    assert row.label == model.classes[batch[0].argmax()] and row.ranked[0][1] == pytest.approx(batch[0].max())
    assert [item.label for item in regraft.predict(model, [array, path], top=1)] == [row.label] * 2


def test_probabilities_of_what_can_not_be_read_are_refused(model, tmp_path):
    with pytest.raises(DataError, match=r"missing\.jpg is broken"):
        model.predict_proba([tmp_path / "missing.jpg"])
    assert model.predict_proba([]).shape == (0, 3)


def test_the_percentages_are_ranked_and_sum_to_one(model, photos):
    (row,) = regraft.predict(model, photos / "red" / "003.png", top=3)
    probabilities = [probability for _, probability in row.ranked]
    assert probabilities == sorted(probabilities, reverse=True) and sum(probabilities) == pytest.approx(1)
    (row,) = regraft.predict(model, photos / "red" / "003.png", top=99)
    assert len(row.ranked) == 3


def test_the_csv_has_a_row_for_every_input_with_status_and_error(model, inputs, tmp_path):
    rows = regraft.predict(model, inputs, top=2)
    write_csv(rows, tmp_path / "predictions.csv")
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [(row["path"], row["status"], row["label"]) for row in written] == [
        (r.path, r.status, r.label) for r in rows
    ]
    assert list(written[0]) == [
        *("path", "status", "error", "label", "percent", "label_2", "percent_2", "unknown", "novelty"),
    ]
    for row, prediction in zip(written, rows, strict=True):  # six digits, of small probabilities too
        for rank, (_, probability) in zip(("", "_2"), prediction.ranked, strict=False):
            assert float(row[f"percent{rank}"]) == pytest.approx(100 * probability, rel=1e-5)
    assert written[1]["error"] and written[1]["percent"] == ""


def test_a_picture_is_prepared_the_same_way_in_training_and_in_prediction(model, photos):
    path = photos / "blue" / "004.png"
    (row,) = regraft.predict(model, path, top=3)
    stored = regraft.evaluate(model, regraft.read([path], ["blue"]), part="all").probabilities[0]
    assert dict(row.ranked) == pytest.approx(dict(zip(model.classes, stored, strict=True)), abs=1e-5)


def test_a_sideways_phone_photo_is_predicted_as_its_upright_copy(model, photos, tmp_path):
    picture = Image.open(photos / "red" / "005.png").resize((60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° to see it upright
    picture.save(tmp_path / "sideways.png", exif=exif)
    picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    sideways, upright = regraft.predict(model, [tmp_path / "sideways.png", tmp_path / "upright.png"])
    assert dict(sideways.ranked) == pytest.approx(dict(upright.ranked))


def test_nothing_but_the_converted_network_is_kept_of_what_is_predicted(model, photos, tmp_path):
    regraft.predict(model, [photos], store=tmp_path / "store")
    names = {path.name for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert names <= {"agreement.json", "network.xml", "network.bin"}


def test_broken_pictures_alone_are_broken_and_not_an_error(photos, tmp_path, model):
    (tmp_path / "half.png").write_bytes((photos / "red" / "000.png").read_bytes()[:900])
    lower = dataclasses.replace(model, trunks=(model.trunk.on(Choice("torch", "bfloat16")),))
    (row,) = regraft.predict(lower, tmp_path / "half.png", store=tmp_path / "store")
    assert row.status == "broken" and row.error


def test_a_prediction_reads_as_a_line():
    item = Prediction(path="a.jpg", status="ok", ranked=(("cat", 0.987), ("dog", 0.013)))
    assert str(item) == "a.jpg  cat 98.7 %  dog 1.3 %"
    assert str(Prediction(path="b.jpg", status="broken", error="cut short")) == "b.jpg  broken: cut short"


def test_csv_and_json_keep_six_digits_so_that_measures_of_them_hold(tmp_path):
    item = Prediction(path="a.jpg", status="ok", ranked=(("cat", 0.99999876543), ("dog", 1.23456789e-6)))
    assert [rank["probability"] for rank in item.to_dict()["top"]] == [0.999999, 1.23457e-6]
    write_csv([item], tmp_path / "predictions.csv")
    (row,) = csv.DictReader((tmp_path / "predictions.csv").read_text("utf-8").splitlines())
    assert (row["percent"], row["percent_2"]) == ("99.9999", "0.000123457")
