"""Small trunks and tails, and what they are held against: the same networks, run by timm's own code."""

import numpy as np
import torch
from tests.conftest import PLAIN

from regraft.core.options import make
from regraft.features.options import FeatureOptions
from regraft.inference.agreement import choose
from regraft.inference.runner import Runner
from regraft.network import catalog
from regraft.network.build import build, build_with_tail
from regraft.network.weights import random
from regraft.network.workaround_torchvision_nms import import_timm

SMALL = "test_resnet"


def options(backbone=SMALL, **choices):
    return make(FeatureOptions, {"backbone": backbone, **PLAIN, "weights": "random", "size": 64, **choices})


def trunk(backbone=SMALL, **choices):
    chosen = options(backbone, **choices)
    return build(chosen.network, choose(chosen.engine), chosen.tail.pool)


def trunk_and_tail(backbone=SMALL, **choices):
    chosen = options(backbone, tail=True, **choices)
    return build_with_tail(chosen.network, choose(chosen.engine), chosen.tail)


def features(built, images):
    """The features of images by a trunk, run by the engine that it chose."""
    return Runner(built)(images)


def batch(count=2, size=64, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def normalised(images, backbone=SMALL):
    """The images as timm's networks take them, by timm's own description: (n, 3, S, S) float32."""
    config = import_timm().models.get_pretrained_cfg(backbone)
    scaled = (images / 255 - np.array(config.mean)) / np.array(config.std)
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def network(backbone=SMALL, seed=0):
    """The network with the same random weights, made without the trunk."""
    whole = catalog.build(backbone)
    whole.load_state_dict(random.load(catalog.find(backbone), seed=seed).tensors)
    return whole


def output_of(whole, path, images):
    """Return the output of the module at `path` inside the network, of normalised images."""
    outputs = []
    whole.get_submodule(path).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        whole(images)
    return outputs[0].numpy()
