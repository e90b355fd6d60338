import numpy as np
import pytest
import torch

from regraft.training.examples import Examples
from regraft.training.layers import Standardise
from regraft.training.standardise import apply, learn, together


def test_mean_and_deviation_are_those_of_all_rows_though_read_in_batches():
    inputs = np.random.default_rng(0).normal(50, 3, (700, 2, 3)).astype(np.float32)
    mean, scale = learn(Examples(inputs, np.zeros(700)))
    np.testing.assert_allclose(mean, inputs.reshape(700, 6).astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(scale, inputs.reshape(700, 6).astype(np.float64).std(0), rtol=1e-9)


def test_rows_together_are_centred_and_divided_by_the_root_of_the_mean_variance_of_the_first_ones():
    inputs = np.random.default_rng(0).normal(7, [1.0, 3.0, 9.0], (700, 3)).astype(np.float32)
    known = inputs[:600].astype(np.float64)
    rows = inputs.copy()
    mean, scale = together(rows, 600)
    np.testing.assert_allclose(mean, known.mean(0), rtol=1e-6)
    assert np.isclose(scale**2, known.var(0).mean())
    np.testing.assert_allclose(rows, (inputs - known.mean(0)) / np.sqrt(known.var(0).mean()), atol=1e-6)


def test_rows_that_never_change_are_not_blown_up():
    rows = np.full((5, 2), 0.1, np.float32)
    assert together(rows, 5)[1] == 1
    assert not rows.any()


@pytest.mark.parametrize("rows", [slice(None), np.array([4, 0])])
def test_examples_are_standardised_as_they_are_read(rows):
    rng = np.random.default_rng(0)
    inputs, view, anew = rng.normal(50, 3, (3, 5, 2, 3)).astype(np.float32)
    mean, scale = rng.normal(size=6), rng.uniform(1, 2, 6)
    found = apply(Examples(inputs, np.zeros(5), views=(view,), fresh=lambda number: anew * number), mean, scale)
    assert (len(found), found.shape) == (5, (6,))
    for read, source in zip((*found.all_inputs, found.fresh(2)), (inputs, view, anew * 2), strict=True):
        np.testing.assert_allclose(read[rows], (source.reshape(5, 6)[rows] - mean) / scale, rtol=1e-5)


def test_a_number_that_never_changes_is_not_blown_up():
    _, scale = learn(Examples(np.full((5, 1), 0.1, np.float32), np.zeros(5)))
    assert scale.tolist() == [1.0]


def test_nothing_of_it_is_trained():
    module = Standardise((2, 3))
    assert list(module.parameters()) == []
    assert {name: tuple(values.shape) for name, values in module.state_dict().items()} == {"mean": (6,), "scale": (6,)}
    assert torch.equal(module(torch.ones(4, 2, 3)), torch.ones(4, 6))
