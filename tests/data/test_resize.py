import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

from regraft.data.resize import by_numpy, resized


def by_torch(pixels, sides, interpolation):
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(batch, sides, mode=interpolation, antialias=True).permute(0, 2, 3, 1)[0]


def noise(kind, height, width, rng):
    levels = rng.integers(0, 256, (height, width, 3), np.uint8)
    return levels if kind == "levels" else 255 * (levels % 2)  # black and white: the filters overshoot and are clipped


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("kind", ["levels", "black and white"])
def test_numpy_gives_torchs_pixels_bit_for_bit(kind, interpolation):
    rng = np.random.default_rng(0)
    for _ in range(250):
        height, width, *sides = (int(np.exp(rng.uniform(0, 6))) for _ in range(4))
        pixels = noise(kind, height, width, rng)
        expected = by_torch(pixels, sides, interpolation).numpy()
        np.testing.assert_array_equal(by_numpy(pixels, sides, interpolation), expected, f"{pixels.shape} to {sides}")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sides", [(256, 1), (1, 384), (480, 640), (479, 640), (480, 641), (960, 1280), (7, 3)])
def test_the_usual_and_the_extreme_sizes_are_torchs_too(sides, interpolation):
    pixels = noise("levels", 480, 640, np.random.default_rng(1))
    np.testing.assert_array_equal(by_numpy(pixels, sides, interpolation), by_torch(pixels, sides, interpolation))
    np.testing.assert_array_equal(resized(pixels, sides, interpolation), by_torch(pixels, sides, interpolation))


def test_an_image_that_shrinks_a_thousandfold_is_torchs_too():
    pixels = noise("black and white", 60_000, 2, np.random.default_rng(2))
    np.testing.assert_array_equal(by_numpy(pixels, (31, 9), "bicubic"), by_torch(pixels, (31, 9), "bicubic"))


def test_an_image_is_preprocessed_without_torch_and_with_it_to_the_same_pixels():
    script = """
import sys
import numpy as np
from regraft.network.preprocess import Preprocess
from regraft.data.resize import import_torch_for
pixels = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
rules = [Preprocess(size=224, resize=resize, interpolation=interpolation)
         for resize in ("crop", "pad", "squash") for interpolation in ("bilinear", "bicubic", "lanczos")]
without = [rule(pixels) for rule in rules]
import_torch_for(1, views=False)
assert "torch" not in sys.modules
import_torch_for(1, views=True)
assert "torch" in sys.modules
assert all(np.array_equal(first, rule(pixels)) for first, rule in zip(without, rules, strict=True))
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_large_image_is_torchs_too_and_needs_little_memory_besides_its_own():
    pixels = noise("levels", 4000, 4500, np.random.default_rng(3))
    tracemalloc.start()
    result = by_numpy(pixels, (329, 370), "bicubic")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(result, by_torch(pixels, (329, 370), "bicubic"))
    assert peak < pixels.nbytes


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_a_window_of_the_result_is_what_is_there_of_the_whole(interpolation):
    rng = np.random.default_rng(4)
    for _ in range(50):
        height, width, *sides = (int(np.exp(rng.uniform(0, 6))) for _ in range(4))
        top, left = (int(rng.integers(side)) for side in sides)
        kept = slice(top, top + int(rng.integers(1, 300))), slice(left, left + int(rng.integers(1, 300)))
        pixels = noise("levels", height, width, rng)
        whole = resized(pixels, sides, interpolation)
        np.testing.assert_array_equal(resized(pixels, sides, interpolation, kept), whole[kept])
        if interpolation != "lanczos":
            np.testing.assert_array_equal(by_numpy(pixels, sides, interpolation, kept), whole[kept])
