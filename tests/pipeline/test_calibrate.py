"""What a model is calibrated on, and that all that gives probabilities gives the calibrated ones."""

import csv
import dataclasses

import numpy as np
import pytest
import torch
from tests.conftest import PLAIN

import regraft
from regraft.core.errors import DataError, UsageError
from regraft.model import calibration
from regraft.model.predict import write_csv
from regraft.pipeline.fit import examples
from regraft.training import cross_validation
from regraft.training.examples import Examples
from regraft.training.heads import mlp
from regraft.training.losses import Loss
from regraft.training.options import EPOCHS_ALONE, FitOptions

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


def test_a_head_trained_in_epochs_is_calibrated_by_heads_trained_as_long_without_each_fifth(features):
    model = regraft.fit(features, head="mlp", epochs=3, refit="off")  # what learns from both keeps its temperature
    train = features.part("train")
    (fold_of,) = cross_validation.deal_folds(examples(train, model.classes))
    logits = np.empty((len(train), 3))
    options = FitOptions(**EPOCHS_ALONE, head="mlp", epochs=model.chosen["best_epoch"])
    for fold in range(5):
        others = Examples(train[fold_of != fold], train.labels(model.classes)[fold_of != fold])
        weights = mlp.fit(others, None, 3, mlp.Options(), options).weights
        logits[fold_of == fold] = mlp.logits(weights, train[fold_of == fold], mlp.Options())
    expected = calibration.fit_temperature(logits, train.labels(model.classes), Loss())
    assert model.temperature == pytest.approx(expected, rel=1e-3)  # as near as it is looked for
    assert regraft.fit(features, head="mlp", epochs=3).temperature == model.temperature


def test_few_rows_that_chose_the_epoch_of_a_tail_never_make_its_answers_more_confident(photos, store):
    index = regraft.split(regraft.read(photos), split="0.6/0.2/0.2")
    cut = regraft.extract(index, cut="layer4", tail=True, **SMALL, store=store)
    model = regraft.fit(cut, epochs=2, refit="off")
    held = cut.part("validation")
    expected = calibration.fit_temperature(model.logits(held), held.labels(model.classes), Loss())
    assert model.temperature == pytest.approx(max(1, expected))
    assert len(model.true_probabilities) == len(held)


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


def test_predict_gives_sets_that_hold_every_label_from_a_least_probability_on(features, photos, store, tmp_path):
    regraft.fit(features).save(tmp_path / "model")
    model = regraft.load(tmp_path / "model", **PLAIN)
    least = model.least_probability(0.9)
    predictions = regraft.predict(model, photos, top=1, coverage=0.9, store=store)
    probabilities = model.predict_proba(photos, store=store)
    for item, row in zip(predictions, probabilities, strict=True):
        expected = [name for at, name in enumerate(model.classes) if row[at] >= least or at == row.argmax()]
        assert set(item.prediction_set) == set(expected)
        assert item.prediction_set[0] == item.label
    plain = predictions[0].to_dict()
    assert (plain["prediction_set"], plain["coverage"]) == (list(predictions[0].prediction_set), 0.9)
    assert f"{{{predictions[0].label}" in str(predictions[0])
    write_csv(predictions, tmp_path / "rows.csv")
    with (tmp_path / "rows.csv").open() as file:
        rows = [row["prediction_set"] for row in csv.DictReader(file)]
    assert rows == ["; ".join(item.prediction_set) for item in predictions]
    assert regraft.predict(model, photos, store=store)[0].prediction_set is None


def test_what_a_coverage_is_taken_from_are_rows_that_the_head_was_not_trained_on_each_picture_once(features):
    model, train = regraft.fit(features), features.part("train")
    rows = examples(train, model.classes)
    folds = cross_validation.deal_folds(rows)
    logits = cross_validation.out_of_fold_logits(rows, 3, folds, model.chosen["regularisation"])[0]
    expected = model.loss.probabilities(logits / model.temperature)[np.arange(len(rows)), rows.labels]
    np.testing.assert_allclose(model.true_probabilities, np.sort(expected), atol=1e-6)


def test_a_coverage_that_the_model_can_not_give_is_refused_before_an_image_is_read(features, tmp_path):
    model = regraft.fit(features)
    with pytest.raises(DataError, match=r"0\.99 needs 99 pictures"):
        regraft.predict(model, features.index, coverage=0.99)
    with pytest.raises(UsageError, match="--coverage is 2"):
        regraft.predict(model, features.index, coverage=2.0)
    old = dataclasses.replace(model, true_probabilities=None)
    old.save(tmp_path / "model")
    with pytest.raises(DataError, match=r"earlier version of regraft, .* Train it again"):
        regraft.load(tmp_path / "model", **PLAIN).predict(features.index, coverage=0.9)


def test_a_report_measures_the_sets_on_the_part_that_chose_nothing(features, store):
    model = regraft.fit(features)
    report = regraft.evaluate(model, features.index, store=store)
    one, _ = report.evaluation.prediction_sets  # 21 rows allow 0.95 and not 0.99
    sets = report.probabilities >= model.least_probability(0.9)
    sets |= np.eye(3, dtype=bool)[report.probabilities.argmax(axis=1)]
    labels = np.array(features.part("test").labels(model.classes))
    assert (one["coverage"], one["held"]) == (0.9, sets[np.arange(len(labels)), labels].mean())
    assert one["size"] == sets.sum(axis=1).mean()
    assert "Labels in a set" in report.text()
    assert "Prediction sets" in report.html()


def test_of_a_cross_validation_each_fold_has_its_own_temperature_and_sets_also_from_the_model_folder(
    photos, store, tmp_path
):
    report = regraft.train(photos, tmp_path / "model", **SMALL, split="3-fold", store=store)
    assert len(set(report.calibrations.temperatures)) == 3
    assert report.evaluation.uncalibrated_log_loss is not None
    assert [one["coverage"] for one in report.evaluation.prediction_sets] == [0.9, 0.95]
    again = regraft.evaluate(regraft.load(tmp_path / "model", **PLAIN), photos, store=store)
    assert again.evaluation == report.evaluation
