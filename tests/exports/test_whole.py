"""The whole as one module: what it makes of an image of any size is what regraft's preprocessing makes of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from regraft.core.errors import UsageError
from regraft.exports.whole import Resize, _resized_sides, _start, whole
from regraft.network import preprocess
from regraft.network.preprocess import Preprocess

SIZES = [(1, 1), (1, 7), (9, 1), (3, 40), (64, 64), (65, 64), (100, 77), (73, 74), (500, 375), (333, 1000), (2048, 1)]


def photograph(height, width, seed=0):
    """Soft patches of colour with noise on them."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.integers(20, 235, (9, 9, 3)), np.ones((height // 9 + 1, width // 9 + 1, 1)))
    return (patches[:height, :width] + rng.integers(-20, 21, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize("share", [0.875, 1.0, 1.3])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_the_inputs_are_those_of_the_preprocessing(resize, interpolation, share):
    rule = Preprocess(size=64, resize=resize, crop_share=share, interpolation=interpolation, background=(10, 200, 30))
    module = Resize(rule)
    for height, width in SIZES:
        pixels = photograph(height, width)
        inputs = module(torch.from_numpy(pixels)[None])[0].numpy()
        differences = np.abs(inputs - rule(pixels).astype(np.float32))
        assert differences.max() <= 2 and np.mean(differences > 0) < 0.01, (height, width)


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_the_sides_are_those_of_the_preprocessing_to_the_pixel(resize, monkeypatch):
    sides, resized = [], preprocess.resized
    monkeypatch.setattr(
        preprocess, "resized", lambda pixels, wanted, *more: sides.append(wanted) or resized(pixels, wanted, *more)
    )
    for size, share, (height, width) in itertools.product(
        (17, 224), (0.875, 0.95), itertools.product(range(1, 60, 4), (1, 8, 30, 31, 64, 333))
    ):
        rule = Preprocess(size=size, resize=resize, crop_share=share)
        if resize == "crop" and max(height, width) > 15 * min(height, width):
            continue  # of these only a part is resized
        rule(np.zeros((height, width, 3), np.uint8))
        computed = _resized_sides(rule, torch.tensor(height), torch.tensor(width))
        assert tuple(map(int, computed)) == sides.pop(), (size, share, height, width)


def test_the_middle_starts_where_the_preprocessing_has_it():
    for side, size in itertools.product(range(1, 30), range(1, 30)):
        assert int(_start(torch.tensor(side), size)) == preprocess._start(side, size)


def test_a_filter_that_no_matrix_has_is_refused_by_name():
    class Model:
        class Trunk:
            preprocess = Preprocess(size=8, interpolation="lanczos")

        trunks = (Trunk,)

    with pytest.raises(UsageError, match="'lanczos'; an export can have bilinear or bicubic"):
        whole(Model)
