"""Trunks and tails from options: the features, the sizes, the weights; and what is frozen stays frozen."""

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.conftest import PLAIN
from tests.network.trunks import SMALL, batch, features, network, normalised, options, output_of, trunk, trunk_and_tail
from torch import nn

from regraft.core.errors import RefusedFile, UnknownName, UsageError
from regraft.network import catalog
from regraft.network.build import build
from regraft.network.cut import find_cut
from regraft.network.frozen import frozen_half, trainable_half
from regraft.network.options import NetworkOptions
from regraft.network.preprocess import Preprocess
from regraft.network.trunk import Choice
from regraft.network.workaround_torchvision_nms import import_timm

# The features of an image


def test_pooled_features_are_those_of_timms_network():
    with torch.no_grad():
        expected = network()(normalised(batch())).numpy()
    np.testing.assert_allclose(features(trunk(), batch()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "cut", "size", "axes"),
    [
        (SMALL, "layer2", 64, (2, 3)),
        ("test_vit", "blocks.1", 160, (1,)),
        ("test_mambaout", "stages.1", 64, (1, 2)),  # (n, H, W, C)
        (SMALL, "layer4", 32, (2, 3)),  # one pixel is left
        (SMALL, "global_pool", 64, ()),
    ],
)
def test_a_map_becomes_its_mean_over_height_and_width_whatever_its_layout(backbone, cut, size, axes):
    built, images = trunk(backbone, cut=cut, size=size), batch(size=size)
    maps = output_of(network(backbone), cut, normalised(images, backbone))
    np.testing.assert_allclose(features(built, images), maps.mean(axes), rtol=1e-4, atol=1e-5)
    assert built.output_shape == maps.mean(axes).shape[1:]
    whole = trunk(backbone, cut=cut, size=size, pool="none")
    np.testing.assert_allclose(features(whole, images), maps, rtol=1e-4, atol=1e-5)
    assert whole.output_shape == maps.shape[1:]


def test_the_mean_knows_the_layout_where_the_shape_does_not_tell():
    built = trunk("test_mambaout", cut="stages.0")
    maps = output_of(network("test_mambaout"), "stages.0", normalised(batch(), "test_mambaout"))
    assert maps.shape[1:] == (16, 16, 16)  # height, width, channels: any of them could be the channels
    np.testing.assert_allclose(features(built, batch()), maps.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_cut_input_is_the_normalised_image_and_the_tail_the_network():
    built, tail = trunk_and_tail(cut="input")
    np.testing.assert_allclose(features(built, batch()), normalised(batch()), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        assert torch.equal(tail.module.eval()(normalised(batch())), network()(normalised(batch())))


def test_tail_of_trunk_is_the_network():
    built, tail = trunk_and_tail(cut="layer2")
    with torch.no_grad():
        outputs = tail.module.eval()(torch.from_numpy(features(built, batch())))
        expected = network()(normalised(batch()))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_random_weights_follow_the_seed_and_warn(caplog):
    with caplog.at_level(logging.WARNING, "regraft"):
        first = trunk(seed=1)
    assert "mean nothing unless they are trained" in caplog.text
    assert first.digest == trunk(seed=1).digest
    assert not np.array_equal(features(first, batch()), features(trunk(seed=2), batch()))


def test_installed_weights_do_not_warn(caplog):
    trunk("efficientnet_lite0", weights="builtin", size=32, cut="blocks.0")
    assert not caplog.records


# Frozen is frozen


def test_training_the_tail_leaves_every_tensor_of_the_trunk_bit_equal():
    built, tail = trunk_and_tail(cut="layer2")
    before, digest, outputs = built.hash_tensors(), built.digest, features(built, batch())
    built.module.train()
    model = nn.Sequential(built.module, tail.module, nn.Linear(96, 2)).train()
    start = {name: tensor.clone() for name, tensor in tail.module.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(3):
        loss = nn.functional.cross_entropy(model(torch.from_numpy(batch(4, seed=step))), torch.tensor([0, 1, 0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert built.hash_tensors() == before
    assert built.digest == digest == trunk_and_tail(cut="layer2")[0].digest
    np.testing.assert_array_equal(features(built, batch()), outputs)
    assert all(parameter.grad is None for parameter in built.module.parameters())
    assert not any(part.training for part in built.module.modules())
    moved = {name for name, tensor in tail.module.state_dict().items() if not torch.equal(tensor, start[name])}
    assert moved == set(start)  # weights, biases and BatchNorm's statistics: the tail did train


def test_the_tail_is_a_copy_that_wants_gradients_and_the_trunk_wants_none():
    built, tail = trunk_and_tail(cut="layer2")
    assert all(parameter.requires_grad for parameter in tail.module.parameters())
    assert not any(parameter.requires_grad for parameter in built.module.parameters())
    memory = [{tensor.data_ptr() for tensor in part.parameters()} for part in (tail.module, built.module)]
    assert not memory[0] & memory[1]


class Shared(nn.Module):
    """A network that has one and the same layer below and above the cut."""

    def __init__(self):
        super().__init__()
        self.layer, self.between = nn.Conv2d(3, 3, 1), nn.Sigmoid()

    def forward(self, x):
        return self.layer(self.between(self.layer(x))).mean((2, 3))


def test_training_a_layer_above_the_cut_leaves_it_frozen_below():
    cut = find_cut(Shared().eval(), "between")
    frozen, shape = frozen_half(cut, Preprocess(size=64), mean=False, layout="NCHW")
    tail, _ = trainable_half(cut, shape, mean=False, layout="NCHW")
    before = frozen.body.layer.weight.clone()
    optimizer = torch.optim.SGD([*tail.parameters(), *frozen.parameters()], lr=0.1)
    tail(frozen(torch.from_numpy(batch()))).square().sum().backward()
    optimizer.step()
    assert torch.equal(frozen.body.layer.weight, before)
    assert not torch.equal(tail.layer.weight, before)


# Sizes


def test_a_size_too_small_is_refused_with_the_smallest_that_works():
    with pytest.raises(UsageError, match="--size is 10") as refused:
        trunk("inception_v3", cut="mixed3", size=10)
    smallest = int(str(refused.value).split("at least ")[1].split()[0])
    whole = network("inception_v3")
    below = find_cut(whole, "Mixed_6a").trunk
    assert below(torch.zeros(1, 3, smallest, smallest)).numel() > 0
    with pytest.raises(RuntimeError):
        below(torch.zeros(1, 3, smallest - 1, smallest - 1))
    assert trunk("inception_v3", cut="mixed3", size=smallest).output_shape == (768,)


def test_a_tail_counts_when_the_smallest_size_is_looked_for():
    assert trunk("inception_v3", cut="mixed0", size=40).output_shape == (256,)
    with pytest.raises(UsageError, match="at least 75"):
        trunk_and_tail("inception_v3", cut="mixed0", size=40)


def test_a_network_of_one_size_is_built_for_the_size_asked_for():
    assert trunk("test_vit", size=96, cut="blocks.0", pool="none").output_shape == (1 + 36, 64)
    with pytest.raises(UsageError, match="at least 16"):
        trunk("test_vit", size=5)


def test_position_embeddings_of_a_file_are_resampled_as_timm_does(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_file(catalog.build("test_vit", seed=5).state_dict(), path)
    built = trunk("test_vit", weights=str(path), size=96)
    by_timm = import_timm().create_model(
        "test_vit", pretrained=True, num_classes=0, img_size=96, pretrained_cfg_overlay={"file": str(path)}
    )
    with torch.no_grad():
        expected = by_timm.eval()(normalised(batch(size=96), "test_vit")).numpy()
    np.testing.assert_allclose(features(built, batch(size=96)), expected, rtol=1e-4, atol=1e-5)


def test_weights_that_can_not_be_resampled_are_refused_with_their_own_size(tmp_path):
    path = tmp_path / "mixer.safetensors"
    save_file(catalog.build("mixer_s32_224").state_dict(), path)
    with pytest.raises(UsageError, match=r"--size is 96; .* is for 224 pixels"):
        trunk("mixer_s32_224", weights=str(path), size=96)


# Weights from files


def partial(path, upto):
    """Write a weights file that covers the network only up to a cut."""
    save_file(find_cut(network(), upto).trunk.state_dict(), path)
    return str(path)


def test_a_file_need_only_cover_what_is_at_and_below_the_cut(tmp_path):
    path = partial(tmp_path / "part.safetensors", "layer3")
    for cut in ("layer3", "layer1"):
        covered = features(trunk(cut=cut, weights=path), batch())
        np.testing.assert_array_equal(covered, features(trunk(cut=cut), batch()))


@pytest.mark.parametrize(
    ("build_it", "cut"), [(trunk, "pooled"), (trunk, "layer4"), (trunk_and_tail, "layer2")], ids=["1", "2", "tail"]
)
def test_a_file_that_ends_below_what_is_needed_is_refused_naming_what_and_up_to_where(tmp_path, build_it, cut):
    path = partial(tmp_path / "part.safetensors", "layer3")
    with pytest.raises(RefusedFile, match=r"layer4\.0\.conv1\.weight.*`--cut layer3`"):
        build_it(cut=cut, weights=path)


def folder(path, architecture=SMALL):
    path.mkdir()
    save_file(network(architecture).state_dict(), path / "model.safetensors")
    config = import_timm().models.get_pretrained_cfg(architecture).to_dict()
    described = {
        "architecture": architecture,
        "num_classes": 0,
        "pretrained_cfg": {**config, "input_size": [3, 96, 96]},
    }
    (path / "config.json").write_text(json.dumps(described))
    return str(path)


def test_a_weights_folder_says_its_own_architecture_and_size(tmp_path):
    built = build(NetworkOptions(weights=folder(tmp_path / "mine")), Choice(**PLAIN))
    assert built.recipe.architecture == SMALL
    assert built.preprocess.size == 96
    assert built.digest == trunk(size=96).digest


def test_another_backbone_than_the_folders_own_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"is for test_resnet, --backbone is 'resnet18'"):
        trunk("resnet18", weights=folder(tmp_path / "mine"))


def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(UnknownName, match="test_resnet"):
        trunk("test_resnett")
    with pytest.raises(UnknownName, match="layer2"):
        trunk(cut="layer_2")


# A tail that ends before the network does


def ended(weights="random", **choices):
    return trunk_and_tail(weights=weights, **{"cut": "layer2", "end": "layer3", **choices})


@pytest.mark.parametrize(("pool", "axes"), [("mean", (2, 3)), ("none", ())])
def test_a_tail_that_ends_early_gives_the_map_there_or_its_mean(pool, axes):
    built, tail = ended(pool=pool)
    expected = output_of(network(), "layer3", normalised(batch()))
    expected = expected.mean(axes) if axes else expected
    outputs = tail.module(torch.from_numpy(features(built, batch()))).detach().numpy()
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
    assert tail.output_shape == expected.shape[1:]


def test_a_tail_that_ends_early_needs_the_weights_up_to_its_end_alone(tmp_path):
    path = partial(tmp_path / "part.safetensors", "layer3")
    with pytest.raises(RefusedFile, match="--end layer3"):
        ended(path, end=None)
    assert ended(path)[0].digest == ended()[0].digest


def test_where_the_tail_ends_changes_nothing_of_what_is_stored():
    assert ended()[0].digest == ended(pool="none")[0].digest == ended(end=None)[0].digest


def test_an_end_without_a_tail_is_refused():
    with pytest.raises(UsageError, match="--end is 'layer3'; expected none without --tail"):
        options(cut="layer2", end="layer3")
