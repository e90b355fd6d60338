"""Versions of pictures made by Pillow, drawn from a seed, against pictures that have nothing in common."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from regraft.audit.similarity import SAME, SIDE, similarity, thumbnail


def picture(seed, size=(300, 200)):
    """A picture with large shapes, small ones and grain, as a photograph has."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (*cells, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC))
        for cells in ((4, 6), (13, 20), (67, 100))
    ]
    return Image.fromarray(np.average(layers, axis=0, weights=(5, 3, 1)).astype(np.uint8))


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image, left, top, right, bottom):
    width, height = image.size
    return image.crop((round(left * width), round(top * height), round(right * width), round(bottom * height)))


def paler(image):
    return ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.2)).enhance(0.7)


def compared(first, second):
    return similarity(*(thumbnail(np.asarray(image)) for image in (first, second)))


CHANGES = {
    "compressed": lambda image: jpeg(image, 15),
    "smaller": lambda image: image.resize((75, 50), Image.Resampling.BILINEAR),
    "larger": lambda image: image.resize((750, 500), Image.Resampling.BICUBIC),
    "another shape": lambda image: image.resize((200, 250)),
    "cropped": lambda image: cropped(image, 0.1, 0.05, 0.95, 0.8),
    "tilted": lambda image: image.rotate(1.5),
    "mirrored": ImageOps.mirror,
    "mirrored and cropped": lambda image: cropped(ImageOps.mirror(image), 0.0, 0.1, 0.85, 1.0),
    "framed": lambda image: ImageOps.expand(image, 30, "white"),
    "paler": paler,
    "grey": lambda image: image.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(4))
def test_a_changed_picture_is_the_same_picture(change, seed):
    image = picture(seed)
    assert compared(image, CHANGES[change](image)) >= SAME
    assert compared(CHANGES[change](image), image) >= SAME, "whichever comes first"


@pytest.mark.parametrize("seed", range(4))
def test_two_crops_of_one_picture_of_which_none_holds_the_other_are_one(seed):
    image = picture(seed)
    assert compared(cropped(image, 0, 0, 0.85, 0.9), cropped(image, 0.1, 0.15, 1, 1)) >= SAME


def test_different_pictures_are_different():
    thumbnails = [thumbnail(np.asarray(picture(seed))) for seed in range(10)]
    assert max(similarity(one, other) for one, other in combinations(thumbnails, 2)) < SAME / 2


def test_the_similarity_is_the_correlation_of_the_detail():
    """Of the thumbnails' means over two by two pixels, and what a Gaussian leaves of them, as scikit-image filters."""
    filters = pytest.importorskip("skimage.filters", reason="scikit-image is not installed")
    image = thumbnail(np.asarray(picture(0)))
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 10, image.shape), 0, 255).astype(np.uint8)
    means = [grey.astype(float).reshape(32, 2, 32, 2).mean(axis=(1, 3)) for grey in (image, noisy)]
    detail = [(mean - filters.gaussian(mean, 2, mode="nearest"))[1:-1, 1:-1].ravel() for mean in means]
    assert similarity(image, noisy) == pytest.approx(np.corrcoef(*detail)[0, 1], abs=0.05)


def test_pictures_that_share_their_light_and_dark_alone_are_different():
    lit = np.asarray(Image.radial_gradient("L").resize((300, 200)), float)[..., None]
    one, other = (Image.fromarray((0.8 * lit + 0.2 * np.asarray(picture(seed))).astype(np.uint8)) for seed in (0, 1))
    small = [
        np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), float).ravel() for image in (one, other)
    ]
    assert np.corrcoef(*small)[0, 1] > 0.9
    assert compared(one, other) < SAME


def test_a_negative_is_not_the_same_picture():
    assert compared(picture(0), ImageOps.invert(picture(0))) < SAME / 2


@pytest.mark.parametrize("other", [Image.new("RGB", (50, 50), "white"), Image.new("RGB", (80, 9), "black"), picture(0)])
def test_a_picture_of_one_colour_is_like_no_other(other):
    assert compared(Image.new("RGB", (50, 50), "white"), other) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (SIDE, SIDE)])
def test_every_size_becomes_a_square_thumbnail(size):
    small = thumbnail(np.asarray(picture(0).resize(size)))
    assert small.shape == (SIDE, SIDE)
    assert small.dtype == np.uint8
