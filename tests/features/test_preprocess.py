import math
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from regraft.core.errors import UsageError
from regraft.features._torchvision import import_timm
from regraft.features.preprocess import Preprocess

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
CROP_MODES = {"crop": "center", "pad": "border", "squash": "squash"}


def picture(width, height):
    pixels = np.random.default_rng(width * 31 + height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def smooth_picture(width, height):
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(across / 9 + channel) + np.cos(down / 13 + channel) for channel in range(3)]
    return Image.fromarray(np.round(127 + 60 * np.stack(waves, axis=-1)).astype(np.uint8))


def by_timm(rule, image):
    transform = import_timm().data.create_transform(
        input_size=(3, rule.size, rule.size),
        is_training=False,
        interpolation=rule.interpolation,
        mean=rule.mean,
        std=rule.std,
        crop_pct=rule.crop_share,
        crop_mode=CROP_MODES[rule.resize],
    )
    return transform(image).numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("share", "side"), [(0.875, 224), (0.89, 260), (0.95, 225), (1.0, 64), (1.15, 97)])
@pytest.mark.parametrize("resize", ["crop", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crop_and_squash_equal_timms_evaluation_transform(size, share, side, resize, interpolation):
    rule = Preprocess(
        size=side,
        resize=resize,
        crop_share=share,
        interpolation=interpolation,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    ours = rule(picture(*size))
    assert ours.dtype == np.float32
    assert ours.flags.c_contiguous
    np.testing.assert_allclose(ours, by_timm(rule, picture(*size)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("share", [1.0, 0.9, 1.15])
@pytest.mark.parametrize("size", [(8, 8), (500, 333), (333, 501), (1, 7), (90, 31), (224, 223), (3, 100)])
def test_pad_equals_timms_border_on_the_mean_colour(size, share):
    mean = (0.485, 0.456, 0.406)
    background = tuple(round(255 * value) for value in mean)
    rule = Preprocess(size=97, resize="pad", crop_share=share, background=background, mean=mean)
    np.testing.assert_allclose(rule(picture(*size)), by_timm(rule, picture(*size)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 300), (400, 1), (7, 500), (640, 11)])
@pytest.mark.parametrize("share", [0.5, 0.875, 1.15])
def test_the_window_of_a_long_thin_image_is_the_one_of_the_whole_image_resized(size, share):
    rule = Preprocess(size=8, crop_share=share, mean=(0, 0, 0), std=(1, 1, 1))
    assert max(size) / min(size) > 16
    image = smooth_picture(*size)
    levels = 255 * np.abs(rule(image) - by_timm(rule, image))
    assert levels.max() <= 1.01  # Pillow rounds after each of its two passes, and orders them by the size


@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (2, 60_000)])
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_a_line_of_pixels_takes_no_memory_to_speak_of(size, resize):
    image = picture(*size)
    rule = Preprocess(size=224, resize=resize)
    tracemalloc.start()
    result = rule(image)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.shape == (3, 224, 224)
    assert np.isfinite(result).all()
    assert peak < 16 * 2**20


def test_pad_shows_the_whole_image_centred_on_the_background():
    rule = Preprocess(size=10, resize="pad", crop_share=1.0, background=(255, 0, 0), mean=(0, 0, 0), std=(1, 1, 1))
    result = rule(Image.new("RGB", (20, 8), (0, 0, 255)))
    expected = np.zeros((3, 10, 10), np.float32)
    expected[0] = 1  # red
    expected[:, 3:7] = np.array([0, 0, 1]).reshape(3, 1, 1)
    np.testing.assert_array_equal(result, expected)


def test_another_size_keeps_the_crop_share():
    rule = Preprocess(size=299, crop_share=0.875).adapted(size=150)
    assert (rule.size, rule.crop_share, rule.resize) == (150, 0.875, "crop")


@pytest.mark.parametrize("resize", ["pad", "squash"])
def test_choosing_pad_or_squash_shows_everything(resize):
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
    image = picture(400, 300)
    np.testing.assert_allclose(Preprocess.from_timm(config)(image), transform(image).numpy(), rtol=0, atol=1e-6)


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
def test_a_rule_that_can_not_be_meant_is_refused(wrong):
    with pytest.raises(UsageError):
        Preprocess(**({"size": 224} | wrong))


def test_a_configuration_for_other_channels_or_shapes_is_refused():
    with pytest.raises(UsageError, match="red, green and blue"):
        Preprocess.from_timm({"input_size": (1, 224, 224), "mean": (0.5,), "std": (0.5,)})
    with pytest.raises(UsageError, match="square"):
        Preprocess.from_timm({"input_size": (3, 256, 128)})
