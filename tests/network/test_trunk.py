import dataclasses
import json
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file
from tests.conftest import PLAIN
from torch import nn

from regraft.core.errors import RefusedFile, UnknownName, UsageError
from regraft.core.options import make
from regraft.features.options import FeatureOptions
from regraft.network import agreement, catalog
from regraft.network.agreement import Choice
from regraft.network.cut import find_cut
from regraft.network.trunk import Trunk
from regraft.network.weights import random
from regraft.network.workaround_torchvision_nms import import_timm
from regraft.pipeline.extract import build_trunk as build

SMALL = "test_resnet"


def trunk(backbone=SMALL, tail=False, **choices):
    choices = {**PLAIN, "weights": "random", "size": 64, **choices}
    return build(make(FeatureOptions, dict(backbone=backbone, tail=tail, **choices)))


def batch(count=2, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def normalised(squares, backbone=SMALL):
    """The images as timm's networks take them, by timm's own description: (n, 3, S, S) float32."""
    config = import_timm().models.get_pretrained_cfg(backbone)
    images = (squares / 255 - np.array(config.mean)) / np.array(config.std)
    return torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))


def network(backbone=SMALL, seed=0):
    """The network with the same random weights, made without the trunk."""
    whole = catalog.build(backbone)
    whole.load_state_dict(random.load(catalog.find(backbone), seed=seed).tensors)
    return whole


def at(whole, path, images):
    """Return what the module at `path` gives inside the network, of normalised images."""
    seen = []
    whole.get_submodule(path).register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        whole(images)
    return seen[0].numpy()


def restored(built):
    description = json.loads(json.dumps(built.describe()))
    return Trunk.restore(description, load(save(built.tensors())), built.choice)


# what it says of an image


def test_pooled_features_are_those_of_timms_network():
    with torch.no_grad():
        expected = network()(normalised(batch())).numpy()
    np.testing.assert_allclose(trunk()(batch()), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "cut", "size", "places"),
    [
        (SMALL, "layer2", 64, (2, 3)),
        ("test_vit", "blocks.1", 160, (1,)),
        ("test_mambaout", "stages.1", 64, (1, 2)),  # (n, H, W, C)
        (SMALL, "layer4", 32, (2, 3)),  # one place is left
        (SMALL, "global_pool", 64, ()),
    ],
)
def test_a_map_becomes_its_mean_over_places_whatever_its_layout(backbone, cut, size, places):
    built, images = trunk(backbone, cut=cut, size=size), batch(size=size)
    maps = at(network(backbone), cut, normalised(images, backbone))
    np.testing.assert_allclose(built(images), maps.mean(places), rtol=1e-4, atol=1e-5)
    assert built.output_shape == maps.mean(places).shape[1:]
    whole = trunk(backbone, cut=cut, size=size, pool="none")
    np.testing.assert_allclose(whole(images), maps, rtol=1e-4, atol=1e-5)
    assert whole.output_shape == maps.shape[1:]


def test_the_mean_knows_the_layout_where_the_shape_does_not_tell():
    built = trunk("test_mambaout", cut="stages.0")
    maps = at(network("test_mambaout"), "stages.0", normalised(batch(), "test_mambaout"))
    assert maps.shape[1:] == (16, 16, 16)  # height, width, channels: any of them could be the channels
    np.testing.assert_allclose(built(batch()), maps.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_cut_input_is_the_normalised_image_and_the_tail_the_network():
    built = trunk(cut="input", tail=True)
    np.testing.assert_allclose(built(batch()), normalised(batch()), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        tail = built.tail.eval()(normalised(batch()))
        assert torch.equal(tail, network()(normalised(batch())))


def test_tail_of_trunk_is_the_network():
    built = trunk(cut="layer2", tail=True)
    with torch.no_grad():
        features = built.tail.eval()(torch.from_numpy(built(batch())))
        expected = network()(normalised(batch()))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_several_threads_may_ask_at_once_also_before_anything_was_asked(monkeypatch):
    images, starts = batch(24), []
    expected = trunk()(images)
    start = agreement.start
    monkeypatch.setattr(agreement, "start", lambda *arguments: starts.append(1) or start(*arguments))
    built = trunk()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(built, np.split(images, 8)))
    np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-4, atol=1e-5)
    assert len(starts) == 1


def test_no_images_have_no_features():
    assert trunk()(batch(0)).shape == (0, 96)


def test_random_weights_follow_the_seed_and_warn(caplog):
    with caplog.at_level(logging.WARNING, "regraft"):
        first = trunk(seed=1)
    assert "mean nothing unless they are trained" in caplog.text
    assert first.digest == trunk(seed=1).digest
    assert not np.array_equal(first(batch()), trunk(seed=2)(batch()))


def test_installed_weights_do_not_warn(caplog):
    build(make(FeatureOptions, dict(size=32, cut="blocks.0", **PLAIN)))
    assert not caplog.records


# frozen is frozen


def test_training_the_tail_leaves_every_tensor_of_the_trunk_bit_equal():
    built = trunk(cut="layer2", tail=True)
    before, digest, features = built.hash_tensors(), built.digest, built(batch())
    built.module.train()
    model = nn.Sequential(built.module, built.tail, nn.Linear(96, 2)).train()
    start = {name: tensor.clone() for name, tensor in built.tail.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(3):
        loss = nn.functional.cross_entropy(model(torch.from_numpy(batch(4, seed=step))), torch.tensor([0, 1, 0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert built.hash_tensors() == before
    assert built.digest == digest == trunk(cut="layer2", tail=True).digest
    np.testing.assert_array_equal(built(batch()), features)
    assert all(parameter.grad is None for parameter in built.module.parameters())
    assert not any(part.training for part in built.module.modules())
    moved = {name for name, tensor in built.tail.state_dict().items() if not torch.equal(tensor, start[name])}
    assert moved == set(start)  # weights, biases and BatchNorm's statistics: the tail did train


def test_hash_tensors_sees_one_changed_bit_of_a_parameter_and_of_a_buffer():
    built = trunk()
    before = built.hash_tensors()
    for named in (dict(built.module.named_parameters()), dict(built.module.named_buffers())):
        tensor = next(tensor for tensor in named.values() if tensor.is_floating_point())
        bits = tensor.data.reshape(-1).view(torch.int32)
        bits[0] ^= 1
        assert built.hash_tensors() != before
        bits[0] ^= 1
        assert built.hash_tensors() == before


def test_the_tail_is_a_copy_that_wants_gradients_and_the_trunk_wants_none():
    built = trunk(cut="layer2", tail=True)
    assert all(parameter.requires_grad for parameter in built.tail.parameters())
    assert not any(parameter.requires_grad for parameter in built.module.parameters())
    places = [{tensor.data_ptr() for tensor in part.parameters()} for part in (built.tail, built.module)]
    assert not places[0] & places[1]


class Shared(nn.Module):
    """A network that has one and the same layer below and above the cut."""

    def __init__(self):
        super().__init__()
        self.layer, self.between = nn.Conv2d(3, 3, 1), nn.Sigmoid()

    def forward(self, x):
        return self.layer(self.between(self.layer(x))).mean((2, 3))


def test_training_a_layer_above_the_cut_leaves_it_frozen_below():
    recipe = dataclasses.replace(trunk().recipe, cut="between")
    built = Trunk(recipe, find_cut(Shared().eval(), "between"), Choice("torch", "float32"), tail=True)
    before = built.hash_tensors()
    optimizer = torch.optim.SGD([*built.tail.parameters(), *built.module.parameters()], lr=0.1)
    built.tail(torch.from_numpy(built(batch()))).square().sum().backward()
    optimizer.step()
    assert built.hash_tensors() == before
    assert not torch.equal(built.tail.layer.weight, built.module.body.layer.weight)


# the digest


def test_the_digest_depends_on_all_that_decides_the_features():
    same = {"cut": "layer2", "size": 64}
    changes = [{}, {"seed": 1}, {"cut": "layer1"}, {"pool": "none"}, {"size": 65}, {"resize": "pad"}, {"tail": True}]
    built = [trunk(**{**same, **change}) for change in changes]
    others = [built[0].on(Choice("torch", "bfloat16")), built[0].on(Choice("openvino", "float32"))]
    assert len({each.digest for each in [*built, *others]}) == len(changes) + 2
    assert (built[0].stored, built[-1].stored) == ("float32", "bfloat16")  # why a tail's maps have another shelf


DIGESTS = [  # of the first version: features that a store has kept since then are found by them
    ({}, "torch", "float32", "efbeeed93c066b88a6f1a9c67f3fc1d3796491dbcde3f22a1d552b0b481208df"),
    ({}, "openvino", "bfloat16", "fc9924dcf11b43568207040b5eebd7d6740a85277c77ad1c6a1b50b6feecc2c7"),
    ({"cut": "layer2"}, "torch", "float32", "42c24964d57befbeeb87878c90580217a7de54febd986594336c66967c4e99b7"),
    (
        {"cut": "layer2", "pool": "none"},
        *("torch", "float32", "be2d7cf399e1793d1ad30e12cb91ec62f2aaddbe1de5c92cf0b4edb531676eee"),
    ),
    (
        {"cut": "layer2", "tail": True, "end": "layer3"},
        *("torch", "float32", "e02ae7b28fa42ccf01dffb5a7cd1b03685d763383bc66e442062fa9030b27420"),
    ),
]


@pytest.mark.parametrize(("choices", "engine", "precision", "digest"), DIGESTS)
def test_the_digest_of_a_trunk_is_what_it_always_was(tmp_path, monkeypatch, choices, engine, precision, digest):
    monkeypatch.setattr("regraft.network.trunk.DECODE_RULES", 2)  # it changes with these, as it must
    state = sorted(network().state_dict().items())
    levels = {name: (tensor, (place % 7 + 1) / 8) for place, (name, tensor) in enumerate(state)}
    tensors = {name: torch.full(tensor.shape, level).to(tensor.dtype) for name, (tensor, level) in levels.items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    built = trunk(weights=str(tmp_path / "weights.safetensors"), **choices)
    assert built.on(Choice(engine, precision)).digest == digest


def test_the_same_trunk_on_the_engine_it_had_has_the_digest_it_had():
    built = trunk()
    other = built.on(Choice("torch", "bfloat16"))
    assert built.digest != other.digest
    assert other.on(built.choice).digest == built.digest == trunk().digest
    assert other.hash_tensors() == built.hash_tensors() and other.describe() == built.describe()


def test_the_digest_does_not_depend_on_words_that_change_no_feature():
    assert trunk(pool="none").digest == trunk(pool="mean").digest  # pooled features are no map
    named = trunk("inception_v3", cut="mixed0", size=96)
    assert named.digest == trunk("inception_v3", cut="Mixed_5b", size=96).digest
    pooled = trunk(cut="layer2", pool="mean", tail=True)
    assert pooled.digest == trunk(cut="layer2", pool="none", tail=True).digest  # a tail wants the map whole


# keeping it


@pytest.mark.parametrize(
    ("backbone", "choices"),
    [
        (SMALL, {}),
        (SMALL, {"cut": "layer2", "tail": True}),
        (SMALL, {"cut": "input", "tail": True}),
        (SMALL, {"cut": "layer3", "resize": "pad"}),
        ("test_vit", {"size": 96, "cut": "blocks.2"}),
        ("test_mambaout", {"cut": "stages.0", "size": 128}),
        ("efficientnet_lite0", {"weights": "builtin", "cut": "blocks.2"}),
    ],
)
def test_a_restored_trunk_is_the_same(backbone, choices):
    built = trunk(backbone, **choices)
    images = batch(size=built.preprocess.size)
    again = restored(built)
    assert (again.digest, again.describe()) == (built.digest, built.describe())
    assert (again.hash_tensors(), again.output_shape) == (built.hash_tensors(), built.output_shape)
    np.testing.assert_array_equal(again(images), built(images))


def test_a_trunk_that_has_run_can_be_pickled_and_runs_again():
    built = trunk()
    features = built(batch())
    again = pickle.loads(pickle.dumps(built))
    np.testing.assert_array_equal(again(batch()), features)
    assert again.digest == built.digest and again.choice == built.choice


def test_a_copy_with_its_own_tail_goes_on_with_the_engine_that_runs(monkeypatch):
    built = trunk(cut="layer2", tail=True)
    features = built(batch())
    monkeypatch.setattr(agreement, "start", None)
    np.testing.assert_array_equal(built.with_own_tail()(batch()), features)


def test_a_restored_tail_is_the_trained_one():
    built = trunk(cut="layer2", tail=True)
    with torch.no_grad():
        for tensor in built.tail.state_dict().values():
            tensor.add_(1)
    again = restored(built)
    features = torch.from_numpy(built(batch()))
    assert torch.equal(again.tail.eval()(features), built.tail.eval()(features))
    assert {key: value.shape for key, value in again.tensors().items()} == {
        key: value.shape for key, value in built.tensors().items()
    }


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "hf-hub:timm/resnet18.a1_in1k"},
        {"architecture": "no_such_network"},
        {"architecture": "resnet10t"},
        {"architecture": 7},
        {"model_args": {"pretrained": True}},
        {"model_args": {"checkpoint_path": "elsewhere.pth"}},
        {"model_args": {"no_such_argument": 1}},
        {"model_args": None},
        {"cut": "layer2.0.conv2"},
        {"cut": "layer9"},
        {"cut": None},
        {"pool": "median"},
        {"weights": None},
        {"preprocess": {"size": -1}},
        {"preprocess": {}},
        {"tail": True},
    ],
)
def test_a_description_that_is_off_is_refused(change):
    built = trunk(cut="layer2")
    with pytest.raises(RefusedFile):
        Trunk.restore({**built.describe(), **change}, built.tensors(), built.choice)


@pytest.mark.parametrize("key", ["architecture", "model_args", "cut", "pool", "preprocess", "weights", "tail"])
def test_a_description_that_lacks_a_key_is_refused(key):
    built = trunk(cut="layer2")
    with pytest.raises(RefusedFile, match=key):
        described = {name: value for name, value in built.describe().items() if name != key}
        Trunk.restore(described, built.tensors(), built.choice)


@pytest.mark.parametrize("spoil", ["missing", "foreign", "shape", "kind", "none", "tail"])
def test_tensors_that_are_not_those_needed_are_refused(spoil):
    built = trunk(cut="layer2")
    tensors = built.tensors()
    name = next(iter(tensors))
    if spoil == "missing":
        del tensors[name]
    elif spoil == "foreign":
        tensors["layer4.0.conv1.weight"] = network().state_dict()["layer4.0.conv1.weight"]
    elif spoil == "shape":
        tensors[name] = tensors[name][..., :1]
    elif spoil == "kind":
        tensors[name] = tensors[name].long()
    elif spoil == "none":
        tensors = {}
    else:
        tensors["tail." + name] = tensors[name]
    with pytest.raises(RefusedFile):
        Trunk.restore(built.describe(), tensors, built.choice)


# sizes


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
        trunk("inception_v3", cut="mixed0", size=40, tail=True)


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
    np.testing.assert_allclose(built(batch(size=96)), expected, rtol=1e-4, atol=1e-5)


def test_weights_that_can_not_be_resampled_are_refused_with_their_own_size(tmp_path):
    path = tmp_path / "mixer.safetensors"
    save_file(catalog.build("mixer_s32_224").state_dict(), path)
    with pytest.raises(UsageError, match=r"--size is 96; .* is for 224 pixels"):
        trunk("mixer_s32_224", weights=str(path), size=96)


# weights from files


def partial(path, upto):
    """Write a weights file that covers the network only up to a cut."""
    save_file(find_cut(network(), upto).trunk.state_dict(), path)
    return str(path)


def test_a_file_need_only_cover_what_is_at_and_below_the_cut(tmp_path):
    path = partial(tmp_path / "part.safetensors", "layer3")
    for cut in ("layer3", "layer1"):
        np.testing.assert_array_equal(trunk(cut=cut, weights=path)(batch()), trunk(cut=cut)(batch()))


@pytest.mark.parametrize(("cut", "tail"), [("pooled", False), ("layer4", False), ("layer2", True)])
def test_a_file_that_ends_below_what_is_needed_is_refused_naming_what_and_up_to_where(tmp_path, cut, tail):
    path = partial(tmp_path / "part.safetensors", "layer3")
    with pytest.raises(RefusedFile, match=r"layer4\.0\.conv1\.weight.*`--cut layer3`"):
        trunk(cut=cut, weights=path, tail=tail)


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
    built = build(make(FeatureOptions, dict(weights=folder(tmp_path / "mine"), **PLAIN)))
    assert built.describe()["architecture"] == SMALL
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


def ended(weights="random", **choices):
    """A trunk whose tail ends before the network does."""
    choices = {**PLAIN, "backbone": SMALL, "size": 64, "cut": "layer2", "end": "layer3", "tail": True, **choices}
    return build(make(FeatureOptions, dict(weights=weights, **choices)))


@pytest.mark.parametrize(("pool", "axes"), [("mean", (2, 3)), ("none", ())])
def test_a_tail_that_ends_early_gives_the_map_there_or_its_mean(pool, axes):
    built = ended(pool=pool)
    expected = at(network(), "layer3", normalised(batch()))
    found = built.tail(torch.from_numpy(built(batch()))).detach().numpy()
    np.testing.assert_allclose(found, expected.mean(axes) if axes else expected, atol=1e-4)


def test_a_tail_that_ends_early_needs_the_weights_up_to_its_end_alone(tmp_path):
    path = partial(tmp_path / "part.safetensors", "layer3")
    with pytest.raises(RefusedFile, match="--end layer3"):
        ended(path, end=None)
    assert ended(path).digest == ended().digest


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_a_restored_tail_that_ends_early_is_the_trained_one(pool):
    built = ended(pool=pool)
    again = restored(built)
    features = torch.from_numpy(built(batch()))
    assert torch.equal(again.tail.eval()(features), built.tail.eval()(features))
    assert again.describe() == built.describe()


def test_where_the_tail_ends_changes_nothing_of_what_is_stored():
    assert ended().digest == ended(pool="none").digest == ended(end=None).digest


def test_a_description_of_before_there_was_an_end_goes_to_the_networks_own():
    built = trunk(cut="layer2", tail=True)
    description = {name: value for name, value in built.describe().items() if name != "end"}
    again = Trunk.restore(description, built.tensors(), built.choice)
    features = torch.from_numpy(built(batch()))
    assert torch.equal(again.tail.eval()(features), built.tail.eval()(features))


def test_an_end_without_a_tail_is_refused():
    with pytest.raises(UsageError, match="--end is 'layer3'; expected none without --tail"):
        make(FeatureOptions, {"cut": "layer2", "end": "layer3"})
