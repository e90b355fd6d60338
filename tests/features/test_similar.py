"""Which images are versions of one picture: made by Pillow from pictures that have nothing in common."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from tests.data.pictures import VERSIONS, cropped, product, saved, scene

from regraft.features.alignment import SIZE, correlations, same_picture
from regraft.features.similar import NEAREST, fingerprint, representatives


def fingerprints(*images):
    return np.array([fingerprint(np.asarray(image.convert("RGB"))) for image in images]).reshape(-1, SIZE)


def are_same(first, second):
    return bool(same_picture(fingerprints(first), fingerprints(second))[0])


@pytest.mark.parametrize("change", VERSIONS)
@pytest.mark.parametrize("seed", range(3))
def test_another_version_is_the_same_picture_whichever_comes_first(change, seed):
    image = scene(seed)
    assert are_same(image, VERSIONS[change](image))
    assert are_same(VERSIONS[change](image), image)


@pytest.mark.parametrize("change", ["quality 30", "half as large", "mirrored", "cropped by 5 %"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_product_on_white_has_versions_too(change, seed):
    assert are_same(product(seed), VERSIONS[change](product(seed)))


def test_many_pictures_and_a_version_of_each_are_as_many_pictures():
    originals = [scene(seed) for seed in range(40)]
    kinds = list(VERSIONS.values())
    versions = [kinds[number % len(kinds)](image) for number, image in enumerate(originals)]
    chosen = representatives(fingerprints(*originals, *versions))
    np.testing.assert_array_equal(chosen[:40], chosen[40:])
    assert len(set(chosen.tolist())) == 40


def test_different_bottles_and_lids_on_white_are_different_pictures():
    chosen = representatives(fingerprints(*(product(seed) for seed in range(60))))
    np.testing.assert_array_equal(chosen, np.arange(60))


def test_one_shape_in_two_colours_of_one_brightness_is_two_pictures():
    red, green = (Image.new("RGB", (64, 64), "white") for _ in range(2))
    red.paste((200, 0, 0), (16, 16, 48, 48))
    green.paste((0, 102, 0), (16, 16, 48, 48))
    assert np.abs(np.subtract(red.convert("L"), green.convert("L"), dtype=float)).max() <= 1
    assert are_same(red, saved(red, quality=80))
    assert not are_same(red, green)


def test_handwritten_digits_are_different_pictures_but_for_a_few():
    digits = pytest.importorskip("sklearn.datasets").load_digits().images[:600]
    images = (Image.fromarray((pixels * 255 / 16).round().astype(np.uint8)) for pixels in digits)
    chosen = representatives(fingerprints(*images))
    assert np.count_nonzero(chosen != np.arange(600)) <= 6


def test_no_chain_is_followed():
    """A window that moves over a wide picture: each is a version of the next, the first and the last share nothing."""
    wide = scene(5, (1000, 180))
    windows = fingerprints(*(wide.crop((left, 0, left + 240, 180)) for left in range(0, 700, 12)))
    assert all(same_picture(windows[[one]], windows[[other]])[0] for one, other in pairwise(range(len(windows))))
    chosen = representatives(windows)
    assert 5 <= len(set(chosen.tolist())) < len(windows)
    assert same_picture(windows[chosen], windows).all(), "each is a version of the one that represents it"


def test_more_versions_than_candidates_are_one_picture():
    image = scene(0)
    versions = [saved(image, quality=quality) for quality in range(40, 40 + 4 * NEAREST)]
    chosen = representatives(fingerprints(*versions, scene(1)))
    assert len(set(chosen[:-1].tolist())) == 1
    assert chosen[-1] == len(versions)


def test_what_changes_a_picture_for_the_eye_is_another_picture():
    assert not are_same(scene(0), ImageOps.invert(scene(0)))
    assert not are_same(scene(0), ImageEnhance.Color(scene(0)).enhance(0))
    assert not are_same(scene(0), scene(0).rotate(90))
    assert not are_same(scene(0), cropped(scene(0), 0, 0, 0.6, 0.6))


@pytest.mark.parametrize("other", [Image.new("RGB", (50, 50), "white"), Image.new("L", (80, 9)), scene(0)])
def test_a_picture_of_one_colour_is_like_no_other(other):
    assert not are_same(Image.new("RGB", (50, 50), "white"), other)
    np.testing.assert_array_equal(representatives(fingerprints(Image.new("RGB", (50, 50), "white"), other)), [0, 1])


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (8, 8)])
def test_every_size_has_a_fingerprint(size):
    one = fingerprint(np.asarray(scene(0).resize(size)))
    assert one.shape == (SIZE,)
    assert one.dtype == np.uint8


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_are_as_many_pictures(count):
    np.testing.assert_array_equal(representatives(fingerprints(*[scene(0)] * count)), np.arange(count))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: ImageOps.expand(image, 20, "white"),
        lambda image: ImageOps.mirror(ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.3)).enhance(0.7)),
        lambda image: image.rotate(3),
    ],
    ids=["framed", "lightened and mirrored", "tilted"],
)
def test_a_picture_that_is_changed_by_more_still_correlates_and_another_does_not(change):
    prints = np.array([fingerprint(np.asarray(scene(seed))) for seed in range(8)])
    changed = np.array([fingerprint(np.asarray(change(scene(seed)))) for seed in range(8)])
    assert (correlations(prints, changed) > 0.8).all()
    assert (correlations(prints, np.roll(changed, 1, axis=0)) < 0.8).all()
