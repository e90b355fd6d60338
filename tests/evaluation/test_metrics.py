"""Metrics against scikit-learn, and against counting by hand where it has none or is not defined."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sklearn

from regraft.evaluation import metrics


def random_predictions(n_classes, n, seed=0, absent=()):
    """Probabilities that are right more often than not, and labels; the absent classes have no label."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([code for code in range(n_classes) if code not in absent], n)
    logits = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


SWEEP = [
    pytest.param(*random_predictions(n_classes, n, seed, absent), id=f"{n_classes} classes, {n} images, {seed}")
    for seed, (n_classes, n, absent) in enumerate(
        [(2, 1, ()), (2, 2, ()), (2, 60, ()), (2, 9, (1,)), (3, 30, (0,)), (5, 300, ()), (8, 500, (2, 3)), (40, 60, ())]
    )
]


def confusion(labels, predicted, n_classes):
    return metrics.confusion_matrix(np.asarray(labels), np.asarray(predicted), n_classes)


@pytest.mark.parametrize(("probabilities", "labels"), SWEEP)
def test_each_metric_of_classes_is_that_of_scikit_learn(probabilities, labels):
    every, predicted = range(probabilities.shape[1]), probabilities.argmax(axis=1)
    counts = confusion(labels, predicted, len(every))
    assert counts.tolist() == sklearn.confusion_matrix(labels, predicted, labels=every).tolist()
    assert metrics.log_loss(probabilities, labels) == pytest.approx(
        sklearn.log_loss(labels, probabilities, labels=every)
    )
    if len(set(labels)) > 1:
        assert metrics.cohen_kappa(counts) == pytest.approx(sklearn.cohen_kappa_score(labels, predicted))
        assert metrics.matthews_correlation(counts) == pytest.approx(sklearn.matthews_corrcoef(labels, predicted))
    for k in (1, 2, 5):
        if k < len(every) > 2:
            expected = sklearn.top_k_accuracy_score(labels, probabilities, k=k, labels=every)
            assert metrics.top_k_accuracy(probabilities, labels, k) == pytest.approx(expected)


@pytest.mark.parametrize(("probabilities", "labels"), SWEEP)
def test_precision_recall_and_f1_are_those_of_scikit_learn(probabilities, labels):
    every, predicted = range(probabilities.shape[1]), probabilities.argmax(axis=1)
    expected = sklearn.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
    for code, (precision, recall, f1, n) in enumerate(zip(*expected, strict=True)):
        scores = metrics.scores(
            int(n), int((predicted == code).sum()), int(((predicted == code) & (labels == code)).sum())
        )
        assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((precision, recall, f1))


@pytest.mark.parametrize("predicted", [[0, 0, 0], [0, 1, 1], [1, 1, 1]])
def test_where_all_images_are_of_one_class_agreement_beyond_chance_is_not_defined(predicted):
    counts = confusion([0, 0, 0], predicted, 3)
    assert metrics.cohen_kappa(counts) is None
    assert metrics.matthews_correlation(counts) is None


@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 0, 1]])
def test_where_all_predictions_are_one_class_agreement_is_that_of_chance(labels):
    predicted = [1, 1, 1]
    counts = confusion(labels, predicted, 2)
    assert metrics.cohen_kappa(counts) == pytest.approx(sklearn.cohen_kappa_score(labels, predicted)) == 0
    assert metrics.matthews_correlation(counts) == sklearn.matthews_corrcoef(labels, predicted) == 0


def test_perfect_and_opposite_predictions_are_the_ends_of_the_scales():
    assert metrics.cohen_kappa(confusion([0, 1, 2], [0, 1, 2], 3)) == 1
    assert metrics.matthews_correlation(confusion([0, 1, 2], [0, 1, 2], 3)) == 1
    assert metrics.matthews_correlation(confusion([0, 1], [1, 0], 2)) == -1


def test_counts_of_many_images_do_not_overflow():
    counts = np.array([[900_000_000, 100_000_000], [200_000_000, 800_000_000]])
    small = counts // 100_000_000
    assert metrics.matthews_correlation(counts) == pytest.approx(metrics.matthews_correlation(small))
    assert metrics.cohen_kappa(counts) == pytest.approx(metrics.cohen_kappa(small))


def test_a_probability_of_zero_costs_much_but_not_infinitely_much():
    assert metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-math.log(2.220446049250313e-16))
    single = np.array([[1.0, 0.0], [0.25, 0.75]], np.float32)
    assert metrics.log_loss(single, np.array([1, 1])) == pytest.approx(sklearn.log_loss([1, 1], single, labels=[0, 1]))


def test_the_true_class_counts_as_among_the_first_if_only_later_ones_are_as_probable():
    equal = np.full((6, 6), 1 / 6)
    assert metrics.top_k_accuracy(equal, np.arange(6), 5) == pytest.approx(5 / 6)
    assert metrics.top_k_accuracy(equal, np.arange(6), 1) == pytest.approx(1 / 6)  # argmax takes the first as well


@pytest.mark.parametrize("levels", [2, 5, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_the_area_under_the_curve_is_that_of_scikit_learn_and_counts_pairs_ties_as_one_half(levels, seed):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, 60), [0, 1])
    probabilities = np.round((rng.random(62) + labels) / 2 * levels) / levels
    pairs = [
        1.0 if yes > no else 0.5 if yes == no else 0.0
        for yes in probabilities[labels == 1]
        for no in probabilities[labels == 0]
    ]
    area = metrics.roc_auc(probabilities, labels)
    assert area == pytest.approx(np.mean(pairs))
    assert area == pytest.approx(sklearn.roc_auc_score(labels, probabilities))


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_of_one_class_alone_there_is_no_area_under_the_curve(labels):
    assert metrics.roc_auc(np.array([0.2, 0.5, 0.9]), np.array(labels)) is None


def test_the_brier_score_of_two_classes_is_twice_that_of_one_of_them():
    probabilities, labels = random_predictions(2, 100)
    expected = 2 * sklearn.brier_score_loss(labels, probabilities[:, 1])
    assert metrics.brier_score(probabilities, labels) == pytest.approx(expected)
    assert metrics.brier_score(np.eye(3)[[1, 1]], np.array([0, 1])) == 1  # (1 + 1 + 0) / 2 images


@pytest.mark.parametrize(("probabilities", "labels"), SWEEP)
def test_the_calibration_error_is_what_going_through_the_bins_gives(probabilities, labels):
    error = 0.0
    for number in range(15):
        rows = [row for row, top in enumerate(probabilities.max(axis=1)) if number / 15 < top <= (number + 1) / 15]
        if rows:
            accuracy = np.mean([probabilities[row].argmax() == labels[row] for row in rows])
            error += len(rows) / len(labels) * abs(accuracy - probabilities[rows].max(axis=1).mean())
    assert metrics.calibration_error(probabilities, labels) == pytest.approx(error)


def test_a_model_as_confident_as_it_is_accurate_is_calibrated_and_one_that_is_confident_and_wrong_is_not():
    even = np.array([[0.8, 0.2]] * 10)
    assert metrics.calibration_error(even, [0] * 8 + [1] * 2) == pytest.approx(0)
    assert metrics.calibration_error(np.eye(2)[[0, 0]], [1, 1]) == 1


@pytest.mark.parametrize("decimals", [1, 2, 8])
@pytest.mark.parametrize("seed", range(4))
def test_the_average_precision_and_the_levels_are_those_of_scikit_learn(decimals, seed):
    rng = np.random.default_rng(seed)
    truth = np.append(rng.random(50) < 0.3, True)
    probabilities = np.round(np.clip(rng.random(51) / 2 + truth / 3, 0, 1), decimals)
    assert metrics.average_precision(probabilities, truth) == pytest.approx(
        sklearn.average_precision_score(truth, probabilities)
    )
    levels = metrics.levels(probabilities, truth)
    precision, recall, thresholds = sklearn.precision_recall_curve(truth, probabilities)
    known = len(thresholds)
    np.testing.assert_allclose(levels.probabilities[:known], thresholds[::-1])
    np.testing.assert_allclose((levels.n_correct / levels.n_predicted)[:known], precision[:-1][::-1])
    np.testing.assert_allclose((levels.n_correct / truth.sum())[:known], recall[:-1][::-1])


def test_a_label_that_no_image_has_has_no_average_precision():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.average_precision(np.array([0.3, 0.9]), np.array([False, False])) is None


def counted(n, n_predicted, n_correct):
    return {**metrics.scores(n, n_predicted, n_correct), "n": n, "n_predicted": n_predicted}


def test_means_are_plain_or_weighted_over_the_classes_that_have_images():
    rows = [counted(6, 6, 6), counted(2, 4, 0), counted(0, 3, 0), counted(0, 0, 0)]
    assert metrics.means(rows) == {
        "precision": 0.5, "recall": 0.5, "f1": 0.5, "classes": 2, "precision_classes": 2,
    }  # fmt: skip
    assert metrics.means(rows, weighted=True)["recall"] == 0.75


def test_precision_is_a_mean_over_the_classes_that_were_predicted():
    means = metrics.means([counted(4, 8, 4), counted(4, 0, 0)])
    assert (means["precision"], means["recall"], means["f1"]) == pytest.approx((0.5, 0.5, 1 / 3))
    assert (means["classes"], means["precision_classes"]) == (2, 1)


def test_means_of_no_class_are_none():
    assert metrics.means([counted(0, 3, 0)]) == {
        "precision": None, "recall": None, "f1": None, "classes": 0, "precision_classes": 0,
    }  # fmt: skip


def test_the_bins_of_reliability_give_the_calibration_error():
    rng = np.random.default_rng(3)
    rows = rng.dirichlet(np.ones(3), 500)
    labels = np.array([rng.choice(3, p=row) for row in rows])
    bins = metrics.reliability(rows, labels, np.arange(500))
    assert sum(one["n"] for one in bins) == 500
    error = sum(one["n"] * abs(one["accuracy"] - one["confidence"]) for one in bins) / 500
    assert error == pytest.approx(metrics.calibration_error(rows, labels))
    assert all(one["accuracy_interval"][0] <= one["accuracy"] <= one["accuracy_interval"][1] for one in bins)
    assert bins == sorted(bins, key=lambda one: one["confidence"])
