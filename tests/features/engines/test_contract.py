"""What every engine must hold, asked of each file in engines/."""

import numpy as np
import pytest
import torch
from torch import nn

from regraft.core import plugins
from regraft.features import catalog, engines

ENGINES = plugins.names(engines)


@pytest.fixture(params=ENGINES)
def run(request):
    return plugins.load(engines, request.param).run


def batch(count, size, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3, size, size)).astype(np.float32)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_features_are_those_of_double_precision(run, name):
    network = catalog.build(name, seed=3)
    size = 160 if name == "test_vit" else 64
    features = run(network, batch(5, size))
    expected = network.double()(torch.from_numpy(batch(5, size)).double()).detach().numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_features_are_float32_in_c_order_and_the_callers_own(run):
    images = batch(2, 32)
    features = run(nn.Identity(), images)
    assert (features.dtype, features.flags.c_contiguous, features.shape) == (np.float32, True, (2, 3, 32, 32))
    np.testing.assert_array_equal(features, images)
    assert not np.shares_memory(features, images)


def test_the_batch_is_left_as_it_was(run):
    images = batch(1, 16)
    images.flags.writeable = False
    run(nn.ReLU(inplace=True), images)
    np.testing.assert_array_equal(images, batch(1, 16))


def test_the_same_batch_gives_the_same_features(run):
    network = catalog.build("test_resnet", seed=3)
    np.testing.assert_array_equal(run(network, batch(3, 64)), run(network, batch(3, 64)))


def test_a_row_depends_on_its_own_image_only(run):
    network = catalog.build("test_resnet", seed=3)
    images, changed = batch(4, 64), batch(4, 64)
    changed[1:] = batch(3, 64, seed=9)
    np.testing.assert_array_equal(run(network, images)[0], run(network, changed)[0])


def test_what_is_not_finite_passes_through(run):
    images = batch(1, 4)
    images[0, 0, 0, :2] = np.nan, np.inf
    np.testing.assert_array_equal(run(nn.Identity(), images), images)


def test_no_gradient_is_recorded_nor_wanted(run):
    network = catalog.build("test_resnet", seed=3)
    run(network, batch(1, 64))
    assert all(parameter.grad is None for parameter in network.parameters())
