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


def test_a_tag_keeps_what_is_known_of_the_family():
    entry = catalog.find("inception_v3.tf_in1k")
    assert (entry.architecture, entry.tag) == ("inception_v3", "tf_in1k")
    assert {layer.name: layer.path for layer in entry.layers}["mixed7"] == "Mixed_6e"


@pytest.mark.parametrize(
    "name", ["hf-hub:timm/resnet50.a1_in1k", "local-dir:/tmp", "resnet50.nothing", "resnet50.", ""]
)
def test_what_is_no_name_is_refused(name):
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


def test_model_arguments_are_followed():
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


def test_model_arguments_that_the_network_does_not_take_are_refused():
    with pytest.raises(RefusedFile, match="wheels"):
        catalog.build("test_resnet", {"wheels": 4})


def test_the_listing_without_a_pattern_has_the_common_names():
    rows = catalog.listing()
    assert [row["name"] for row in rows] == [entry.name for entry in catalog.families()]
    assert all(row["parameters"] and row["width"] and row["licence"] for row in rows)
    resnet = next(row for row in rows if row["name"] == "resnet50")
    # torchvision's documentation counts 25,557,032 with the classifier, which has 2048 · 1000 + 1000 of them
    assert resnet["parameters"] == 25_557_032 - 2_049_000


def test_a_wildcard_and_a_part_of_a_name_list_the_same_networks():
    timm = import_timm()
    assert {row["architecture"] for row in catalog.listing("vgg*")} == set(timm.list_models("vgg*"))
    assert {row["architecture"] for row in catalog.listing("gg1")} == set(timm.list_models("*gg1*"))


def test_a_common_name_is_listed_once_under_either_name():
    assert [row["name"] for row in catalog.listing("tf_efficientnet_lite0")] == ["efficientnet_lite0"]
    assert [row["architecture"] for row in catalog.listing("xception")].count("legacy_xception") == 1


def test_many_networks_are_listed_without_building_them():
    rows = catalog.listing("*")
    shadowed = {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}  # ours are timm's tf_… of that name
    assert len(rows) == len(set(import_timm().list_models()) - shadowed)
    assert {row["parameters"] for row in rows} == {row["width"] for row in rows} == {""}


def test_a_pattern_that_nothing_matches_is_answered_with_near_names():
    with pytest.raises(UnknownName, match="resnet50"):
        catalog.listing("resnet5O")


def test_the_listing_says_which_weights_are_on_this_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    rows = {row["name"]: row["weights"] for row in catalog.listing()}
    assert rows["efficientnet_lite0"].endswith("efficientnet-lite0-57934424.pth")
    assert rows["xception"] == ""
    fetched = tmp_path / "hub" / "checkpoints" / "xception-43020ad28.pth"
    fetched.parent.mkdir(parents=True)
    fetched.write_bytes(b"")
    assert {row["name"]: row["weights"] for row in catalog.listing()}["xception"] == str(fetched)


def test_importing_the_catalogue_imports_no_torch():
    script = "import sys, regraft.network.catalog; assert not {'torch', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
