"""The areas under the curves as scikit-learn has them, and their intervals by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sklearn_metrics

from regraft.evaluation import ranking


def drawn(n=120, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    rows = np.exp(rng.normal(size=(n, classes)).round(1) + 1.2 * np.eye(classes)[labels])  # with ties
    return rows / rows.sum(axis=1, keepdims=True), np.eye(classes, dtype=bool)[labels]


def test_the_areas_of_each_class_against_the_rest_are_those_of_scikit_learn():
    rows, truth = drawn()
    scores = ranking.scores(rows, truth, list("abcd"), np.arange(120))
    for at, name in enumerate("abcd"):
        assert scores[name]["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(truth[:, at], rows[:, at]))
        expected = sklearn_metrics.average_precision_score(truth[:, at], rows[:, at])
        assert scores[name]["average_precision"] == pytest.approx(expected)
        low, high = scores[name]["roc_auc_interval"]
        assert low < scores[name]["roc_auc"] < high


def test_the_curves_are_those_of_scikit_learn():
    rows, truth = drawn()
    curves = ranking.curves(rows[:, 1], truth[:, 1])
    false_positives, recall, _ = sklearn_metrics.roc_curve(truth[:, 1], rows[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(curves.roc, np.stack([false_positives, recall], axis=1))
    precision, recall, _ = sklearn_metrics.precision_recall_curve(truth[:, 1], rows[:, 1])
    np.testing.assert_allclose(curves.precision, np.stack([recall, precision], axis=1)[-2::-1])


def test_a_long_curve_has_few_points_and_both_ends():
    rng = np.random.default_rng(0)
    curves = ranking.curves(rng.random(5000), rng.random(5000) < 0.3)
    assert len(curves.roc) == len(curves.precision) == ranking.POINTS
    assert curves.roc[[0, -1]].tolist() == [[0, 0], [1, 1]]


def test_a_class_that_has_no_image_or_all_has_neither_areas_nor_curves():
    rows, truth = np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([[True, False], [True, False]])
    scores = ranking.scores(rows, truth, ["a", "b"], np.arange(2))
    assert set(scores["a"].values()) == set(scores["b"].values()) == {None}
    assert ranking.curves(rows[:, 0], truth[:, 0]) is ranking.curves(rows[:, 1], truth[:, 1]) is None
    assert ranking.scores(np.zeros((2, 101)), np.zeros((2, 101), bool), [""] * 101, np.arange(2)) is None


@pytest.mark.parametrize(("distance", "ones", "others"), [(1.0, 30, 60), (2.5, 20, 100), (3.5, 40, 40)])
def test_the_interval_of_the_area_holds_the_true_one_in_about_95_of_100(distance, ones, others):
    rng, truth = np.random.default_rng(1), norm.cdf(distance / math.sqrt(2))
    labels, held = np.arange(ones + others) < ones, 0
    for _ in range(400):
        scores = rng.normal(size=len(labels)) + distance * labels
        low, high = ranking.scores(scores[:, None], labels[:, None], ["a"], np.arange(len(labels)))["a"][
            "roc_auc_interval"
        ]
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.995, held  # wider than needed near 1


def test_a_perfect_ranking_of_few_images_is_not_certain_and_copies_count_once():
    rows, truth, pictures = np.array([[0.9], [0.8], [0.1], [0.2]]), np.array([[1], [1], [0], [0]], bool), np.arange(4)
    once = ranking.scores(rows, truth, ["a"], pictures)
    copied = ranking.scores(*(np.concatenate([part] * 3) for part in (rows, truth)), ["a"], np.tile(pictures, 3))
    assert once["a"]["roc_auc_interval"][0] < 0.5 < once["a"]["roc_auc_interval"][1] == 1
    for name, values in once["a"].items():
        assert copied["a"][name] == pytest.approx(values)


def test_the_curves_that_are_shown_are_of_the_classes_with_the_smallest_areas_in_their_order():
    rows, truth = drawn()
    scores = ranking.scores(rows, truth, list("abcd"), np.arange(120))
    shown = ranking.smallest_areas(scores, rows, truth, 2)
    assert list(shown) == sorted(sorted("abcd", key=lambda name: scores[name]["roc_auc"])[:2])
    at = "abcd".index(next(iter(shown)))
    np.testing.assert_array_equal(next(iter(shown.values())).roc, ranking.curves(rows[:, at], truth[:, at]).roc)
    assert ranking.smallest_areas({}, rows, truth, 2) == {}
