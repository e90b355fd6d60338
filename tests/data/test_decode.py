"""Each decoding rule against NumPy, a formula, or a file built byte by byte."""

from __future__ import annotations

import base64
import io
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from tests.data.images import chunk, encode, on_white, png, three, tiff, waves

from regraft.core.errors import UsageError
from regraft.data import budget
from regraft.data.decode import MAX_PIXELS, BrokenImage, decode, read_header

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
ALPHA[0, :2] = 0, 255

LOSSLESS = {"PNG": {}, "WebP": {"lossless": True, "exact": True}, "BMP": {}, "TIFF": {}}


def pixels(data):
    array = decode(data)
    assert array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3
    assert array.flags.c_contiguous and array.flags.writeable
    return array


# Formats


@pytest.mark.parametrize("kind", LOSSLESS)
def test_a_lossless_file_keeps_its_pixels_and_its_size(kind):
    data = encode(COLOURS, kind, **LOSSLESS[kind])
    assert read_header(data)[:2] == (kind, (7, 5))
    np.testing.assert_array_equal(pixels(data), COLOURS)


def test_a_jpeg_is_near_its_source():
    flat = np.full((16, 16, 3), (200, 50, 90), np.uint8)
    data = encode(flat, "JPEG", quality=95)
    assert read_header(data)[:2] == ("JPEG", (16, 16))
    np.testing.assert_allclose(pixels(data), flat, atol=3)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "MPO", "WebP"])
def test_of_several_frames_or_pages_the_first_is_taken(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert read_header(data).format == ("JPEG" if kind == "MPO" else kind)
    np.testing.assert_allclose(pixels(data), np.full((16, 16, 3), (255, 0, 0)), atol=3)


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x20ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b'<?xml version="1.0"?>\n<!-- a drawing -->\n<svg xmlns="x">', "SVG"),
        (b"P6\n2 2\n255\n", "PNM"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"\0\0\0\x18ftypmp42", "film"),
        (b"RIFF\0\0\0\0WAVEfmt ", "sound"),
        (b"", "empty"),
        (b"any words", "not an image"),
    ],
)
@pytest.mark.parametrize("use", [read_header, decode])
def test_another_format_is_refused_by_its_name(use, start, named):
    with pytest.raises(BrokenImage, match=named):
        use(start + b" " * 100 if start else b"")


# JPEG, whose pixels are libjpeg-turbo's, against Pillow's


ARITHMETIC = base64.b64decode(  # 8 x 8, by libjpeg-turbo's jcarith.c
    "/9j/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtqeJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqmx5moq6T/2wBDARweHigjKE"
    "4rK06kbl1upKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKT/yQARCAAIAAgDASIAAhEBAxEB/8wACgAQ"
    "EAUBEBEF/9oADAMBAAIRAxEAPwD+2QcHhJePo+jPdV+A/9k="
)
FLAT = np.full(64, 300)  # a table of quantisation in 16 bits
JPEGS = {
    "4:2:0": {},
    "4:2:2": {"subsampling": 1},
    "4:4:4": {"subsampling": 0, "quality": 95},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 1},
    "coarse": {"qtables": [FLAT.tolist()] * 2},
    "RGB": {"keep_rgb": True},
    "thumbnail": {"exif": b"Exif\0\0II*\0" + encode(COLOURS, "JPEG")},
}


def by_pillow(data):
    """Pillow's own pixels, or None if it refuses the file."""
    try:
        with JpegImageFile(io.BytesIO(data)) as image:
            return np.array(image.convert("RGB"))
    except Exception:
        return None


def same(actual, expected):
    return actual is expected is None or (actual is not None and np.array_equal(actual, expected))


def pixels_or_none(data, min_side=0):
    try:
        return decode(data, min_side)
    except BrokenImage:
        return None


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8), (17, 33), (100, 9), (160, 120)])
@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_has_the_pixels_that_pillow_decodes(kind, size):
    data = encode(waves(*size), "JPEG", **JPEGS[kind])
    np.testing.assert_array_equal(pixels(data), by_pillow(data))
    np.testing.assert_array_equal(pixels(data + b"and more"), by_pillow(data))
    if kind not in ("4:2:2", "4:4:4", "RGB"):
        data = encode(waves(*size)[..., 0].copy(), "JPEG", **JPEGS[kind])
        np.testing.assert_array_equal(pixels(data), by_pillow(data))


def test_an_arithmetic_coded_jpeg_is_read():
    np.testing.assert_array_equal(pixels(ARITHMETIC), by_pillow(ARITHMETIC))
    x, y = np.meshgrid(np.arange(8), np.arange(8))
    np.testing.assert_allclose(pixels(ARITHMETIC), np.dstack([13 * x + y, 17 * y, 128 + x - y]), atol=40)


@pytest.mark.parametrize("transform", [0, 1, 2, 9])
def test_adobes_mark_is_followed_as_pillow_does(transform):
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform])
    for picture in (waves(24, 18), waves(24, 18)[..., 0].copy()):
        data = encode(picture, "JPEG")
        data = data[:2] + adobe + data[20:]  # instead of JFIF's
        np.testing.assert_array_equal(pixels(data), by_pillow(data))


@pytest.mark.parametrize("kind", JPEGS)
def test_a_damaged_jpeg_is_refused_at_every_size_or_read_as_pillow_reads_it(kind):
    data = encode(waves(32, 16), "JPEG", **JPEGS[kind])
    rng = np.random.default_rng(2)
    refused = 0
    for at in range(2, len(data), 5):
        changed = data[:at] + rng.bytes(rng.integers(0, 3)) + data[at + 1 :]
        if at > 2 and stated_size(changed) == (32, 16):
            for damaged in (data[:at], changed):
                actual = pixels_or_none(damaged)
                refused += actual is None
                assert actual is None or same(actual, by_pillow(damaged))
                for min_side in (1, 5):
                    assert (pixels_or_none(damaged, min_side) is None) == (actual is None)
    assert refused > 10


def stated_size(data):
    try:
        return read_header(data).size
    except BrokenImage:
        return None


@pytest.mark.parametrize(
    ("size", "min_side", "expected"),
    [
        ((640, 480), 0, (640, 480)),
        ((640, 480), 1, (80, 60)),
        ((640, 480), 60, (80, 60)),
        ((640, 480), 61, (160, 120)),
        ((640, 480), 121, (320, 240)),
        ((640, 480), 241, (640, 480)),
        ((636, 480), 1, (159, 120)),
        ((638, 480), 1, (319, 240)),
        ((640, 479), 1, (640, 479)),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_decoded_smaller_as_far_as_its_sides_divide_and_min_side_allows(
    size, min_side, expected, progressive
):
    data = encode(waves(*size), "JPEG", progressive=progressive)
    height, width, _ = decode(data, min_side).shape
    assert (width, height) == expected


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("subsampling", [0, 2])  # 4:2:2 at 1/8 has one colour for two pixels
@pytest.mark.parametrize("grey", [False, True])
def test_a_smaller_jpeg_is_near_the_means_of_blocks_of_the_full_one(scale, subsampling, grey):
    picture = waves(320, 240)
    data = encode(picture[..., 0].copy() if grey else picture, "JPEG", quality=90, subsampling=subsampling)
    means = pixels(data).reshape(240 // scale, scale, 320 // scale, scale, 3).mean(axis=(1, 3))
    difference = np.abs(decode(data, 240 // scale) - means)
    assert difference.mean() < 2
    assert difference.max() < 30


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_smaller_jpeg_is_turned_upright_too(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain, turned = (encode(waves(64, 32), "JPEG", **options) for options in ({}, {"exif": exif}))
    np.testing.assert_array_equal(decode(turned, 8), UPRIGHT[orientation](decode(plain, 8)))


@pytest.mark.parametrize("kind", LOSSLESS)
def test_only_a_jpeg_is_decoded_smaller(kind):
    data = encode(waves(64, 32), kind, **LOSSLESS[kind])
    np.testing.assert_array_equal(decode(data, 1), waves(64, 32))


def test_inks_are_left_to_pillow_at_every_size():
    data = flat_cmyk_jpeg((200, 100, 50, 180), 0)
    np.testing.assert_array_equal(decode(data, 1), pixels(data))


# Orientation: where row 0 and column 0 of the stored picture belong, EXIF 2.3 section 4.6.4

UPRIGHT = {
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.transpose(1, 0, 2),  # left, top
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],  # right, top
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda a: a.transpose(1, 0, 2)[::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF"])
def test_each_exif_orientation_is_turned_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = LOSSLESS.get(kind, {"quality": 100})
    as_stored = pixels(encode(COLOURS, kind, **options))
    turned = pixels(encode(COLOURS, kind, exif=exif, **options))
    np.testing.assert_array_equal(turned, UPRIGHT[orientation](as_stored))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encode(COLOURS, "PNG", exif=exif)), COLOURS)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"MM\0*\0\0\0\x08\xff"]
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_damaged_exif_does_not_break_a_good_image(kind, exif):
    options = LOSSLESS.get(kind, {})
    expected = pixels(encode(COLOURS, kind, **options))
    np.testing.assert_array_equal(pixels(encode(COLOURS, kind, exif=exif, **options)), expected)


# Grey, palettes, alpha


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_grey_and_1_bit_become_three_equal_channels(kind):
    np.testing.assert_array_equal(pixels(encode(GREY, kind)), three(GREY))
    bits = GREY > 127
    np.testing.assert_array_equal(pixels(encode(bits, kind)), three(bits * 255))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_gives_its_colours(kind):
    codes = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
    palette = np.array([[250, 1, 2], [3, 240, 4], [5, 6, 230], [9, 9, 9]], np.uint8)
    image = Image.fromarray(codes)
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(pixels(encode(image, kind)), palette[codes])


def test_a_palette_with_alpha_is_laid_on_white():
    palette, alphas = np.array([[250, 1, 2], [3, 240, 4], [5, 6, 230]], np.uint8), np.array([0, 100, 255])
    data = png(
        3, 1, 8, 3, [bytes([0, 1, 2])], chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", alphas.astype("u1").tobytes())
    )
    np.testing.assert_array_equal(pixels(data)[0], on_white(palette, alphas))


def test_a_transparent_gif_colour_becomes_white():
    image = Image.fromarray(np.array([[0, 1]], np.uint8))
    image.putpalette([255, 0, 0, 0, 0, 255])
    np.testing.assert_array_equal(pixels(encode(image, "GIF", transparency=0)), [[(255, 255, 255), (0, 0, 255)]])


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_alpha_is_laid_on_white_to_the_nearest_level(kind):
    data = encode(np.dstack([COLOURS, ALPHA]), kind, **LOSSLESS[kind])
    np.testing.assert_array_equal(pixels(data), on_white(COLOURS, ALPHA))
    if kind != "WebP":
        data = encode(np.dstack([GREY, ALPHA]), kind)
        np.testing.assert_array_equal(pixels(data), on_white(three(GREY), ALPHA))


@pytest.mark.parametrize("kind", ["PNG", "WebP", "TIFF"])
def test_the_hidden_colour_of_a_transparent_pixel_has_no_influence(kind):
    other = COLOURS.copy()
    other[ALPHA == 0] ^= 255
    one, two = (encode(np.dstack([colour, ALPHA]), kind, **LOSSLESS[kind]) for colour in (COLOURS, other))
    assert one != two
    np.testing.assert_array_equal(pixels(one), pixels(two))


def test_premultiplied_alpha_is_divided_out_first():
    grey, alpha = np.array([100, 40, 0]), np.array([255, 80, 0])
    stored = np.column_stack([grey * alpha // 255, alpha]).astype(np.uint8)
    data = tiff(3, 1, stored.tobytes(), t258=(8, 8), t262=1, t277=2, t338=1)
    np.testing.assert_allclose(pixels(data)[0], three(stored[:, 0].astype(int) + 255 - alpha), atol=1)
    colour = np.array([[100, 200, 50], [40, 80, 120], [0, 0, 0]])
    stored = np.column_stack([colour * alpha[:, None] // 255, alpha]).astype(np.uint8)
    data = tiff(3, 1, stored.tobytes(), t258=(8, 8, 8, 8), t262=2, t277=4, t338=1)
    np.testing.assert_allclose(pixels(data)[0], stored[:, :3] + (255 - alpha[:, None]), atol=1)


def test_the_transparent_colour_of_a_png_without_alpha_becomes_white():
    grey = png(3, 1, 8, 0, [bytes([10, 20, 30])], chunk(b"tRNS", struct.pack(">H", 20)))
    np.testing.assert_array_equal(pixels(grey), [three(np.array([10, 255, 30]))])
    colour = png(2, 1, 8, 2, [bytes([1, 2, 3, 4, 5, 6])], chunk(b"tRNS", struct.pack(">HHH", 4, 5, 6)))
    np.testing.assert_array_equal(pixels(colour), [[(1, 2, 3), (255, 255, 255)]])


def test_the_transparent_colour_of_a_16_bit_png_becomes_white():
    grey = png(2, 1, 16, 0, [struct.pack(">HH", 700, 60000)], chunk(b"tRNS", struct.pack(">H", 60000)))
    np.testing.assert_array_equal(pixels(grey), [three(np.array([3, 255]))])
    stored = struct.pack(">6H", 0x1111, 0x2222, 0x3333, 0x8012, 0x9034, 0xA056)
    colour = png(2, 1, 16, 2, [stored], chunk(b"tRNS", stored[6:]))
    np.testing.assert_array_equal(pixels(colour), [[(0x11, 0x22, 0x33), (255, 255, 255)]])


# More than 8 bits

DEEP = np.array([[0, 1, 128, 129, 257, 385, 386, 30000, 65534, 65535]], np.uint16)


def test_16_bit_grey_is_scaled_not_clipped():
    expected = three(np.floor(DEEP / 257 + 0.5))
    for data in (
        png(10, 1, 16, 0, [DEEP.astype(">u2").tobytes()]),
        encode(DEEP, "TIFF"),
        tiff(10, 1, DEEP.astype("<u2").tobytes(), t258=16, t262=1),
    ):
        np.testing.assert_array_equal(pixels(data), expected)
    big_endian = Image.frombytes("I;16B", (10, 1), DEEP.astype(">u2").tobytes())
    np.testing.assert_array_equal(pixels(encode(big_endian, "TIFF")), expected)


def test_16_bit_grey_with_white_as_zero_is_turned_round():
    data = tiff(10, 1, DEEP.astype("<u2").tobytes(), t258=16, t262=0)
    np.testing.assert_array_equal(pixels(data), three(255 - np.floor(DEEP / 257 + 0.5)))


def test_12_bit_grey_fills_the_range():
    data = tiff(2, 1, bytes([0x80, 0x0F, 0xFF]), t258=12, t262=1)  # 0x800 and 0xFFF, packed
    np.testing.assert_array_equal(pixels(data), [three(np.array([round(0x800 * 255 / 4095), 255]))])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0, 0.25, 0.5, 1]), [0, 64, 128, 255]),
        (np.float32([0, 3, 200.4, 255]), [0, 3, 200, 255]),
        (np.float32([0, 300, 40000, 65535]), [0, 1, 156, 255]),
        (np.float32([-1, 0, 0.5, 1]), [0, 128, 191, 255]),
        (np.float32([1e6, 2e6, 3e6, 5e6]), [0, 64, 128, 255]),
        (np.float32([7e9] * 4), [0] * 4),
        (np.int32([0, 1, 17, 255]), [0, 1, 17, 255]),
        (np.int32([0, 257, 30000, 60000]), [0, 1, 117, 233]),
        (np.int32([-100, 0, 100, 300]), [0, 64, 128, 255]),
        (np.int32([0, 2**30, 2**30, 2**31 - 1]), [0, 128, 128, 255]),
    ],
)
def test_values_of_32_bits_are_scaled_from_the_range_that_holds_them(values, expected):
    np.testing.assert_array_equal(pixels(encode(values[None], "TIFF"))[0], three(np.array(expected)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 2])
def test_a_float_image_with_a_value_that_is_not_a_number_is_broken(bad, column):
    values = np.float32([[0.1, 0.2, 0.3]])
    values[0, column] = bad
    with pytest.raises(BrokenImage, match="not finite"):
        decode(encode(values, "TIFF"))


# Other colour spaces


def test_cmyk_becomes_the_product_of_ink_and_black():
    inks = RNG.integers(0, 256, (4, 6, 4), dtype=np.uint8)
    light = 255 - inks.astype(float)
    expected = light[..., :3] * light[..., 3:] / 255
    np.testing.assert_allclose(pixels(encode(Image.fromarray(inks, "CMYK"), "TIFF")), expected, atol=1)


def flat_cmyk_jpeg(stored, adobe_transform):
    """Return a JPEG whose four stored channels are flat, marked by Adobe's segment as CMYK (0) or YCCK (2)."""
    inks = np.full((16, 16, 4), stored, np.uint8)
    data = encode(Image.fromarray(255 - inks, "CMYK"), "JPEG", quality=100)  # Pillow writes Adobe's inverted form
    at = data.index(b"Adobe")
    return data[: at + 11] + bytes([adobe_transform]) + data[at + 12 :]


def test_adobes_inverted_cmyk_jpeg_is_turned_back():
    light = np.array([200, 100, 50, 180])  # Adobe stores 255 - ink
    expected = light[:3] * light[3] / 255
    np.testing.assert_allclose(pixels(flat_cmyk_jpeg(light, 0))[8, 8], expected, atol=2)


def test_an_adobe_ycck_jpeg_follows_the_jfif_formula():
    y, cb, cr, k = 150, 100, 160, 180
    rgb = np.array([y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)])
    # In YCCK the three are the inverse of the stored inks: stored = 255 - rgb
    expected = (255 - rgb) * k / 255
    np.testing.assert_allclose(pixels(flat_cmyk_jpeg((y, cb, cr, k), 2))[8, 8], expected, atol=3)


def test_ycbcr_follows_the_jfif_formula():
    y, cb, cr = 150, 100, 160
    data = tiff(1, 1, bytes([y, cb, cr]), t258=(8, 8, 8), t262=6, t277=3)
    expected = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    np.testing.assert_allclose(pixels(data)[0, 0], expected, atol=1)


def lab_to_srgb(lab):
    """CIE 1976 with the D50 white of ICC profiles, then Lindbloom's Bradford-adapted matrix, then IEC 61966-2-1."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1, 0.8249)
    to_rgb = [[3.13386, -1.61687, -0.49061], [-0.97877, 1.91614, 0.03345], [0.07195, -0.22899, 1.40524]]
    linear = np.clip(xyz @ np.transpose(to_rgb), 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_lab_becomes_srgb():
    lab = np.array([[[20, 10, -30], [50, 40, 20], [80, -20, 30], [100, 0, 0], [0, 0, 0]]], float)
    stored = np.dstack([np.round(lab[..., 0] * 2.55), lab[..., 1:] % 256]).astype(np.uint8)
    data = tiff(5, 1, stored.tobytes(), t258=(8, 8, 8), t262=8, t277=3)
    np.testing.assert_allclose(pixels(data), lab_to_srgb(lab), atol=2)


# Damage

WHOLE = {
    "PNG": encode(COLOURS, "PNG"),
    "JPEG": encode(COLOURS, "JPEG"),
    "progressive JPEG": encode(COLOURS, "JPEG", progressive=True),
    "WebP": encode(COLOURS, "WebP"),
    "lossless WebP": encode(COLOURS, "WebP", lossless=True),
    "BMP": encode(COLOURS, "BMP"),
    "TIFF": encode(COLOURS, "TIFF"),
    "deflated TIFF": encode(COLOURS, "TIFF", compression="tiff_adobe_deflate"),
    "GIF": encode(GREY, "GIF"),
    "AVIF": encode(COLOURS, "AVIF"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_anywhere_is_broken_or_whole_but_never_half_used(kind):
    data = WHOLE[kind]
    whole = pixels(data)
    broken = 0
    for end in range(len(data)):
        try:
            np.testing.assert_array_equal(pixels(data[:end]), whole)
        except BrokenImage as error:
            broken += 1
            assert "\n" not in str(error) and " at 0x" not in str(error)
    assert broken >= len(data) - 20, "only the last few bytes of a file hold no pixel"


@pytest.mark.parametrize("kind", WHOLE)
def test_noise_in_a_file_raises_nothing_but_broken_image(kind):
    rng = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(WHOLE[kind])
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            data[at] = rng.integers(0, 256)
        try:
            width, height = read_header(bytes(data)).size
            if width * height < 10**6:
                decode(bytes(data))
        except BrokenImage as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("back", [1, 8])
def test_a_png_with_a_wrong_checksum_is_broken(back):
    data = bytearray(encode(COLOURS, "PNG", compress_level=0))  # stored as it is: inflating finds nothing wrong
    at = data.index(b"IEND") - 4 - back  # in the checksum of the pixels' chunk, or of zlib's stream before it
    data[at] ^= 1
    with pytest.raises(BrokenImage, match="PNG"):
        decode(bytes(data))


def test_a_png_with_one_changed_pixel_is_broken():
    data = bytearray(encode(COLOURS, "PNG", compress_level=0))
    data[data.index(b"IDAT") + 30] ^= 1
    with pytest.raises(BrokenImage, match="PNG"):
        decode(bytes(data))


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size):
    for data in (png(*size, 8, 2, []), tiff(*size, b"", t258=(8, 8, 8), t262=2, t277=3)):
        with pytest.raises(BrokenImage):
            read_header(data)


def test_more_pixels_than_the_limit_are_refused_by_the_header_alone():
    width = MAX_PIXELS // 1000
    assert read_header(png(width, 1000, 8, 0, []))[:2] == ("PNG", (width, 1000))
    for use in (read_header, decode):
        with pytest.raises(BrokenImage, match=r"178,957,000|178,956,970"):
            use(png(width + 1, 1000, 8, 0, []))


def test_what_would_take_more_memory_than_the_limit_is_refused_by_the_header_alone():
    assert budget.LIMIT == 2**30
    fits = 2**30 // 7 // 1000  # four bytes a pixel in Pillow, three in what is returned
    assert read_header(png(fits, 1000, 8, 2, [])).size == (fits, 1000)
    for use in (read_header, decode):
        with pytest.raises(BrokenImage, match=r"to decode 153392 x 1000 pixels of PNG takes 1\.1 GB .* make the image"):
            use(png(fits + 1, 1000, 8, 2, []))


@pytest.mark.parametrize("limit", [None, 1])
def test_the_limit_does_not_depend_on_the_programs_own(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    np.testing.assert_array_equal(pixels(encode(COLOURS, "PNG")), COLOURS)
    with pytest.raises(BrokenImage, match="178,956,970"):
        decode(png(60_000, 60_000, 8, 2, []))


def test_a_program_that_accepts_truncated_images_is_told_so(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(UsageError, match="LOAD_TRUNCATED_IMAGES"):
        decode(encode(COLOURS, "PNG")[:-20])


# Warnings and threads

WARNS = png(1, 1, 8, 0, [b"\7"], chunk(b"acTL", struct.pack(">II", 0, 0)))  # "Invalid APNG", says Pillow


def test_the_file_that_warns_makes_pillow_warn():
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(WARNS))


@pytest.mark.parametrize("action", ["error", "always"])
def test_no_warning_of_pillows_leaks_or_breaks_an_image(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        assert read_header(WARNS)[:2] == ("PNG", (1, 1))
        assert decode(WARNS).tolist() == [[[7, 7, 7]]]
    assert caught == []


def test_threads_that_decode_leave_the_warnings_of_others_alone():
    done = threading.Event()

    def work():
        while not done.is_set():
            assert decode(WARNS).tolist() == [[[7, 7, 7]]]

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(work) for _ in range(2)]
        messages = []
        for _ in range(200):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                warnings.warn("mine", stacklevel=1)
            messages += [str(warning.message) for warning in caught]
        done.set()
        for worker in workers:
            worker.result()
    assert messages == ["mine"] * 200


def test_threads_decode_as_one_does():
    files = list(WHOLE.values()) * 20
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(pixels, files))
    for data, image in zip(files, together, strict=True):
        np.testing.assert_array_equal(image, pixels(data))


def test_a_fax_with_wrong_codes_is_broken_and_libtiff_writes_nothing(capfd):
    noise = np.random.default_rng(0).integers(0, 2, (60, 60)).astype(bool)
    whole = encode(Image.fromarray(noise), "TIFF", compression="group4")
    assert np.array_equal(decode(whole)[..., 0], np.where(noise, 255, 0))
    reasons = set()
    for position in range(20, 200, 20):
        damaged = bytearray(whole)
        damaged[position : position + 4] = b"\xa5\x0f\x5a\x01"
        with pytest.raises(BrokenImage) as caught:
            decode(bytes(damaged))
        reasons.add(str(caught.value))
    assert "the TIFF is damaged: rows of the fax have no code" in reasons
    assert capfd.readouterr().err == ""
