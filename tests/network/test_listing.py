import subprocess
import sys

import pytest
import torch

from regraft.core.errors import UnknownName
from regraft.network import catalog, listing
from regraft.network.workaround_torchvision_nms import import_timm


def test_the_listing_without_a_pattern_has_the_common_names():
    rows = listing.rows()
    assert [row["name"] for row in rows] == [entry.name for entry in catalog.families()]
    assert all(row["parameters"] and row["width"] and row["licence"] for row in rows)
    resnet = next(row for row in rows if row["name"] == "resnet50")
    # torchvision's documentation counts 25,557,032 with the classifier, which has 2048 · 1000 + 1000 of them
    assert resnet["parameters"] == 25_557_032 - 2_049_000


def test_a_wildcard_and_a_part_of_a_name_list_the_same_networks():
    timm = import_timm()
    assert {row["architecture"] for row in listing.rows("vgg*")} == set(timm.list_models("vgg*"))
    assert {row["architecture"] for row in listing.rows("gg1")} == set(timm.list_models("*gg1*"))


def test_a_common_name_is_listed_once_under_either_name():
    assert [row["name"] for row in listing.rows("tf_efficientnet_lite0")] == ["efficientnet_lite0"]
    assert [row["architecture"] for row in listing.rows("xception")].count("legacy_xception") == 1


def test_many_networks_are_listed_without_building_them():
    rows = listing.rows("*")
    shadowed = {"efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"}  # ours are timm's tf_… of that name
    assert len(rows) == len(set(import_timm().list_models()) - shadowed)
    others = [row for row in rows if row["name"] not in {entry.name for entry in catalog.families()}]
    assert {row["parameters"] for row in others} == {row["width"] for row in others} == {""}


def test_a_pattern_that_nothing_matches_is_answered_with_near_names():
    with pytest.raises(UnknownName, match="resnet50"):
        listing.rows("resnet5O")


def test_the_listing_says_which_weights_are_on_this_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    rows = {row["name"]: row["weights"] for row in listing.rows()}
    assert rows["efficientnet_lite0"].endswith("efficientnet-lite0-57934424.pth")
    assert rows["xception"] == ""
    fetched = tmp_path / "hub" / "checkpoints" / "xception-43020ad28.pth"
    fetched.parent.mkdir(parents=True)
    fetched.write_bytes(b"")
    assert {row["name"]: row["weights"] for row in listing.rows()}["xception"] == str(fetched)


def test_the_common_names_are_listed_without_timm_or_torch():
    script = """
import sys
from regraft.network import listing
assert len(listing.text(listing.rows()).splitlines()) > 10
assert not {"torch", "timm", "torchvision"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["TORCH_HOME", "XDG_CACHE_HOME", "HOME"])
def test_the_cache_of_torch_is_where_torch_has_it(name, tmp_path, monkeypatch):
    for variable in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, str(tmp_path))
    script = "import sys; from regraft.network.weights import hub; print('torch' in sys.modules, hub._checkpoints())"
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == f"False {torch.hub.get_dir()}/checkpoints"
