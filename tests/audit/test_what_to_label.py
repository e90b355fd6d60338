"""What to label next: the uncertain first, unlike each other."""

import numpy as np
import pytest

from regraft.audit import what_to_label


def test_the_margin_is_how_far_the_two_most_probable_labels_are_apart():
    probabilities = np.array([[0.5, 0.5, 0], [0.2, 0.7, 0.1], [0, 0, 1.0]])
    np.testing.assert_allclose(what_to_label.certainties(probabilities), [0, 0.5, 1])


def test_of_several_labels_the_one_nearest_to_its_threshold_counts():
    probabilities, thresholds = np.array([[0.9, 0.31], [0.5, 0.9]]), np.array([0.5, 0.3])
    np.testing.assert_allclose(what_to_label.certainties(probabilities, thresholds), [0.01, 0])


def bunches(sizes, seed=0):
    """Directions in bunches far from each other, and the bunch of each."""
    rng, which = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes)
    rows = np.eye(len(sizes), 16)[which] + rng.normal(0, 0.02, (sum(sizes), 16))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), which


def test_one_of_each_bunch_is_taken_though_the_least_certain_are_all_of_one():
    rows, which = bunches([20, 10, 10, 10, 10])
    certainty = np.where(which == 0, 0.01, 0.2)
    chosen = what_to_label.spread(rows, certainty, 5, seed=0)
    assert sorted(which[chosen]) == [0, 1, 2, 3, 4]
    assert which[chosen[0]] == 0, "the least certain comes first"


def test_only_the_least_certain_are_candidates():
    certainty = np.random.default_rng(1).random(1000)
    among = what_to_label.candidates(certainty, 7)
    assert sorted(among) == sorted(np.argsort(certainty)[:70])
    assert (np.diff(certainty[among]) >= 0).all()


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize(("n", "count"), [(0, 5), (1, 5), (5, 5), (6, 5), (60, 5), (60, 1)])
def test_as_many_as_are_wanted_are_named_each_once_or_all_there_are(n, count, equal):
    rows = np.ones((n, 4), np.float32) / 2 if equal else bunches([n, 1])[0][:n]
    certainty = np.random.default_rng(0).random(n)
    chosen = what_to_label.spread(rows, certainty, count, seed=0)
    assert len(set(chosen.tolist())) == len(chosen) == min(n, count)
    assert (np.diff(certainty[chosen]) >= 0).all()
    np.testing.assert_array_equal(chosen, what_to_label.spread(rows, certainty, count, seed=0))
