import inspect
import subprocess
import sys

import pytest
import torch

from regraft.core.errors import RefusedFile, UnknownName
from regraft.network import catalog
from regraft.network.workaround_torchvision_nms import import_timm


@pytest.mark.parametrize("name", ["test_resnet", "convnext_tiny", "inception_v3.tf_in1k", "tf_efficientnet_lite3"])
def test_every_name_of_timm_is_found_with_or_without_a_tag(name):
    entry = catalog.find(name)
    assert entry.name == entry.timm_name == name
    assert entry.architecture in import_timm().list_models()


def test_a_name_with_a_tag_keeps_the_familys_layers():
    entry = catalog.find("inception_v3.tf_in1k")
    assert (entry.architecture, entry.tag) == ("inception_v3", "tf_in1k")
    assert {layer.name: layer.path for layer in entry.layers}["mixed7"] == "Mixed_6e"


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet50.a1_in1k", "local-dir:/tmp", "resnet50.nothing", "resnet50.", ""]
)
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UnknownName, match="regraft backbones"):
        catalog.find(name)


def test_a_misspelled_name_is_answered_with_near_ones():
    with pytest.raises(UnknownName, match="'efficientnet_lite0'"):
        catalog.find("efficientnet-lite0")


def test_the_same_seed_builds_the_same_network_and_leaves_torchs_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (catalog.build("test_resnet", seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_network_is_built_without_its_classifier_unless_it_is_asked_for():
    images = torch.zeros(1, 3, 64, 64)
    assert catalog.build("resnet18")(images).shape == (1, 512)  # He et al. 2015, table 1
    assert catalog.build("resnet18", num_classes=7)(images).shape == (1, 7)


def test_model_arguments_shape_the_network():
    network = catalog.build("inception_v3", {"aux_logits": True})
    assert network.aux_logits


@pytest.mark.parametrize(
    "name", ["pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable"]
)
def test_model_arguments_that_make_timm_fetch_or_read_are_refused(name):
    with pytest.raises(RefusedFile, match=name):
        catalog.build("test_resnet", {name: "x"})


def test_a_network_is_keras_own_on_request_only_where_keras_has_it():
    assert catalog.build("resnet50", {"keras": "notop"}).conv1.bias is not None
    with pytest.raises(RefusedFile, match=r"Keras's resnet18"):
        catalog.build("resnet18", {"keras": "notop"})
    with pytest.raises(RefusedFile, match="'top' or 'notop'"):
        catalog.build("resnet50", {"keras": "yes"})


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"in_chans": 4}, "4 channels"),
        ({"num_features": 10**9}, "num_features"),
        ({"layers": [2, 2, 2, 10**9]}, "layers"),
        ({"drop_rate": float("nan")}, "drop_rate"),
        ({"layers": [2, 2, 2, 400], "channels": [64, 128, 256, 8000]}, "parameters"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_model_arguments_that_would_make_a_network_that_no_memory_holds_are_refused(arguments, reason):
    with pytest.raises(RefusedFile, match=reason):
        catalog.build("resnet18", arguments)


def test_model_arguments_that_the_network_does_not_take_are_refused():
    with pytest.raises(RefusedFile, match="wheels"):
        catalog.build("test_resnet", {"wheels": 4})


def test_a_common_name_is_looked_up_without_torch_or_timm():
    script = """
import sys
from regraft.network import catalog
for entry in catalog.families():
    assert catalog.find(entry.name) == entry
    assert catalog.find(entry.architecture).layers == entry.layers
assert not {'torch', 'timm'} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_tag_of_other_weights_leaves_the_facts_of_the_usual_ones_out():
    assert catalog.find("resnet50.a1_in1k").facts is None
    assert catalog.find("resnet50").facts.licence == "apache-2.0"


def test_the_arguments_that_a_file_must_not_set_are_known_without_timm():
    timm = import_timm()
    for function in (timm.create_model, timm.models.build_model_with_cfg):
        for name in inspect.signature(function).parameters:
            with pytest.raises(RefusedFile, match=f"have '{name}', which is not an argument of the network"):
                catalog.check_arguments("resnet18", {name: "x"}, ask_timm=False)
    catalog.check_arguments("resnet18", {"stem_width": 32, "keras": "notop"}, ask_timm=False)
