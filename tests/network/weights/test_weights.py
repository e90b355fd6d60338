import pytest
import torch

from regraft.core.errors import RefusedFile, UnknownName, WeightsMissing
from regraft.network import catalog, weights
from regraft.network.weights import Weights


@pytest.fixture
def network():
    return catalog.build("test_resnet")


@pytest.fixture
def tensors():
    return dict(catalog.build("test_resnet", num_classes=10, seed=1).state_dict())


def test_filling_changes_every_tensor_of_the_network_to_the_weights(network, tensors):
    weights.fill(network, tensors)
    state = network.state_dict()
    assert all(torch.equal(state[name], tensors[name]) for name in state)


def test_counters_of_batches_are_never_needed(network, tensors):
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(tensors)
    weights.fill(network, kept)


def test_what_lies_above_the_cut_may_be_missing(network, tensors):
    below = {name: tensor for name, tensor in tensors.items() if not name.startswith("layer4")}
    weights.fill(network, below, needed=set(below))
    with pytest.raises(RefusedFile, match=r"layer4\.0\.conv1\.weight.* and \d+ more.*lower cut"):
        weights.fill(network, below, needed=set(network.state_dict()))
    with pytest.raises(RefusedFile, match=r"layer4\.0\.conv1\.weight"):
        weights.fill(network, below)


def test_a_refused_file_leaves_the_network_as_it_was(network, tensors):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    del tensors["layer4.0.conv1.weight"]
    with pytest.raises(RefusedFile, match="lack 1 tensors"):
        weights.fill(network, tensors)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_wrong_shape_is_refused_by_name(network, tensors):
    tensors["conv1.0.weight"] = torch.zeros(3, 3)
    with pytest.raises(RefusedFile, match=r"conv1\.0\.weight .*\(3, 3\)"):
        weights.fill(network, tensors)


def test_integers_where_the_network_has_floats_are_refused_by_name(network, tensors):
    tensors["conv1.0.weight"] = tensors["conv1.0.weight"].to(torch.int8)
    with pytest.raises(RefusedFile, match=r"conv1\.0\.weight is torch\.int8"):
        weights.fill(network, tensors)


def test_weights_of_another_network_are_refused(network):
    with pytest.raises(RefusedFile, match=r"None of the \d+ tensors belongs to ResNet"):
        weights.fill(network, catalog.build("test_vit").state_dict())


def test_a_misspelled_source_is_answered_with_the_near_one():
    with pytest.raises(UnknownName, match="'builtin'"):
        weights.load("bultin", catalog.find("test_resnet"))
    with pytest.raises(UnknownName, match="'builtin'"):
        weights.source_of("bultin")


@pytest.mark.parametrize(("value", "source"), [("hub", "hub"), ("random", "random"), ("./w.pth", "file")])
def test_the_source_is_known_before_anything_is_read(value, source):
    assert weights.source_of(value) == source


def test_a_path_that_does_not_exist_is_missing():
    with pytest.raises(WeightsMissing, match="nowhere"):
        weights.load("nowhere/model.safetensors", catalog.find("test_resnet"))


def test_the_word_file_is_a_path_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not weights.is_path("file")
    (tmp_path / "file").mkdir()
    assert weights.is_path("file")
    assert not weights.is_path("hub")


@pytest.mark.parametrize("value", ["builtin", "random"])
def test_sources_that_need_no_network_load_what_fills_the_backbone(value):
    backbone = catalog.find("efficientnet_lite0")
    loaded = weights.load(value, backbone, seed=2)
    assert isinstance(loaded, Weights)
    assert (loaded.source, loaded.pretrained) == (value, value != "random")
    weights.fill(catalog.build(backbone, loaded.model_args), loaded.tensors)
