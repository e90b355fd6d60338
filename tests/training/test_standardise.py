import numpy as np
import pytest
import torch

from regraft.training.examples import Examples
from regraft.training.layers import Standardise
from regraft.training.standardise import apply, centre_and_scale, mean_and_scale


def test_mean_and_deviation_are_those_of_all_rows_though_read_in_batches():
    inputs = np.random.default_rng(0).normal(50, 3, (700, 2, 3)).astype(np.float32)
    mean, scale = mean_and_scale(Examples(inputs, np.zeros(700)))
    np.testing.assert_allclose(mean, inputs.reshape(700, 6).astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(scale, inputs.reshape(700, 6).astype(np.float64).std(0), rtol=1e-9)


def test_rows_together_are_centred_and_divided_by_the_root_of_the_mean_variance_of_the_first_ones():
    inputs = np.random.default_rng(0).normal(7, [1.0, 3.0, 9.0], (700, 3)).astype(np.float32)
    known = inputs[:600].astype(np.float64)
    rows = inputs.copy()
    mean, scale = centre_and_scale(rows, 600)
    np.testing.assert_allclose(mean, known.mean(0), rtol=1e-6)
    assert np.isclose(scale**2, known.var(0).mean())
    np.testing.assert_allclose(rows, (inputs - known.mean(0)) / np.sqrt(known.var(0).mean()), atol=1e-6)


def test_constant_rows_are_not_divided_by_nearly_0():
    rows = np.full((5, 2), 0.1, np.float32)
    assert centre_and_scale(rows, 5)[1] == 1
    assert not rows.any()


@pytest.mark.parametrize("rows", [slice(None), np.array([4, 0])])
def test_examples_are_standardised_as_they_are_read(rows):
    rng = np.random.default_rng(0)
    inputs, view, fresh = rng.normal(50, 3, (3, 5, 2, 3)).astype(np.float32)
    mean, scale = rng.normal(size=6), rng.uniform(1, 2, 6)
    result = apply(Examples(inputs, np.zeros(5), views=(view,), fresh=lambda number: fresh * number), mean, scale)
    assert (len(result), result.shape) == (5, (6,))
    for read, source in zip((*result.all_inputs, result.fresh(2)), (inputs, view, fresh * 2), strict=True):
        np.testing.assert_allclose(read[rows], (source.reshape(5, 6)[rows] - mean) / scale, rtol=1e-5)


def test_a_constant_feature_is_not_divided_by_nearly_0():
    _, scale = mean_and_scale(Examples(np.full((5, 1), 0.1, np.float32), np.zeros(5)))
    assert scale.tolist() == [1.0]


def test_the_layer_has_buffers_and_nothing_to_train():
    module = Standardise((2, 3))
    assert list(module.parameters()) == []
    assert {name: tuple(values.shape) for name, values in module.state_dict().items()} == {"mean": (6,), "scale": (6,)}
    assert torch.equal(module(torch.ones(4, 2, 3)), torch.ones(4, 6))
