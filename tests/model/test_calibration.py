import numpy as np
import pytest
from scipy.special import expit, softmax

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
