"""A trunk's digest, what is kept of it and of a tail, and how both come back from that."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.network.trunks import SMALL, batch, features, network, trunk, trunk_and_tail

from regraft.core.errors import RefusedFile
from regraft.network.build import restore, restore_tail
from regraft.network.trunk import Choice

# The digest


def test_the_digest_depends_on_all_that_decides_the_features():
    same = {"cut": "layer2", "size": 64}
    changes = [{}, {"seed": 1}, {"cut": "layer1"}, {"pool": "none"}, {"size": 65}, {"resize": "pad"}]
    built = [trunk(**{**same, **change}) for change in changes]
    for_tail, _ = trunk_and_tail(**same)
    others = [built[0].on(Choice("torch", "bfloat16")), built[0].on(Choice("openvino", "float32"))]
    assert len({each.digest for each in [*built, for_tail, *others]}) == len(changes) + 3
    assert (built[0].stored, for_tail.stored) == ("float32", "bfloat16")  # why a tail's maps have another shelf


DIGESTS = [  # of the first version: features that a store has kept since then are found by them
    ({}, "torch", "float32", "efbeeed93c066b88a6f1a9c67f3fc1d3796491dbcde3f22a1d552b0b481208df"),
    ({}, "openvino", "bfloat16", "fc9924dcf11b43568207040b5eebd7d6740a85277c77ad1c6a1b50b6feecc2c7"),
    ({"cut": "layer2"}, "torch", "float32", "42c24964d57befbeeb87878c90580217a7de54febd986594336c66967c4e99b7"),
    (
        {"cut": "layer2", "pool": "none"},
        *("torch", "float32", "be2d7cf399e1793d1ad30e12cb91ec62f2aaddbe1de5c92cf0b4edb531676eee"),
    ),
    (
        {"cut": "layer2", "end": "layer3"},
        *("torch", "float32", "e02ae7b28fa42ccf01dffb5a7cd1b03685d763383bc66e442062fa9030b27420"),
    ),
]


@pytest.mark.parametrize(("choices", "engine", "precision", "digest"), DIGESTS)
def test_the_digest_of_a_trunk_is_what_it_always_was(tmp_path, monkeypatch, choices, engine, precision, digest):
    monkeypatch.setattr("regraft.network.trunk.DECODE_RULES", 2)  # it changes with these, as it must
    state = sorted(network().state_dict().items())
    levels = {name: (tensor, (position % 7 + 1) / 8) for position, (name, tensor) in enumerate(state)}
    tensors = {name: torch.full(tensor.shape, level).to(tensor.dtype) for name, (tensor, level) in levels.items()}
    save_file(tensors, tmp_path / "weights.safetensors")
    choices = {**choices, "weights": str(tmp_path / "weights.safetensors")}
    built = trunk_and_tail(**choices)[0] if "end" in choices else trunk(**choices)
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
    pooled, _ = trunk_and_tail(cut="layer2", pool="mean")
    assert pooled.digest == trunk_and_tail(cut="layer2", pool="none")[0].digest  # a tail wants the map whole


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


# Keeping it


def kept(built, *, shape=True):
    """What a model folder keeps of a trunk: its description, with or without the features' shape, and its tensors."""
    description = json.loads(json.dumps(built.describe()))
    return description if shape else {name: value for name, value in description.items() if name != "output_shape"}


def restored(built, *, shape=True, for_tail=False):
    tensors = dict(built.tensors())
    return restore(kept(built, shape=shape), lambda: tensors, built.choice, for_tail=for_tail)


@pytest.mark.parametrize("shape", [True, False], ids=["described", "as before there was a shape"])
@pytest.mark.parametrize(
    ("backbone", "choices"),
    [
        (SMALL, {}),
        (SMALL, {"cut": "layer3", "resize": "pad"}),
        (SMALL, {"cut": "layer3", "pool": "none"}),
        ("test_vit", {"size": 96, "cut": "blocks.2"}),
        ("test_mambaout", {"cut": "stages.0", "size": 128}),
        ("efficientnet_lite0", {"weights": "builtin", "cut": "blocks.2"}),
    ],
)
def test_a_restored_trunk_is_the_same(backbone, choices, shape):
    built = trunk(backbone, **choices)
    images = batch(size=built.preprocess.size)
    again = restored(built, shape=shape)
    assert (again.digest, again.describe()) == (built.digest, built.describe())
    assert (again.hash_tensors(), again.output_shape) == (built.hash_tensors(), built.output_shape)
    np.testing.assert_array_equal(features(again, images), features(built, images))


@pytest.mark.parametrize("cut", ["layer2", "input"])
def test_a_restored_trunk_of_maps_for_a_tail_is_the_same(cut):
    built, _ = trunk_and_tail(cut=cut)
    again = restored(built, for_tail=True)
    assert (again.digest, again.describe(), again.stored) == (built.digest, built.describe(), "bfloat16")
    np.testing.assert_array_equal(features(again, batch()), features(built, batch()))


def test_a_described_trunk_knows_its_digest_and_shape_before_its_module_is_built(monkeypatch):
    built = trunk(cut="layer2")
    monkeypatch.setattr("regraft.network.catalog.build", None)
    again = restored(built)
    assert (again.digest, again.output_shape) == (built.digest, built.output_shape)
    assert {name: tensor.tolist() for name, tensor in again.tensors().items()} == {
        name: tensor.tolist() for name, tensor in built.tensors().items()
    }


def test_a_trunk_can_be_pickled():
    for built in (trunk(), trunk().on(Choice("torch", "bfloat16"))):
        again = pickle.loads(pickle.dumps(built))
        assert again.digest == built.digest and again.choice == built.choice
        np.testing.assert_array_equal(features(again, batch()), features(built, batch()))


@pytest.mark.parametrize("pool", ["mean", "none"])
@pytest.mark.parametrize("end", [None, "layer3"])
def test_a_restored_tail_is_the_trained_one(end, pool):
    built, tail = trunk_and_tail(cut="layer2", end=end, pool=pool)
    with torch.no_grad():
        for tensor in tail.module.state_dict().values():
            tensor.add_(1)
    tensors = dict(tail.network.tensors())
    again = restore_tail(built, tail.end, tail.pool, tail.output_shape, lambda: tensors)
    inputs = torch.from_numpy(features(built, batch()))
    assert torch.equal(again.module.eval()(inputs), tail.module.eval()(inputs))
    assert all(parameter.requires_grad for parameter in again.module.parameters())
    older = restore_tail(built, tail.end, tail.pool, None, lambda: tensors)
    assert older.output_shape == again.output_shape == tail.output_shape
    assert torch.equal(older.module.eval()(inputs), tail.module.eval()(inputs))


def test_a_copy_of_a_tail_is_trained_alone():
    _, tail = trunk_and_tail(cut="layer2")
    before = dict(tail.network.tensors())
    with torch.no_grad():
        next(tail.copy().module.parameters()).add_(1)
    assert all(np.array_equal(tensor, before[name]) for name, tensor in tail.network.tensors().items())


CHANGES = [
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
]


@pytest.mark.parametrize("shape", [True, False], ids=["described", "as before there was a shape"])
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_description_that_is_off_is_refused_at_the_latest_when_the_module_is_built(change, shape):
    built = trunk(cut="layer2")
    with pytest.raises(RefusedFile):
        _ = restore({**kept(built, shape=shape), **change}, built.tensors, built.choice).module


@pytest.mark.parametrize("shape", [[97], [], ["a"], 5, [96, 1]], ids=str)
def test_a_shape_that_is_not_the_features_own_is_refused(shape):
    built = trunk()
    with pytest.raises(RefusedFile):
        _ = restore({**kept(built), "output_shape": shape}, built.tensors, built.choice).module


@pytest.mark.parametrize("key", ["architecture", "model_args", "cut", "pool", "preprocess", "weights"])
def test_a_description_that_lacks_a_key_is_refused(key):
    built = trunk(cut="layer2")
    described = {name: value for name, value in kept(built).items() if name != key}
    with pytest.raises(RefusedFile, match=key):
        restore(described, built.tensors, built.choice)


@pytest.mark.parametrize("shape", [True, False], ids=["described", "as before there was a shape"])
@pytest.mark.parametrize("fault", ["missing", "foreign", "shape", "kind", "none"])
def test_tensors_that_are_not_those_needed_are_refused(fault, shape):
    built = trunk(cut="layer2")
    tensors = dict(built.tensors())
    name = next(iter(tensors))
    if fault == "missing":
        del tensors[name]
    elif fault == "foreign":
        tensors["layer4.0.conv1.weight"] = network().state_dict()["layer4.0.conv1.weight"].numpy()
    elif fault == "shape":
        tensors[name] = tensors[name][..., :1]
    elif fault == "kind":
        tensors[name] = tensors[name].astype(np.int64)
    else:
        tensors = {}
    with pytest.raises(RefusedFile):
        _ = restore(kept(built, shape=shape), lambda: tensors, built.choice).module


@pytest.mark.parametrize("fault", ["missing", "foreign", "none", "end", "pool", "output_shape"])
def test_what_is_not_a_trunks_tail_is_refused(fault):
    built, tail = trunk_and_tail(cut="layer2", end="layer3")
    tensors = dict(tail.network.tensors())
    description = {"end": "layer3", "pool": "mean", "output_shape": tail.output_shape}
    name = next(iter(tensors))
    if fault == "missing":
        del tensors[name]
    elif fault == "foreign":
        tensors["layer1.0.conv1.weight"] = tensors[name]
    elif fault == "none":
        tensors = {}
    else:
        description[fault] = {"end": "layer1", "pool": "median", "output_shape": (5,)}[fault]
    with pytest.raises(RefusedFile):
        _ = restore_tail(built, **description, read=lambda: tensors).module
