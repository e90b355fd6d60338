import numpy as np
import torch

from regraft.graft.examples import Examples
from regraft.graft.standardise import Standardise, learn, learn_common


def test_mean_and_deviation_are_those_of_all_rows_though_read_in_batches():
    inputs = np.random.default_rng(0).normal(50, 3, (700, 2, 3)).astype(np.float32)
    mean, scale = learn(Examples(inputs, np.zeros(700)))
    np.testing.assert_allclose(mean, inputs.reshape(700, 6).astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(scale, inputs.reshape(700, 6).astype(np.float64).std(0), rtol=1e-9)


def test_the_common_scale_is_the_root_of_the_mean_variance():
    inputs = np.random.default_rng(0).normal(0, [1.0, 3.0, 9.0], (400, 3)).astype(np.float32)
    mean, scale = learn_common(Examples(inputs, np.zeros(400)))
    np.testing.assert_allclose(mean, inputs.astype(np.float64).mean(0), rtol=1e-9)
    assert np.isclose(scale**2, np.mean((inputs.astype(np.float64) - mean) ** 2))
    assert learn_common(Examples(np.ones((5, 2), np.float32), np.zeros(5)))[1] == 1


def test_a_number_that_never_changes_is_not_blown_up():
    _, scale = learn(Examples(np.full((5, 1), 0.1, np.float32), np.zeros(5)))
    assert scale.tolist() == [1.0]


def test_nothing_of_it_is_trained():
    module = Standardise((2, 3))
    assert list(module.parameters()) == []
    assert {name: tuple(values.shape) for name, values in module.state_dict().items()} == {"mean": (6,), "scale": (6,)}
    assert torch.equal(module(torch.ones(4, 2, 3)), torch.ones(4, 6))
