import io
import math
import os
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from regraft.core.errors import UsageError
from regraft.data.decode import decode
from regraft.network.preprocess import Preprocess
from regraft.network.workaround_torchvision_nms import import_timm

SIZES = [
    (8, 8),
    (32, 32),
    (500, 333),
    (333, 500),
    (224, 224),
    (256, 256),
    (257, 300),
    (1, 7),
    (9, 1),
    (97, 1400),
    (2, 3),
]
LEVELS = {"bilinear": 2, "bicubic": 2}  # torch's weights have fewer bits than Pillow's; the other filters are Pillow's
CROP_MODES = {"crop": "center", "pad": "border", "squash": "squash"}


def noise(width, height):
    """Noise that no filter makes overshoot 0…255: Pillow clips after each pass, and orders the two by the size."""
    return np.random.default_rng(width * 31 + height).integers(64, 192, (height, width, 3), np.uint8)


def smooth(width, height):
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(across / 9 + channel) + np.cos(down / 13 + channel) for channel in range(3)]
    return np.round(127 + 60 * np.stack(waves, axis=-1)).astype(np.uint8)


def by_timm(rule, pixels):
    """The network's input by timm, in levels of 0…255, (S, S, 3)."""
    transform = import_timm().data.create_transform(
        input_size=(3, rule.size, rule.size),
        is_training=False,
        interpolation=rule.interpolation,
        mean=np.array(rule.background) / 255,  # what timm pads with
        std=(1, 1, 1),
        crop_pct=rule.crop_share,
        crop_mode=CROP_MODES[rule.resize],
    )
    normalised = transform(Image.fromarray(pixels)).numpy().transpose(1, 2, 0)
    return np.rint(255 * normalised + rule.background)


def furthest(ours, theirs):
    return np.abs(ours - theirs).max()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("share", "side", "interpolation"),
    [
        (0.875, 224, "bilinear"),
        (0.875, 224, "bicubic"),
        (0.89, 260, "bicubic"),
        (0.95, 225, "lanczos"),
        (1.0, 64, "bilinear"),
        (1.0, 64, "bicubic"),
        (1.15, 97, "bicubic"),
        (1.15, 97, "nearest"),
    ],
)
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_crop_and_squash_equal_timms_evaluation_transform(size, share, side, resize, interpolation):
    rule = Preprocess(size=side, resize=resize, crop_share=share, interpolation=interpolation)
    ours = rule(noise(*size))
    assert ours.dtype == np.uint8
    assert ours.flags.c_contiguous
    assert furthest(ours, by_timm(rule, noise(*size))) <= LEVELS.get(interpolation, 0)


@pytest.mark.parametrize("interpolation", LEVELS)
@pytest.mark.parametrize("size", [(500, 375), (640, 427), (97, 1400), (1, 60_000), (60_000, 2), (3, 3)])
def test_a_resized_image_is_as_near_to_the_exact_one_as_pillows(size, interpolation):
    pixels = smooth(*size)
    ours = Preprocess(size=224, resize="squash", crop_share=1.0, interpolation=interpolation)(pixels)
    channels = torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(float))
    exact = torch.nn.functional.interpolate(channels, (224, 224), mode=interpolation, antialias=True)
    exact = exact[0].permute(1, 2, 0).numpy().clip(0, 255)
    pillow = np.asarray(Image.fromarray(pixels).resize((224, 224), Image.Resampling[interpolation.upper()]))
    assert furthest(ours, exact) < 1.15
    assert np.abs(ours - exact).mean() < np.abs(pillow - exact).mean() + 0.01


@pytest.mark.parametrize("share", [1.0, 0.9, 1.15])
@pytest.mark.parametrize("size", [(8, 8), (500, 333), (333, 501), (1, 7), (90, 31), (224, 223), (3, 100)])
def test_pad_equals_timms_border_on_the_mean_colour(size, share):
    rule = Preprocess(size=97, resize="pad", crop_share=share, background=(124, 116, 104))
    assert furthest(rule(noise(*size)), by_timm(rule, noise(*size))) <= 2


@pytest.mark.parametrize("size", [(1, 300), (400, 1), (7, 500), (640, 11)])
@pytest.mark.parametrize("share", [0.5, 0.875, 1.15])
def test_the_window_of_a_long_thin_image_is_the_one_of_the_whole_image_resized(size, share):
    rule = Preprocess(size=8, crop_share=share)
    assert max(size) / min(size) > 16
    assert furthest(rule(smooth(*size)), by_timm(rule, smooth(*size))) <= 1


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (2, 60_000)])
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_a_line_of_pixels_takes_no_memory_to_speak_of(size, resize):
    pixels = noise(*size)
    rule = Preprocess(size=224, resize=resize)
    tracemalloc.start()
    result = rule(pixels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.shape == (224, 224, 3)
    assert peak < 16 * 2**20


def test_pad_keeps_the_whole_image_centred_on_the_background():
    rule = Preprocess(size=10, resize="pad", crop_share=1.0, background=(255, 0, 0))
    result = rule(np.full((8, 20, 3), (0, 0, 255), np.uint8))
    expected = np.full((10, 10, 3), (255, 0, 0))
    expected[3:7] = 0, 0, 255
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("resize", CROP_MODES)
def test_an_array_that_is_read_only_or_a_view_is_taken_and_left_as_it_is(resize):
    whole = noise(60, 40)
    whole.setflags(write=False)
    rule = Preprocess(size=24, resize=resize)
    np.testing.assert_array_equal(rule(whole), rule(whole.copy()))
    np.testing.assert_array_equal(rule(whole[:, ::-1]), rule(whole[:, ::-1].copy()))
    np.testing.assert_array_equal(whole, noise(60, 40))


@pytest.mark.parametrize("resize", CROP_MODES)
@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos"])
def test_the_result_shares_no_memory_with_the_image(resize, interpolation):
    pixels = noise(24, 24)
    result = Preprocess(size=24, resize=resize, crop_share=1.0, interpolation=interpolation)(pixels)
    assert result.flags.writeable and not np.shares_memory(result, pixels)


@pytest.mark.parametrize("resize", CROP_MODES)
@pytest.mark.parametrize(("kind", "mean_levels"), [(smooth, 0.3), (noise, 2.5)])
def test_an_image_halved_down_to_the_least_side_gives_nearly_the_same_input(resize, kind, mean_levels):
    rule = Preprocess(size=64, resize=resize)
    pixels = kind(2 * rule.least_side + 100, 2 * rule.least_side)
    height, width, _ = pixels.shape
    halved = pixels.reshape(height // 2, 2, width // 2, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    assert np.abs(rule(pixels).astype(int) - rule(halved)).mean() < mean_levels


def as_jpeg(pixels, subsampling):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=90, subsampling=subsampling)
    return data.getvalue()


def scaled_against_whole(data, rule):
    """Differences of a JPEG's inputs, decoded smaller and in its whole size; None if it is not decoded smaller."""
    whole, smaller = decode(data), decode(data, rule.least_side)
    return None if whole.shape == smaller.shape else np.abs(rule(whole).astype(int) - rule(smaller))


@pytest.mark.parametrize("name", ["flower.jpg", "china.jpg"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("resize", CROP_MODES)
@pytest.mark.parametrize("size", [16, 40, 80])  # 1/8, 1/4 and 1/2 of the size
def test_a_photograph_decoded_smaller_gives_nearly_the_same_input(name, subsampling, resize, size):
    data = as_jpeg(load_sample_image(name)[:424], subsampling)
    difference = scaled_against_whole(data, Preprocess(size=size, resize=resize))
    assert difference.mean() < 1.2
    assert difference.max() <= 16


@pytest.mark.slow
@pytest.mark.skipif("REGRAFT_DATA" not in os.environ, reason="REGRAFT_DATA names no folder of photographs")
@pytest.mark.parametrize("size", [32, 64, 96])
def test_real_photographs_decoded_smaller_give_nearly_the_same_inputs(size):
    with zipfile.ZipFile(Path(os.environ["REGRAFT_DATA"]) / "cats-dogs.zip") as archive:
        files = [archive.read(name) for name in archive.namelist()[::10]]
    pairs = [scaled_against_whole(data, Preprocess(size=size)) for data in files]
    differences = [difference for difference in pairs if difference is not None]
    assert differences
    assert max(difference.mean() for difference in differences) < 1
    assert max(difference.max() for difference in differences) <= 16


def test_nearest_takes_single_pixels_so_that_none_may_be_averaged_before():
    assert Preprocess(size=64, interpolation="nearest").least_side == 0


def test_another_size_keeps_the_crop_share():
    rule = Preprocess(size=299, crop_share=0.875).adapted(size=150)
    assert (rule.size, rule.crop_share, rule.resize) == (150, 0.875, "crop")


@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_choosing_pad_or_squash_keeps_everything(resize):
    assert Preprocess(size=224, crop_share=0.875).adapted(resize=resize).crop_share == 1
    own = Preprocess(size=224, crop_share=0.9, resize=resize)
    assert own.adapted(resize=resize) == own


def test_the_rule_survives_its_dictionary():
    rule = Preprocess(size=10, resize="pad", background=(1, 2, 3), mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    assert Preprocess.from_dict(rule.to_dict()) == rule
    assert hash(Preprocess.from_dict(rule.to_dict())) == hash(rule)


@pytest.mark.parametrize(
    "name", ["resnet50.a1_in1k", "legacy_xception", "convnextv2_nano.fcmae_ft_in22k_in1k", "vgg16"]
)
def test_the_rule_of_timms_weights_is_timms_own(name):
    timm = import_timm()
    config = timm.models.get_pretrained_cfg(name).to_dict()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(pretrained_cfg=config), is_training=False)
    rule, pixels = Preprocess.from_timm(config), noise(400, 300)
    theirs = transform(Image.fromarray(pixels)).numpy().transpose(1, 2, 0)
    assert furthest(rule(pixels), 255 * (theirs * rule.std + rule.mean)) <= 2.001


def test_every_square_configuration_of_timm_is_understood():
    timm = import_timm()
    for name in timm.list_models(include_tags=True):
        config = timm.models.get_pretrained_cfg(name)
        if config.input_size[1] == config.input_size[2]:
            rule = Preprocess.from_timm(config.to_dict())
            assert (rule.size, rule.crop_share) == (config.input_size[1], config.crop_pct), name


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"resize": "stretch"},
        {"interpolation": "best"},
        {"crop_share": 0},
        {"crop_share": 2.1},
        {"std": (0, 1, 1)},
        {"mean": (0.5,)},
        {"mean": (math.nan, 0.5, 0.5)},
        {"std": (math.inf, 1, 1)},
    ],
)
def test_an_invalid_rule_is_refused(wrong):
    with pytest.raises(UsageError):
        Preprocess(**({"size": 224} | wrong))


def test_a_configuration_for_other_channels_or_shapes_is_refused():
    with pytest.raises(UsageError, match="red, green and blue"):
        Preprocess.from_timm({"input_size": (1, 224, 224), "mean": (0.5,), "std": (0.5,)})
    with pytest.raises(UsageError, match="square"):
        Preprocess.from_timm({"input_size": (3, 256, 128)})
