"""Runners of small trunks, for tests whose subject is not the network."""

import torch
from tests.conftest import PLAIN
from torch import nn

from regraft.core.options import make
from regraft.features.options import FeatureOptions
from regraft.inference.agreement import choose
from regraft.inference.runner import Runner
from regraft.network.build import build, build_with_tail
from regraft.network.own_backbone import own_backbone

OPTIONS = {"backbone": "test_resnet", "weights": "random", "size": 64, **PLAIN}


def runner(**choices):
    """What runs a trunk; with `tail` one whose features are maps."""
    options = make(FeatureOptions, {**OPTIONS, **choices})
    choice = choose(options.engine)
    if options.trains_tail:
        return Runner(build_with_tail(options.network, choice, options.tail)[0])
    return Runner(build(options.network, choice, options.tail.pool))


def small_runner(**choices):
    """What runs a trunk of one layer, always the same, built without timm, whose import takes a process longest."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    own = own_backbone(module, {"size": 64, "mean": [0.5] * 3, "std": [0.5] * 3})
    return runner(backbone=own, weights="builtin", **choices)
