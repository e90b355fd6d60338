"""Neighbours and groups against loops written out."""

from __future__ import annotations

import numpy as np
import pytest

from regraft.audit.neighbours import Neighbours, nearest


def test_neighbours_are_those_with_the_highest_cosines():
    features = np.random.default_rng(0).normal(size=(60, 7)).astype(np.float32)
    lengths = np.linalg.norm(features, axis=1)
    cosines = features @ features.T / np.outer(lengths, lengths)
    np.fill_diagonal(cosines, -2)
    expected = np.argsort(-cosines, axis=1)[:, :9]
    rows, highest = nearest(features.copy(), 9)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(highest, np.take_along_axis(cosines, expected, axis=1), atol=1e-6)


def test_a_row_is_never_its_own_neighbour_even_among_equal_ones():
    rows, cosines = nearest(np.ones((6, 3), np.float32), 5)
    assert all(sorted([number, *others]) == list(range(6)) for number, others in enumerate(rows))
    np.testing.assert_allclose(cosines, 1, atol=1e-6)


@pytest.mark.parametrize(("count", "known"), [(0, 0), (1, 0), (2, 1), (4, 3)])
def test_few_rows_have_few_neighbours(count, known):
    rows, cosines = nearest(np.eye(4, 5, dtype=np.float32)[:count], 20)
    assert rows.shape == cosines.shape == (count, known)


def test_a_row_of_zeros_is_near_nothing_and_breaks_nothing():
    features = np.array([[0, 0], [1, 0], [1, 0.1]], np.float32)
    _, cosines = nearest(features, 2)
    assert np.isfinite(cosines).all()
    assert cosines[0].max() < 0.8


def test_the_nearest_images_of_other_groups_are_shown_in_order():
    rows = np.array([[other for other in range(6) if other != at] for at in range(6)])
    neighbours = Neighbours(rows, np.ones((6, 5), np.float32), np.array([0, 0, 1, 2, 3, 4]))
    assert neighbours.outside_group(0) == [2, 3, 4]
    assert neighbours.outside_group(1, limit=9) == [2, 3, 4, 5]
