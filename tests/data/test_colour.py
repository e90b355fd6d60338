"""Colour profiles against the formulas that they stand for, and 16 bits against division by 257."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.data.images import chunk, encode, on_white, png, three, tiff_of

from regraft.data.decode import BrokenImage, decode, read_header

RNG = np.random.default_rng(4)
COLOURS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)

# Primaries of Adobe RGB (1998) and Display P3, with the D65 white of sRGB, as CIE xy
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
P3 = ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
WHITE = (0.3127, 0.3290)

BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50 = np.array([0.9642, 1, 0.8249])


def xyz(x, y):
    return np.array([x / y, 1, (1 - x - y) / y])


def to_xyz(primaries):
    """Return the matrix from linear RGB to CIE XYZ under D65 (Lindbloom, "RGB/XYZ matrices")."""
    columns = np.stack([xyz(*primary) for primary in primaries], axis=1)
    return columns * np.linalg.solve(columns, xyz(*WHITE))


def adapted(matrix):
    """Return the matrix to XYZ under D50, the white of ICC profiles, by the Bradford method."""
    scale = (BRADFORD @ D50) / (BRADFORD @ xyz(*WHITE))
    return np.linalg.inv(BRADFORD) @ np.diag(scale) @ BRADFORD @ matrix


def s15(value):
    return struct.pack(">i", round(value * 65536))


def tag(kind, content):
    return (kind + b"\0\0\0\0" + content).ljust(-(-(8 + len(content)) // 4) * 4, b"\0")


def icc(space, curve, primaries=None, name="test"):
    """Return a display profile of ICC version 2: a gamma for all channels, and for "RGB " the primaries."""
    text = name.encode() + b"\0"
    description = tag(b"desc", struct.pack(">I", len(text)) + text + bytes(78))
    white = tag(b"XYZ ", b"".join(map(s15, D50)))
    gamma = tag(b"curv", struct.pack(">IH", 1, round(curve * 256)))
    tags = {b"desc": description, b"wtpt": white}
    if primaries is None:
        tags[b"kTRC"] = gamma
    else:
        for letter, column in zip(b"rgb", adapted(to_xyz(primaries)).T, strict=True):
            tags[bytes([letter]) + b"XYZ"] = tag(b"XYZ ", b"".join(map(s15, column)))
            tags[bytes([letter]) + b"TRC"] = gamma
    table, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for key, content in tags.items():
        table += key + struct.pack(">II", at + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"test", 0x02100000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(s15, D50))
    return header.ljust(128, b"\0") + table + body


def in_srgb(linear):
    """IEC 61966-2-1's curve, for linear light from 0 to 1."""
    linear = np.clip(linear, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def from_rgb(values, primaries, gamma):
    linear = (values / 255) ** (round(gamma * 256) / 256)
    return in_srgb(linear @ np.transpose(np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)))


KINDS = {"PNG": {}, "TIFF": {}, "WebP": {"lossless": True}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("primaries", [ADOBE, P3], ids=["Adobe RGB", "Display P3"])
def test_colours_of_another_profile_become_srgb(kind, primaries):
    data = encode(COLOURS, kind, icc_profile=icc(b"RGB ", 2.2, primaries), **KINDS[kind])
    np.testing.assert_allclose(decode(data), from_rgb(COLOURS, primaries, 2.2), atol=2)
    header = read_header(data)
    assert (header.rules, header.remarks) == (3, ("colour profile test, converted to sRGB",))


@pytest.mark.parametrize("min_side", [0, 1])
def test_a_jpeg_of_another_profile_becomes_srgb_at_every_size(min_side):
    flat = np.full((16, 24, 3), (60, 180, 90), np.uint8)
    data = encode(flat, "JPEG", quality=100, subsampling=0, icc_profile=icc(b"RGB ", 2.2, ADOBE))
    np.testing.assert_allclose(decode(data, min_side)[0, 0], from_rgb(flat[0, 0], ADOBE, 2.2), atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_grey_of_another_gamma_becomes_that_of_srgb(kind):
    grey = np.tile(np.arange(0, 256, 15, dtype=np.uint8), (8, 1))
    data = encode(grey, kind, icc_profile=icc(b"GRAY", 1.8), **({"quality": 100} if kind == "JPEG" else {}))
    np.testing.assert_allclose(decode(data), three(in_srgb((grey / 255) ** (461 / 256))), atol=3)


def test_the_profile_is_applied_before_alpha_is_laid_on_white():
    alpha = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
    data = encode(np.dstack([COLOURS, alpha]), "PNG", icc_profile=icc(b"RGB ", 2.2, ADOBE))
    np.testing.assert_allclose(decode(data), on_white(from_rgb(COLOURS, ADOBE, 2.2), alpha), atol=2)


def test_a_palette_has_a_profile_too():
    image = Image.fromarray(COLOURS).quantize(16)
    expected = from_rgb(np.asarray(image.convert("RGB")), ADOBE, 2.2)
    np.testing.assert_allclose(decode(encode(image, "PNG", icc_profile=icc(b"RGB ", 2.2, ADOBE))), expected, atol=2)


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        b"no profile",
        icc(b"RGB ", 2.2, ADOBE)[:200],
        icc(b"GRAY", 1.8),
        b"",
    ],
    ids=["sRGB", "nonsense", "cut", "of grey", "empty"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_of_srgb_or_one_that_makes_no_sense_changes_nothing(profile, kind):
    data = encode(COLOURS, kind, icc_profile=profile, **KINDS[kind])
    np.testing.assert_array_equal(decode(data), COLOURS)
    assert (read_header(data).rules, read_header(data).remarks) == (2, ())


def test_inks_without_a_profile_are_reported():
    data = encode(Image.fromarray(COLOURS).convert("CMYK"), "TIFF")
    assert read_header(data).remarks == ("inks (CMYK), converted without a profile",)


def test_inks_are_converted_by_their_profile():
    """An ink profile must have a table; here one that makes every colour a grey of the black ink alone."""
    grid = 2
    levels = np.zeros((grid,) * 4 + (3,), np.uint16)
    levels[..., 0, 0] = 0xFF00  # L* = 100 without black ink, 0 with all of it; a* = b* = 0
    levels[..., 1:] = 0x8000
    identity = np.tile(np.array([0, 65535], ">u2"), 7).tobytes()
    table = struct.pack(">4B", 4, 3, grid, 0) + b"".join(map(s15, np.eye(3).ravel())) + struct.pack(">HH", 2, 2)
    lut = tag(b"mft2", table + identity[:16] + levels.astype(">u2").tobytes() + identity[16:28])
    text = tag(b"desc", struct.pack(">I", 5) + b"inks\0" + bytes(78))
    tags, body, at = {b"desc": text, b"wtpt": tag(b"XYZ ", b"".join(map(s15, D50))), b"A2B0": lut}, b"", 128 + 4 + 36
    index = struct.pack(">I", 3)
    for key, content in tags.items():
        index += key + struct.pack(">II", at + len(body), len(content))
        body += content
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"test", 0x02100000, b"prtr", b"CMYK", b"Lab ")
    profile = (header + bytes(12) + b"acsp" + bytes(28) + b"".join(map(s15, D50))).ljust(128, b"\0") + index + body
    inks = np.array([[[0, 0, 0, 0], [255, 0, 0, 0], [90, 80, 70, 128], [0, 0, 0, 255]]], np.uint8)
    data = encode(Image.fromarray(inks, "CMYK"), "TIFF", icc_profile=profile)
    lightness = 100 * (1 - inks[..., 3] / 255)
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness * 27 / 24389)
    np.testing.assert_allclose(decode(data), three(in_srgb(light)), atol=3)
    assert read_header(data).remarks == ("colour profile inks, converted to sRGB",)


# 16 bits

DEEP = RNG.integers(0, 65536, (40, 30, 4), dtype=np.uint16)
DEEP[0, :6, 0] = 0, 128, 129, 257, 385, 65535


def nearest(values):
    return np.floor(values / 257 + 0.5)


def big_endian(pixels):
    return [row.astype(">u2").tobytes() for row in pixels]


def test_16_bit_colour_of_a_png_is_rounded():
    data = png(30, 40, 16, 2, big_endian(DEEP[..., :3]))
    np.testing.assert_array_equal(decode(data), nearest(DEEP[..., :3]))
    assert read_header(data)[2:] == (3, ("more than 8 bits, reduced to 8",))


def test_16_bit_colour_of_a_png_with_alpha_is_rounded_and_laid_on_white():
    expected = on_white(nearest(DEEP[..., :3]), nearest(DEEP[..., 3]))
    np.testing.assert_array_equal(decode(png(30, 40, 16, 6, big_endian(DEEP))), expected)
    expected = on_white(three(nearest(DEEP[..., 0])), nearest(DEEP[..., 3]))
    np.testing.assert_array_equal(decode(png(30, 40, 16, 4, big_endian(DEEP[..., ::3]))), expected)


def test_an_interlaced_16_bit_png_is_rounded_too():
    pixels = DEEP[:8, :8, :3]
    passes = [pixels[0::8, 0::8], pixels[0::8, 4::8], pixels[4::8, 0::4], pixels[0::4, 2::4]]
    passes += [pixels[2::4, 0::2], pixels[0::2, 1::2], pixels[1::2, 0::1]]
    packed = zlib.compress(b"".join(b"\0" + row for part in passes for row in big_endian(part)))
    header = chunk(b"IHDR", struct.pack(">II5B", 8, 8, 16, 2, 0, 0, 1))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode(data), nearest(pixels))


def test_of_a_transparent_16_bit_colour_both_bytes_count():
    stored = struct.pack(">9H", 0x1111, 0x2222, 0x3333, 0x8012, 0x9034, 0xA056, 0x8012, 0x9034, 0xA057)
    data = png(3, 1, 16, 2, [stored], chunk(b"tRNS", stored[6:12]))
    expected = [(0x11, 0x22, 0x33), (255, 255, 255), nearest(np.array([0x8012, 0x9034, 0xA057]))]
    np.testing.assert_array_equal(decode(data)[0], expected)


def tags(bits, samples, **more):
    common = {256: (3, 30), 257: (3, 40), 258: (3, (bits,) * samples), 262: (3, 2), 277: (3, samples), 278: (3, 40)}
    return {**common, **{int(name[1:]): value for name, value in more.items()}}


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("planar", [False, True])
def test_16_bit_colour_of_a_tiff_is_rounded(deflated, planar):
    colours = DEEP[..., :3].astype("<u2")
    strips = [colours[..., band].tobytes() for band in range(3)] if planar else [colours.tobytes()]
    strips = [zlib.compress(strip) for strip in strips] if deflated else strips
    entries = tags(16, 3, t259=(3, 8 if deflated else 1), t279=(4, tuple(map(len, strips))))
    data = tiff_of({**entries, 284: (3, 2 if planar else 1)}, strips)
    high = deflated and planar  # there libtiff takes the high byte itself
    np.testing.assert_array_equal(decode(data), colours >> 8 if high else nearest(DEEP[..., :3]))
    assert read_header(data)[2:] == (2 if high else 3, ("more than 8 bits, reduced to 8",))


def test_16_bit_inks_of_a_tiff_are_rounded():
    strip = DEEP.astype("<u2").tobytes()
    data = tiff_of(tags(16, 4, t259=(3, 1), t262=(3, 5), t279=(4, len(strip))), [strip])
    light = 255 - nearest(DEEP)
    np.testing.assert_allclose(decode(data), light[..., :3] * light[..., 3:] / 255, atol=1)


def test_16_bit_inks_in_separate_planes_are_refused_in_words():
    strips = [DEEP[..., band].astype("<u2").tobytes() for band in range(4)]
    entries = tags(16, 4, t259=(3, 1), t262=(3, 5), t279=(4, tuple(map(len, strips))), t284=(3, 2))
    with pytest.raises(BrokenImage, match="16-bit inks in separate planes is not read; convert it"):
        read_header(tiff_of(entries, strips))


@pytest.mark.parametrize(("bits", "samples"), [(8, 4), (8, 5), (8, 6), (16, 4)])
def test_bands_of_a_tiff_that_are_no_colours_are_left_out_and_told(bits, samples):
    pixels = RNG.integers(0, 256, (40, 30, samples)) * (257 if bits == 16 else 1)
    strip = pixels.astype(f"<u{bits // 8}").tobytes()
    extra = (3, (0,) * (samples - 3))
    data = tiff_of(tags(bits, samples, t259=(3, 1), t279=(4, len(strip)), t338=extra), [strip])
    np.testing.assert_array_equal(decode(data), pixels[..., :3] // (257 if bits == 16 else 1))
    assert "bands beside the colours, left out" in read_header(data).remarks


# What is told


def test_each_conversion_is_told_in_the_header():
    grey = np.array([[0, 70_000]])
    assert read_header(encode(grey.astype(np.int32), "TIFF")).remarks == ("32 bits, scaled to 8",)
    assert read_header(encode(grey.astype(np.uint16), "PNG")).remarks == ("more than 8 bits, reduced to 8",)
    assert read_header(encode(COLOURS, "PNG"))[2:] == (2, ())


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WebP", "AVIF"])
def test_more_than_one_frame_or_page_is_told(kind):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert read_header(data).remarks == ("the first of several frames or pages",)


def test_a_large_image_is_converted_in_strips_as_a_small_one_is():
    wide = np.arange(800_000, dtype=np.uint32).reshape(2, -1).astype(np.uint8)
    tall = np.vstack([wide] * 3)  # 2.4 million pixels: several strips
    alpha = tall[:, ::-1].copy()
    image = Image.merge("LA", (Image.fromarray(tall), Image.fromarray(alpha)))
    data = io.BytesIO()
    image.save(data, "PNG", compress_level=1)
    np.testing.assert_array_equal(decode(data.getvalue()), on_white(three(tall), alpha))
