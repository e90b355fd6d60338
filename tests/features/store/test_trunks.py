"""Known trunks: the same options need no network a second time, and nothing else does without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
from safetensors.torch import save_file
from tests.conftest import PLAIN

import regraft
from regraft.core.errors import StoreError, UnknownName
from regraft.features.store.store import Store
from regraft.inference.engines import openvino
from regraft.inference.runner import Runner
from regraft.network import build as building
from regraft.network import catalog
from regraft.network.options import NetworkOptions
from regraft.network.own_backbone import own_backbone
from regraft.network.trunk import Choice

CHOICE = Choice(**PLAIN)
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def built(monkeypatch):
    """The networks that are built, from options or again from tensors."""
    names = []
    build = catalog.build
    monkeypatch.setattr(
        catalog, "build", lambda entry, *rest, **more: names.append(entry) or build(entry, *rest, **more)
    )
    return names


@pytest.fixture
def weights(tmp_path):
    save_file(catalog.build("test_resnet", seed=5).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def options(**choices):
    return NetworkOptions(**{"backbone": "test_resnet", "weights": "random", "size": 64, **choices})


def same(trunk, other):
    assert (trunk.digest, trunk.describe(), trunk.output_shape) == (other.digest, other.describe(), other.output_shape)
    assert trunk.hash_tensors() == other.hash_tensors()
    np.testing.assert_array_equal(Runner(trunk)(IMAGES), Runner(other)(IMAGES))


# Known again


@pytest.mark.parametrize("choices", [{}, {"cut": "layer2"}, {"backbone": "efficientnet_lite0", "weights": "builtin"}])
def test_the_same_options_build_no_network_a_second_time(store, built, choices):
    first = store.trunk(options(**choices), CHOICE)
    built.clear()
    again = store.trunk(options(**choices), CHOICE)
    assert (again.digest, again.output_shape) == (first.digest, first.output_shape)
    assert sorted(again.tensors()) == sorted(first.tensors())
    assert built == []
    same(again, first)
    assert len(built) == 1  # to be run by PyTorch


def test_a_file_of_weights_is_known_by_its_path_also_from_another_folder(store, built, weights, monkeypatch):
    first = store.trunk(options(weights=str(weights)), CHOICE)
    built.clear()
    monkeypatch.chdir(weights.parent)
    again = store.trunk(options(weights="./weights.safetensors"), CHOICE)
    assert again.digest == first.digest and built == []


def test_another_engine_or_precision_needs_no_other_record(store, built):
    first = store.trunk(options(), CHOICE)
    built.clear()
    other = store.trunk(options(), Choice("openvino", "bfloat16", tentative=True))
    assert other.choice.tentative and built == []
    assert other.digest == first.on(Choice("openvino", "bfloat16")).digest


def test_random_weights_warn_each_time(store, caplog):
    for _ in range(2):
        store.trunk(options(), CHOICE)
    assert caplog.text.count("mean nothing unless they are trained") == 2


# Not known


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"size": 96}, {"cut": "layer2"}, {"resize": "pad"}, {"backbone": "test_resnet.r160_in1k"}]
)
def test_other_options_are_another_trunk(store, built, change):
    first = store.trunk(options(), CHOICE)
    built.clear()
    other = store.trunk(options(**change), CHOICE)
    assert built != []
    assert (other.digest == first.digest) == ("backbone" in change)  # the same network by its name with a tag


def test_maps_that_are_not_pooled_are_another_trunk(store):
    pooled, whole = (store.trunk(options(cut="layer2"), CHOICE, pool) for pool in ("mean", "none"))
    assert len(whole.output_shape) == 3 and len(pooled.output_shape) == 1
    assert store.trunk(options(cut="layer2"), CHOICE, "none").output_shape == whole.output_shape


def test_a_changed_file_of_weights_is_read_again(store, weights):
    first = store.trunk(options(weights=str(weights)), CHOICE)
    changed = catalog.build("test_resnet", seed=6).state_dict()
    save_file(changed, weights)
    again = store.trunk(options(weights=str(weights)), CHOICE)
    assert again.digest != first.digest
    same(again, building.build(options(weights=str(weights)), CHOICE))


@pytest.mark.parametrize("name", ["torch", "timm"])
def test_another_version_of_what_builds_it_builds_it_again(store, built, monkeypatch, name):
    store.trunk(options(), CHOICE)
    built.clear()
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda package: "99" if package == name else version(package))
    store.trunk(options(), CHOICE)
    assert built != []


def test_wrong_words_are_refused_and_leave_nothing(store):
    with pytest.raises(UnknownName):
        store.trunk(options(cut="layer_2"), CHOICE)
    assert store.trunk_files() == []


def test_a_module_of_ones_own_leaves_no_record(store):
    own = own_backbone(catalog.build("test_resnet"), {"size": 64})
    store.trunk(NetworkOptions(backbone=own), CHOICE)
    assert store.trunk_files() == []


def spoil(path, how):
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "digit":  # valid JSON, and another digest
        record = json.loads(content)
        digest = record["record"]["tensors"]
        record["record"]["tensors"] = ("0" if digest[0] != "0" else "1") + digest[1:]
        path.write_text(json.dumps(record))
    else:
        path.write_bytes({"cut short": content[: len(content) // 2], "empty": b"", "other": b"[1, 2]"}[how])


@pytest.mark.parametrize("how", ["missing", "cut short", "empty", "other", "digit"])
def test_a_damaged_record_is_ignored_and_written_again(store, built, how):
    first = store.trunk(options(), CHOICE)
    (record,) = [path for path in store.trunk_files() if path.suffix == ".json"]
    spoil(record, how)
    assert store.trunk(options(), CHOICE).digest == first.digest
    built.clear()
    assert store.trunk(options(), CHOICE).digest == first.digest
    assert built == []


@pytest.mark.parametrize("how", ["missing", "cut short", "empty", "changed"])
def test_damaged_tensors_are_those_of_the_network_built_again(store, how):
    first = store.trunk(options(), CHOICE)
    (tensors,) = [path for path in store.trunk_files() if path.suffix == ".safetensors"]
    if how == "changed":
        content = bytearray(tensors.read_bytes())
        content[-3] ^= 1
        tensors.write_bytes(content)
    else:
        spoil(tensors, how)
    same(store.trunk(options(), CHOICE), first)


def test_tensors_that_can_not_be_had_again_are_never_replaced_by_others(store, weights):
    store.trunk(options(weights=str(weights)), CHOICE)
    known = store.trunk(options(weights=str(weights)), CHOICE)
    for path in store.trunk_files():
        path.unlink()
    save_file(catalog.build("test_resnet", seed=6).state_dict(), weights)
    with pytest.raises(StoreError, match="weights have changed"):
        known.tensors()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing refuses this user")
def test_a_store_that_can_not_be_written_has_no_records(store):
    store.folder.mkdir()
    store.folder.chmod(0o500)
    same(store.trunk(options(), CHOICE), building.build(options(), CHOICE))


# On the disk


def test_known_trunks_are_counted_and_cleared_and_nothing_else_of_their_folder_is(store):
    store.trunk(options(), CHOICE)
    store.trunk(options(cut="layer2"), CHOICE)
    taken = store.to_dict()["trunks"]["bytes"]
    assert taken > 2 * 1000 and store.to_dict()["bytes"] == taken
    assert "2 networks known by their options" in store.text()
    folder = store.folder / "trunks"
    foreign = [folder / "notes.json", folder / f"{'a' * 64}.txt", folder / f"{'b' * 63}.json"]
    for path in foreign:
        path.write_text("mine")
    (folder / f".{'c' * 64}.json.x7.regraft-partial").write_text("a write that was killed")
    assert store.clear() >= taken
    assert sorted(folder.iterdir()) == sorted(foreign)
    for path in foreign:
        path.unlink()
    store.trunk(options(), CHOICE)
    store.clear()
    assert list(store.folder.iterdir()) == []


def test_a_folder_of_the_name_that_is_a_link_is_left_alone(store, tmp_path):
    (tmp_path / "mine").mkdir()
    kept = tmp_path / "mine" / f"{'a' * 64}.json"
    kept.write_text("mine")
    store.folder.mkdir()
    (store.folder / "trunks").symlink_to(tmp_path / "mine", target_is_directory=True)
    assert (store.clear(), kept.read_text()) == (0, "mine")


TRAIN = """
import json, sys, regraft
regraft.train(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
print(*sorted({"torch", "timm", "torchvision", "sklearn", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.skipif(not openvino.precisions(), reason="OpenVINO is not installed")
def test_a_second_training_on_stored_features_imports_neither_pytorch_nor_timm(photos, tmp_path):
    # the seed decides random weights: those of the first run are asked for again
    choices = {"weights": "random", "seed": 3, "size": 64, "views": 0, "split": "0.5/0.25/0.25"}
    choices["store"] = str(tmp_path / "store")
    regraft.train(photos, tmp_path / "first", **choices)
    shutil.rmtree(tmp_path / "first")
    command = [sys.executable, "-c", TRAIN, str(photos), str(tmp_path / "second"), json.dumps(choices)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == ""
    model = regraft.load(tmp_path / "second", **PLAIN)
    assert model.trunk.module is not None  # what was saved without PyTorch is the whole network
