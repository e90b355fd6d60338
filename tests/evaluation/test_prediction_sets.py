"""How good prediction sets are: the counts by hand, the intervals by simulation."""

import numpy as np
import pytest

from regraft.evaluation import prediction_sets
from regraft.evaluation.significance import wilson


def test_held_size_and_single_are_counts():
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [1, 1, 1]], bool)
    one = prediction_sets.measure(0.9, sets, np.array([0, 0, 0, 2]), np.arange(4))
    assert (one["held"], one["size"], one["single"]) == (0.75, 2.0, 0.25)
    assert one["held_interval"] == wilson(3, 4)


def test_copies_widen_the_intervals_as_they_count_once():
    rng = np.random.default_rng(0)
    sets, labels = rng.random((50, 3)) < 0.7, np.zeros(50, int)
    once = prediction_sets.measure(0.9, sets, labels, np.arange(50))
    twice = prediction_sets.measure(0.9, np.repeat(sets, 2, 0), np.zeros(100, int), np.repeat(np.arange(50), 2))
    for name in ("held_interval", "size_interval"):
        assert twice[name] == pytest.approx(once[name])


def test_the_interval_of_the_mean_size_holds_the_true_mean_about_as_often_as_it_says():
    rng, inside = np.random.default_rng(1), 0
    for _ in range(1000):
        sets = np.column_stack([np.ones(60, bool), rng.random((60, 4)) < 0.2])
        low, high = prediction_sets.measure(0.9, sets, np.zeros(60, int), np.arange(60))["size_interval"]
        inside += low <= 1.8 <= high
    assert 930 < inside < 970


def test_sets_that_are_all_of_one_label_may_still_be_larger_elsewhere():
    one = prediction_sets.measure(0.9, np.eye(2, dtype=bool)[[0, 1, 1]], np.array([0, 1, 1]), np.arange(3))
    assert one["size_interval"] == (1.0, 1 + wilson(0, 3)[1])
