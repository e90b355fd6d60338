import numpy as np
import pytest
from scipy.special import expit, softmax

from regraft.core.errors import DataError, UsageError
from regraft.model import calibration
from regraft.training.losses import Loss


def drawn(temperature, n=20_000, classes=4, seed=0):
    """Return logits that are `temperature` times too far apart, with labels drawn by the true ones."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return temperature * logits, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_by_which_logits_were_multiplied_is_found_again(temperature):
    logits, labels = drawn(temperature)
    assert calibration.fit_temperature(logits, labels, Loss()) == pytest.approx(temperature, rel=0.05)


def test_of_two_classes_and_of_several_labels_it_is_found_as_well():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (20_000, 1))
    labels = (rng.random(20_000) < expit(logits[:, 0])).astype(np.int64)
    assert calibration.fit_temperature(3 * logits, labels, Loss("sigmoid")) == pytest.approx(3, rel=0.05)
    pairs, flags = logits.reshape(-1, 2), labels.reshape(-1, 2).astype(np.float32)
    assert calibration.fit_temperature(3 * pairs, flags, Loss("sigmoid", True)) == pytest.approx(3, rel=0.05)


def test_a_few_rows_that_are_all_right_do_not_make_every_answer_certain():
    few = calibration.fit_temperature(np.eye(3) * 4, np.arange(3), Loss())
    assert 0.5 < few < 1


@pytest.mark.parametrize("logits", [np.empty((0, 2)), np.array([[np.nan, 1.0]]), np.array([[np.inf, 1.0]])])
def test_without_a_row_or_with_one_that_is_not_finite_nothing_is_changed(logits):
    assert calibration.fit_temperature(logits, np.zeros(len(logits), int), Loss()) == 1.0


@pytest.mark.parametrize("loss", [Loss(), Loss("sigmoid", True)])
def test_without_the_temperature_probabilities_are_those_of_the_logits_as_they_are(loss):
    logits, _ = drawn(1, n=50)
    calibrated = loss.probabilities(logits / 2.5)
    np.testing.assert_allclose(calibration.uncalibrated(calibrated, 2.5, loss), loss.probabilities(logits), atol=1e-9)


def test_versions_of_a_picture_outweigh_the_prior_no_more_than_it_does():
    logits, labels = drawn(3.0, n=60)
    once = calibration.fit_temperature(logits, labels, Loss())
    four = calibration.fit_temperature(np.repeat(logits, 4, axis=0), np.repeat(labels, 4), Loss(), pictures=60)
    assert four == pytest.approx(once, rel=1e-3)


def conformal_set(scores, row, coverage):
    """Return the labels of a row by the definition: 1 - p as the score, a label stays if its rank among all is low."""
    n, chosen = len(scores), {int(row.argmax())}
    for label, probability in enumerate(row):
        not_above = sum(score >= 1 - probability for score in scores) + 1
        if not_above / (n + 1) > 1 - coverage + 1e-12:
            chosen.add(label)
    return chosen


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_a_prediction_set_is_that_of_the_definition_label_by_label(coverage):
    logits, labels = drawn(1, n=139)
    rows = softmax(logits, axis=1)
    known = calibration.of_true_labels(rows[:39], labels[:39], None)
    sets = calibration.prediction_sets(rows[39:], calibration.least_probability(known, coverage))
    scores = 1 - rows[np.arange(39), labels[:39]]
    assert [set(np.flatnonzero(one)) for one in sets] == [conformal_set(scores, row, coverage) for row in rows[39:]]


@pytest.mark.parametrize(("n", "coverage"), [(19, 0.95), (60, 0.9), (200, 0.95)])
def test_sets_hold_the_true_label_as_often_as_asked_on_average_though_the_probabilities_are_wrong(n, coverage):
    logits, labels = drawn(4, n=400 * (n + 50))  # four times too far apart
    held = []
    for rows, codes in zip(np.split(logits, 400), np.split(labels, 400), strict=True):
        temperature = calibration.fit_temperature(rows[:n], codes[:n], Loss())
        probabilities = softmax(rows / temperature, axis=1)
        known = calibration.of_true_labels(probabilities[:n], codes[:n], None)
        sets = calibration.prediction_sets(probabilities[n:], calibration.least_probability(known, coverage))
        held.append(sets[np.arange(50), codes[n:]].mean())
    error = np.std(held) / 20
    assert np.mean(held) > coverage - 3 * error
    assert np.mean(held) < coverage + 1 / (n + 1) + 3 * error  # and hardly more often, if no set must be made non-empty


def test_copies_count_once_in_what_a_coverage_is_taken_from():
    rows, labels = softmax(np.arange(12.0).reshape(6, 2) % 5, axis=1), np.array([0, 1, 0, 1, 0, 1])
    once = calibration.of_true_labels(rows[[0, 2, 5]], labels[[0, 2, 5]], None)
    copied = calibration.of_true_labels(rows, labels, np.array([4, 4, 1, 1, 1, 7]))
    np.testing.assert_array_equal(copied, once)


def test_too_few_rows_for_a_coverage_are_refused_with_the_highest_that_they_allow():
    known = np.linspace(0.1, 0.9, 19)
    assert calibration.least_probability(known, 0.95) == 0.1
    with pytest.raises(DataError, match=r"0\.99 needs 99 pictures .* calibrated on 19 .* At most 0\.95 "):
        calibration.least_probability(known, 0.99)
    assert np.isnan(calibration.of_images(2, 1.5, known).least[:, 2]).all()
    assert not np.isnan(calibration.of_images(2, 1.5, known).least[:, :2]).any()
    with pytest.raises(UsageError, match="--coverage is 1"):
        calibration.least_probability(known, 1)
