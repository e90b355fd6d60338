"""The inputs of a fixed size: one for each way of preprocessing, and what the model makes of them."""

from __future__ import annotations

import os
import sys
import types
import warnings

import numpy as np
import torch
from torch import nn

from regraft.exports import fixed
from regraft.exports.quiet import quiet
from regraft.network.preprocess import Preprocess

SMALL, LARGE = Preprocess(size=8), Preprocess(size=12, resize="pad")


class Means(nn.Module):
    """The mean level of each of its inputs."""

    def forward(self, *images):
        return torch.stack([image.float().mean() for image in images])[None]


def whole(*rules):
    return types.SimpleNamespace(rules=rules, model=Means())


def test_backbones_that_preprocess_alike_share_an_input():
    module = fixed.Fixed(whole(SMALL, LARGE, SMALL))
    shapes = {name: tuple(image.shape) for name, image in module.examples().items()}
    assert shapes == {"image": (1, 8, 8, 3), "image_2": (1, 12, 12, 3)}
    images = {name: torch.full(shape, number) for number, (name, shape) in enumerate(shapes.items(), start=1)}
    assert module(**images).tolist() == [[1, 2, 1]]
    planes = {name: image.permute(0, 3, 1, 2) for name, image in images.items()}
    assert fixed.OfPlanes(module)(**planes).tolist() == [[1, 2, 1]]


def test_the_inputs_of_an_image_are_made_by_the_rules_that_the_text_holds():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20, 3)).astype(np.uint8)
    inputs = fixed.inputs(fixed.text([SMALL, LARGE]), pixels)
    np.testing.assert_array_equal(inputs["image"], SMALL(pixels)[None])
    np.testing.assert_array_equal(inputs["image_2"], LARGE(pixels)[None])


def test_nothing_that_a_library_prints_is_seen_and_afterwards_all_is(capfd):
    with quiet():
        print("from Python")
        os.write(1, b"from C")
        os.write(2, b"from C")
        print("from Python", file=sys.stderr)
        warnings.warn("a warning, which the tests' settings would make an error", stacklevel=1)
    os.write(1, b"out")
    os.write(2, b"err")
    assert capfd.readouterr() == ("out", "err")
