"""Each of Keras's networks, built by Keras with random weights and statistics, gives the same features here."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from regraft.network import catalog, weights
from regraft.network.cut import find_cut
from regraft.network.weights import file

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("tensorflow"), reason="needs Keras and TensorFlow: `.[keras]`"),
]

CUTS = {
    "InceptionV3": ["max_pooling2d_1", "mixed4", "mixed8"],
    "VGG16": ["block2_conv2", "block4_pool"],
    "VGG19": ["block3_conv1", "block4_pool"],
    "Xception": ["block1_conv1_act", "add_1", "block14_sepconv2_act"],
    "ResNet50": ["conv1_conv", "pool1_pool", "conv4_block6_out"],
    "MobileNet": ["conv1_relu", "conv_pw_5_relu", "conv_dw_12"],
    "MobileNetV2": ["Conv1_relu", "block_3_expand", "block_9_add", "block_16_project"],
}
LAYOUTS = ("weights.h5", "keras", "h5")


@pytest.fixture(scope="module", params=CUTS)
def reference(request, tmp_path_factory):
    """Return the name of a network, the folder of its files, and Keras's features of some images at some layers."""
    folder = tmp_path_factory.mktemp(request.param)
    script = Path(__file__).with_name("keras_network.py")
    command = [sys.executable, str(script), request.param, str(folder), *CUTS[request.param]]
    subprocess.run(command, check=True, capture_output=True)
    return request.param, folder, dict(np.load(folder / "features.npz"))


def entry_of(name):
    architecture = {"MobileNetV2": "mobilenet_v2", "InceptionV3": "inception_v3"}
    return catalog.find(architecture.get(name, name.lower()))


def inputs(images, preprocess):
    values = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return (values - mean) / std


def difference(ours, theirs):
    """The largest difference, as a fraction of the largest activation."""
    ours = ours.numpy()
    ours = ours.transpose(0, 2, 3, 1) if ours.ndim == 4 else ours
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_the_layers_are_keras_own_in_keras_order(reference):
    name, folder, _ = reference
    theirs = json.loads((folder / "layers.json").read_text())
    assert [[layer.name, layer.kind] for layer in entry_of(name).layers] == theirs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_its_top_every_cut_gives_what_keras_layer_gives(reference, layout):
    name, folder, features = reference
    entry = entry_of(name)
    assert file.architecture(folder / f"notop.{layout}") == entry.architecture
    loaded = weights.load(str(folder / f"notop.{layout}"), entry)
    network = catalog.build(entry, loaded.model_args)
    weights.fill(network, loaded.tensors)
    for key, theirs in features.items():
        size, cut = key.split(" ")
        if cut not in ("images", "logits"):
            trunk = find_cut(network, cut, entry.layers).trunk
            with torch.no_grad():
                ours = trunk(inputs(features[f"{size} images"], loaded.preprocess))
            assert difference(ours, theirs) < 1e-5, key


@pytest.mark.parametrize("layout", LAYOUTS)
def test_with_its_top_the_logits_are_keras_own(reference, layout):
    name, folder, features = reference
    entry = entry_of(name)
    loaded = weights.load(str(folder / f"top.{layout}"), entry)
    network = catalog.build(entry, loaded.model_args, num_classes=1000)
    weights.fill(network, loaded.tensors)
    size = loaded.preprocess.size
    with torch.no_grad():
        ours = network(inputs(features[f"{size} images"], loaded.preprocess))
    assert difference(ours, features[f"{size} logits"]) < 1e-5
