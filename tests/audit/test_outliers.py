"""Outliers against means written out and matplotlib's box plot."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.cbook import boxplot_stats

from regraft.audit.neighbours import Neighbours
from regraft.audit.outliers import FENCE, beyond_fence, mean_distances


def test_the_distance_is_the_mean_over_the_neighbours_of_other_groups():
    rows = np.array([[other for other in range(6) if other != at] for at in range(6)])
    cosines = np.tile(np.array([0.9, 0.8, 0.7, 0.6, 0.5], np.float32), (6, 1))
    distances = mean_distances(Neighbours(rows, cosines, np.array([0, 0, 2, 2, 2, 3])))
    np.testing.assert_allclose(distances[0], np.mean([0.2, 0.3, 0.4, 0.5]), atol=1e-6)  # without row 1
    np.testing.assert_allclose(distances[2], np.mean([0.1, 0.2, 0.5]), atol=1e-6)  # without rows 3 and 4
    np.testing.assert_allclose(distances[5], np.mean([0.1, 0.2, 0.3, 0.4, 0.5]), atol=1e-6)


def test_an_image_near_its_own_group_alone_is_no_outlier():
    rows, cosines = np.array([[1], [0], [0]]), np.array([[0.9], [0.9], [0.2]], np.float32)
    np.testing.assert_allclose(mean_distances(Neighbours(rows, cosines, np.array([0, 0, 1]))), [0, 0, 0.8], atol=1e-6)
    single = Neighbours(np.empty((1, 0), np.int64), np.empty((1, 0), np.float32), np.array([0]))
    assert len(mean_distances(single)) == 1


@pytest.mark.parametrize("seed", range(5))
def test_outliers_are_beyond_the_outer_fence_of_a_box_plot(seed):
    values = np.random.default_rng(seed).lognormal(size=300).astype(np.float32)
    (box,) = boxplot_stats(values, whis=FENCE)
    expected = sorted((value for value in box["fliers"] if value > box["med"]), reverse=True)
    assert len(expected) > 0
    np.testing.assert_array_equal(values[beyond_fence(values)], expected)


def test_among_no_or_equal_distances_there_are_no_outliers():
    assert len(beyond_fence(np.empty(0, np.float32))) == 0
    assert len(beyond_fence(np.full(9, 0.3, np.float32))) == 0
