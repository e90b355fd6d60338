"""What every engine must hold, asked of each file in engines/, in each precision that it has here."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from regraft.core import plugins
from regraft.inference import engines
from regraft.inference.agreement import run
from regraft.network import catalog
from regraft.network.frozen import Frozen
from regraft.network.preprocess import Preprocess

PRECISIONS = ("float32", "bfloat16", "int8")
EACH = list(itertools.product(plugins.names(engines), PRECISIONS))
NETWORKS = {"test_resnet": 64, "test_efficientnet": 64, "test_convnext": 64, "test_vit": 160}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def frozen(body, size):
    return Frozen(body.eval(), Preprocess(size=size, mean=MEAN, std=STD), ())


def images(count, size, seed=0):
    """Smooth noise, as photographs are smooth."""
    coarse = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8)).astype(np.float32))
    fine = nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    return fine.permute(0, 2, 3, 1).round().to(torch.uint8).contiguous().numpy()


def expected(body, images):
    """The network's output in double precision, of images that were normalised by hand."""
    normalised = (images.astype(np.float64) / 255 - MEAN) / STD
    with torch.no_grad():
        return body.double()(torch.from_numpy(normalised.transpose(0, 3, 1, 2))).numpy()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder for each network, so that one is converted once for all tests, and the engines share nothing."""
    return tmp_path_factory.mktemp("converted")


@pytest.fixture
def build(kept):
    """Build an engine in a precision, for a network by name or for any module; skip what this machine can't do."""

    def build(how, network, size=64):
        name, precision = how
        plugin = plugins.load(engines, name)
        if precision not in plugin.precisions():
            pytest.skip(f"{name} has no {precision} on this machine")
        if precision == "int8":
            pytest.importorskip("nncf")
        known = isinstance(network, str)
        folder = kept / name / (network if known else f"{id(network)}") / ("int8" if precision == "int8" else "float")
        folder.mkdir(parents=True, exist_ok=True)
        body = catalog.build(network, seed=3) if known else network
        module = frozen(body, size)
        return plugin.build(lambda: module, size, precision, folder, lambda count: images(count, size, seed=7))

    return build


def each(precisions=PRECISIONS):
    return pytest.mark.parametrize("how", [how for how in EACH if how[1] in precisions], ids="-".join)


@pytest.mark.parametrize("name", NETWORKS)
@each(["float32"])
def test_features_in_float32_are_those_of_double_precision(build, how, name):
    size = NETWORKS[name]
    engine, inputs = build(how, name, size), images(5, size)
    answer = expected(catalog.build(name, seed=3), inputs)
    np.testing.assert_allclose(
        run(engine, inputs, answer.shape[1:]), answer, rtol=1e-4, atol=1e-4 * np.abs(answer).max()
    )


@each(["bfloat16", "int8"])
def test_features_in_a_lower_precision_are_near_those_of_double_precision(build, how):
    engine, inputs = build(how, "test_resnet"), images(16, 64)
    answer = expected(catalog.build("test_resnet", seed=3), inputs)
    features = run(engine, inputs, answer.shape[1:])
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(answer, axis=1)
    assert ((features * answer).sum(1) / lengths).min() > (0.99 if how[1] == "bfloat16" else 0.95)
    assert not np.array_equal(features, answer.astype(np.float32))


@each()
def test_features_are_float32_in_c_order_and_the_callers_own(build, how):
    engine = build(how, "test_resnet")
    inputs = images(engine.batch, 64)
    first = engine(inputs)
    assert (first.dtype, first.flags.c_contiguous, first.flags.writeable) == (np.float32, True, True)
    assert first.shape == (engine.batch, 96)
    was = first.copy()
    engine(images(engine.batch, 64, seed=5))  # what the first call gave is not written over
    np.testing.assert_array_equal(first, was)


@each(["float32"])
def test_a_map_keeps_its_shape_and_its_places(build, how):
    class Halves(nn.Module):
        """Each channel shrunk by another rule, so that no axis can be taken for another."""

        def forward(self, images):
            return nn.functional.avg_pool2d(images, (2, 4)) * torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)

    engine, inputs = build(how, Halves(), 16), images(5, 16)
    answer = expected(Halves(), inputs)
    assert answer.shape == (5, 3, 8, 4)
    np.testing.assert_allclose(run(engine, inputs, answer.shape[1:]), answer, rtol=1e-4, atol=1e-5)


@each()
def test_the_images_are_left_as_they_were(build, how):
    engine = build(how, "test_resnet")
    inputs = images(engine.batch, 64)
    engine(inputs)
    np.testing.assert_array_equal(inputs, images(engine.batch, 64))


@each()
def test_the_same_images_give_the_same_features(build, how):
    engine = build(how, "test_resnet")
    inputs = images(engine.batch, 64)
    np.testing.assert_array_equal(engine(inputs), engine(inputs))


@each()
def test_a_row_depends_on_its_own_image_only_bit_for_bit(build, how):
    engine = build(how, "test_resnet")
    inputs, others = images(engine.batch, 64), images(engine.batch, 64, seed=9)
    others[0] = inputs[0]
    np.testing.assert_array_equal(engine(inputs)[0], engine(others)[0])


@each()
def test_several_threads_at_once_get_each_their_own(build, how):
    engine = build(how, "test_resnet")
    batches = [images(engine.batch, 64, seed) for seed in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(engine, batches))
    for features, batch in zip(together, batches, strict=True):
        np.testing.assert_allclose(features, engine(batch), rtol=1e-4, atol=1e-5)


@each(["float32"])
def test_no_gradient_is_recorded_and_the_module_stays_as_it_was(build, how):
    body = catalog.build("test_resnet", seed=3)
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    engine = build(how, body)
    engine(images(engine.batch, 64))
    assert all(parameter.grad is None for parameter in body.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in body.state_dict().items())
    assert not any(part.training for part in body.modules())


@pytest.mark.parametrize("name", plugins.names(engines))
def test_precisions_are_known_ones_best_first_and_int8_last(name):
    precisions = plugins.load(engines, name).precisions()
    assert set(precisions) <= set(PRECISIONS) and len(set(precisions)) == len(precisions)
    assert "int8" not in precisions[:-1]
    assert not precisions or "float32" in precisions


@pytest.mark.parametrize("name", plugins.names(engines))
def test_the_version_is_a_word(name):
    plugin = plugins.load(engines, name)
    assert not plugin.precisions() or plugin.version().strip()
