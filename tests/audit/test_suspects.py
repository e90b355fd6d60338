"""Neighbours, doubts and distances against loops written out, matplotlib's box plot and cleanlab."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.cbook import boxplot_stats

from regraft.audit.suspects import FENCE, MARGIN, contradicted, distances, far_out, neighbours, tied


def test_neighbours_are_those_with_the_highest_cosines():
    features = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32)
    lengths = np.linalg.norm(features, axis=1)
    cosines = features @ features.T / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, -2)
    expected = np.argsort(-cosines, axis=1)[:, :9]
    rows, found = neighbours(features.copy(), 9)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(found, np.take_along_axis(cosines, expected, axis=1), atol=1e-6)


def test_a_row_is_never_its_own_neighbour_even_among_equal_ones():
    rows, cosines = neighbours(np.ones((6, 3), np.float32), 5)
    assert all(sorted([number, *found]) == list(range(6)) for number, found in enumerate(rows))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


@pytest.mark.parametrize(("count", "known"), [(0, 0), (1, 0), (2, 1), (4, 3)])
def test_few_rows_have_few_neighbours(count, known):
    rows, cosines = neighbours(np.eye(4, 5, dtype=np.float32)[:count], 20)
    assert rows.shape == cosines.shape == (count, known)


def test_a_row_of_zeros_is_near_nothing_and_breaks_nothing():
    features = np.array([[0, 0], [1, 0], [1, 0.1]], np.float32)
    _, cosines = neighbours(features, 2)
    assert np.isfinite(cosines).all()
    assert cosines[0].max() < 0.8


def test_pairs_tie_in_chains():
    found = tied(6, [(0, 3), (3, 5), (1, 4)])
    assert found[0] == found[3] == found[5] != found[1] == found[4] != found[2]
    assert found[2] not in found[[0, 1]]
    assert len(set(tied(3, []))) == 3
    assert len(tied(0, [])) == 0


def shares(n, classes, seed):
    """Probabilities that are right more often than not, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    logits = rng.normal(size=(n, classes)) * 1.5 + 1.5 * np.eye(classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_labels_in_doubt_are_the_off_diagonal_of_the_confident_joint(classes, seed):
    """Equation 1 of the paper as it stands there, its threshold lowered to the label's own probability and MARGIN."""
    probabilities, labels = shares(200, classes, seed)
    expected = {}
    thresholds = [
        sum(p[c] for p, label in zip(probabilities, labels, strict=True) if label == c) / list(labels).count(c)
        for c in range(classes)
    ]
    for number, (p, label) in enumerate(zip(probabilities, labels, strict=True)):
        confident = [c for c in range(classes) if p[c] >= thresholds[c] or p[c] >= p[label] + MARGIN]
        if confident and (best := max(confident, key=lambda c: p[c])) != label and p[best] > p[label]:
            expected[number] = (best, p[best] - p[label])
    rows, suggested = contradicted(probabilities, labels)
    assert dict(zip(rows, suggested, strict=True)) == {number: best for number, (best, _) in expected.items()}
    assert [expected[row][1] for row in rows] == sorted((margin for _, margin in expected.values()), reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_for_two_classes_cleanlab_finds_the_same_but_for_what_the_margin_adds(seed):
    filters = pytest.importorskip("cleanlab.filter", reason="cleanlab is not installed")
    probabilities, labels = shares(300, 2, seed)
    expected = filters.find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    by_margin = np.max(probabilities, axis=1) - probabilities[np.arange(300), labels] >= MARGIN
    assert sorted(contradicted(probabilities, labels)[0]) == np.flatnonzero(expected | by_margin).tolist()


def test_labels_that_nothing_contradicts_are_not_in_doubt():
    labels = np.arange(30) % 3
    rows, suggested = contradicted(0.1 + 0.7 * np.eye(3)[labels], labels)
    assert len(rows) == len(suggested) == 0


def test_the_distance_is_the_mean_over_the_neighbours_of_other_groups():
    rows = np.array([[other for other in range(6) if other != at] for at in range(6)])
    cosines = np.tile(np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32), (6, 1))
    found = distances(rows, cosines, np.array([0, 0, 2, 2, 2, 3]))
    np.testing.assert_allclose(found[0], np.mean([0.2, 0.3, 0.4, 0.5]), atol=1e-6)  # without row 1
    np.testing.assert_allclose(found[2], np.mean([0.1, 0.2, 0.5]), atol=1e-6)  # without rows 3 and 4
    np.testing.assert_allclose(found[5], np.mean([0.1, 0.2, 0.3, 0.4, 0.5]), atol=1e-6)


def test_a_row_that_knows_only_its_own_group_is_no_outlier():
    rows, cosines = np.array([[1], [0], [0]]), np.array([[0.9], [0.9], [0.2]], np.float32)
    np.testing.assert_allclose(distances(rows, cosines, np.array([0, 0, 1])), [0, 0, 0.8], atol=1e-6)
    assert len(distances(np.empty((1, 0), np.int64), np.empty((1, 0), np.float32), np.array([0]))) == 1


@pytest.mark.parametrize("seed", range(5))
def test_far_out_is_beyond_the_outer_fence_of_a_box_plot(seed):
    values = np.random.default_rng(seed).lognormal(size=300).astype(np.float32)
    (box,) = boxplot_stats(values, whis=FENCE)
    expected = sorted((value for value in box["fliers"] if value > box["med"]), reverse=True)
    assert len(expected) > 0
    np.testing.assert_array_equal(values[far_out(values)], expected)


def test_among_none_or_equal_ones_nothing_is_far_out():
    assert len(far_out(np.empty(0, np.float32))) == 0
    assert len(far_out(np.full(9, 0.3, np.float32))) == 0
