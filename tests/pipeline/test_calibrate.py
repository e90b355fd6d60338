"""What a model is calibrated on, and that all that gives probabilities gives the calibrated ones."""

import dataclasses

import numpy as np
import pytest
import torch
from tests.conftest import PLAIN

import regraft
from regraft.model import calibration
from regraft.pipeline.fit import examples
from regraft.training import cross_validation
from regraft.training.losses import Loss

SMALL = {"backbone": "test_resnet", "size": 64, "weights": "random", "views": 0, **PLAIN}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def features(photos, store):
    return regraft.extract(regraft.split(regraft.read(photos), split="0.6/0.2/0.2"), **SMALL, store=store)


def test_a_linear_head_is_calibrated_on_training_rows_by_regressions_without_them(features):
    model = regraft.fit(features)
    train = features.part("train")
    changed = features.with_index(features.index.with_rows(row for row in features.rows if row.part != "test"))
    assert model.temperature != 1
    assert regraft.fit(changed).temperature == model.temperature  # the test part has no say
    rows = examples(train, model.classes)
    folds, regularisation = cross_validation.deal_folds(rows), model.chosen["regularisation"]
    (answers,) = cross_validation.out_of_fold_probabilities(rows, 3, folds, regularisation)
    expected = calibration.fit_temperature(np.log(answers.astype(np.float64)), rows.labels, Loss())
    assert model.temperature == pytest.approx(expected)


def test_a_head_trained_in_epochs_is_calibrated_on_the_validation_part(features):
    model = regraft.fit(features, head="mlp", epochs=3, refit="off")  # what learns from both keeps its temperature
    held = features.part("validation")
    expected = calibration.fit_temperature(model.logits(held), held.labels(model.classes), Loss())
    assert model.temperature == pytest.approx(expected)
    assert regraft.fit(features, head="mlp", epochs=3).temperature == model.temperature


def test_smoothed_labels_make_logits_that_the_temperature_sharpens(features):
    smoothed = regraft.fit(features, label_smoothing=0.4)
    assert smoothed.temperature < regraft.fit(features).temperature


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_model_its_module_and_its_folder_give_the_calibrated_probabilities(features, head, photos, store, tmp_path):
    model = dataclasses.replace(regraft.fit(features, head=head), temperature=20.0)
    model.save(tmp_path / "model")
    again = regraft.load(tmp_path / "model", engine="torch")
    assert again.temperature == 20
    index = features.index.part("test")
    expected = model.probabilities(features.part("test"))
    np.testing.assert_allclose(again.predict_proba(index, store=store), expected, atol=2e-3)
    images = [model.trunk.preprocess(regraft.data.decode.decode(row.location.read())) for row in index]
    with torch.no_grad():
        answers = model.module(torch.from_numpy(np.stack(images)))
    np.testing.assert_allclose(answers, expected, atol=2e-3)
    raw = model.loss.probabilities(model.logits(features.part("test")))
    assert not np.allclose(raw, expected, atol=0.1)


def test_a_report_says_what_the_temperature_changed_and_how_many_answers_are_right_at_which_confidence(
    features, photos, store
):
    model = regraft.fit(features)
    report = regraft.evaluate(model, features.index, store=store)
    raw = model.loss.probabilities(model.logits(features.part("test")))
    labels = np.array(features.part("test").labels(model.classes))
    expected = -np.log(raw[np.arange(len(labels)), labels]).mean()
    assert report.evaluation.uncalibrated_log_loss == pytest.approx(expected, rel=1e-4)
    first, *_, last = report.evaluation.coverage
    assert (first["n"], first["n_correct"]) == (len(labels), report.evaluation.correct)
    assert last["n"] == (report.probabilities.max(axis=1) >= 0.99).sum()
    assert "confident from" in report.text()
    assert "without its temperature" in report.text()
    assert "Of these right" in report.html()
    assert regraft.fit(features.part("train")).temperature != 1
