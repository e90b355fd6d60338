"""A file that is cut short and closed again: broken, or equal to the whole one; and sound ones, which must not be."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.data.images import chunk, encode, pieces, png, tiff_of, waves

from regraft.data.decode import BrokenImage, decode

PHOTO = waves(97, 81)
FAX = Image.fromarray(PHOTO[..., 0] > 128)
COLOURS = Image.fromarray(PHOTO).quantize(64)
ALPHA = np.dstack([PHOTO, np.tile(np.arange(97, dtype=np.uint8) * 2, (81, 1))])

WHOLE = {
    "JPEG": encode(PHOTO, "JPEG"),
    "progressive JPEG": encode(PHOTO, "JPEG", progressive=True),
    "JPEG with restarts": encode(PHOTO, "JPEG", restart_marker_blocks=2),
    "grey JPEG": encode(PHOTO[..., 0].copy(), "JPEG"),
    "CMYK JPEG": encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
    "progressive CMYK JPEG": encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG", progressive=True),
    "PNG": encode(PHOTO, "PNG"),
    "palette PNG": encode(COLOURS, "PNG"),
    "GIF": encode(COLOURS, "GIF", interlace=0),
    "interlaced GIF": encode(COLOURS, "GIF", interlace=1),
    "WebP": encode(PHOTO, "WebP"),
    "lossless WebP": encode(PHOTO, "WebP", lossless=True),
    "WebP with alpha": encode(ALPHA, "WebP"),
    "animated WebP": encode(
        Image.fromarray(PHOTO), "WebP", lossless=True, save_all=True, append_images=[Image.fromarray(PHOTO[::-1])]
    ),
    "TIFF": encode(PHOTO, "TIFF", tiffinfo={278: 20}),
    "TIFF lzw": encode(PHOTO, "TIFF", compression="tiff_lzw"),
    "TIFF deflate": encode(PHOTO, "TIFF", compression="tiff_adobe_deflate"),
    "TIFF packbits": encode(PHOTO, "TIFF", compression="packbits"),
    "TIFF jpeg": encode(PHOTO, "TIFF", compression="jpeg", tiffinfo={278: 32}),
    "TIFF group3": encode(FAX, "TIFF", compression="group3"),
    "TIFF group4": encode(FAX, "TIFF", compression="group4", tiffinfo={278: 32}),
    "TIFF ccitt": encode(FAX, "TIFF", compression="tiff_ccitt"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_is_cut_and_closed_again_is_broken_or_whole_but_never_filled_in(name, capfd):
    data = WHOLE[name]
    whole = decode(data)
    body, closed = pieces(data, next(kind for kind in ("JPEG", "PNG", "GIF", "WebP", "TIFF") if kind in name.split()))
    np.testing.assert_array_equal(decode(closed(body)), whole)
    cuts = sorted({*np.linspace(0, len(body) - 1, 150).astype(int).tolist(), *range(max(0, len(body) - 40), len(body))})
    broken = 0
    for cut in cuts:
        try:
            np.testing.assert_array_equal(decode(closed(body[:cut])), whole)
        except BrokenImage as error:
            broken += 1
            assert "\n" not in str(error)
    assert broken >= len(cuts) - 27, "only the last few bytes hold no pixel"


def test_what_is_missing_is_said_in_words():
    body, closed = pieces(WHOLE["JPEG"], "JPEG")
    with pytest.raises(BrokenImage, match=r"^the JPEG is cut short or damaged: a part of the picture is missing$"):
        decode(closed(body[: len(body) // 2]))


# Headers that say more than there is


def stated_jpeg_height(data, height):
    at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2")) + 5
    return data[:at] + struct.pack(">H", height) + data[at + 2 :]


@pytest.mark.parametrize("name", ["JPEG", "progressive JPEG", "JPEG with restarts", "grey JPEG", "CMYK JPEG"])
def test_a_jpeg_whose_header_says_more_rows_than_there_are_is_broken(name):
    with pytest.raises(BrokenImage, match="a part of the picture is missing"):
        decode(stated_jpeg_height(WHOLE[name], 200))


def test_a_png_whose_header_says_more_rows_than_there_are_is_broken():
    data = png(3, 9, 8, 0, [bytes([200] * 3)] * 9)
    taller = data[12:16] + struct.pack(">II", 3, 20) + data[24:29]
    with pytest.raises(BrokenImage, match="the PNG is cut short or damaged"):
        decode(data[:12] + taller + struct.pack(">I", zlib.crc32(taller)) + data[33:])


def adam7(pixels):
    """Return the unfiltered rows of the seven passes, of PNG 1.2, section 2.6, for a grey picture of 8 bits."""
    passes = (pixels[0::8, 0::8], pixels[0::8, 4::8], pixels[4::8, 0::4], pixels[0::4, 2::4])
    passes += (pixels[2::4, 0::2], pixels[0::2, 1::2], pixels[1::2, 0::1])
    return [b"\0" + row.tobytes() for part in passes if part.size for row in part]


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (5, 3), (8, 8), (9, 17)])
def test_an_interlaced_png_is_whole_with_all_rows_of_its_passes_and_broken_without_the_last(size):
    height, width = size
    pixels = np.arange(height * width, dtype=np.uint8).reshape(size)
    header = chunk(b"IHDR", struct.pack(">II5B", width, height, 8, 0, 0, 0, 1))
    rows = adam7(pixels)
    for kept in (rows, rows[:-1]):
        data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"".join(kept))) + chunk(b"IEND", b"")
        if kept is rows:
            np.testing.assert_array_equal(decode(data)[..., 0], pixels)
        else:
            with pytest.raises(BrokenImage):
                decode(data)


def test_a_png_that_ends_in_black_or_transparent_rows_is_whole():
    for mode in ("1", "L", "RGB", "RGBA", "LA", "P", "I;16"):
        assert decode(encode(Image.new(mode, (5, 4)), "PNG")).shape == (4, 5, 3)


def entries(height, rows_a_strip, compression=1, **more):
    common = {256: (3, 97), 257: (3, height), 258: (3, (8, 8, 8)), 259: (3, compression), 262: (3, 2), 277: (3, 3)}
    return {**common, 278: (3, rows_a_strip), **{int(name[1:]): value for name, value in more.items()}}


def test_a_tiff_with_fewer_strips_than_its_header_says_is_broken():
    strips = [PHOTO[top : top + 16].tobytes() for top in range(0, 81, 16)]
    counts = (4, tuple(map(len, strips)))
    np.testing.assert_array_equal(decode(tiff_of(entries(81, 16, t279=counts), strips)), PHOTO)
    with pytest.raises(BrokenImage, match="the TIFF is cut short"):
        decode(tiff_of(entries(81, 16, t279=(4, counts[1][:3])), strips[:3]))


@pytest.mark.parametrize("counts", [None, (0,), (1,), (10**6,)])
def test_a_tiff_with_wrong_counts_is_whole_if_its_bytes_are_there(counts):
    """libtiff knows such files: "Wrong StripByteCounts field, ignoring and calculating from imagelength"."""
    more = {} if counts is None else {"t279": (4, counts)}
    np.testing.assert_array_equal(decode(tiff_of(entries(81, 81, **more), [PHOTO.tobytes()])), PHOTO)


def tiled(pixels, side):
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, -height % side), (0, -width % side), (0, 0)))
    return [
        padded[top : top + side, left : left + side].tobytes()
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


@pytest.mark.parametrize("planar", [False, True])
def test_a_tiff_of_tiles_is_whole_with_all_of_them(planar):
    planes = [PHOTO[..., band : band + 1] for band in range(3)] if planar else [PHOTO]
    tiles = [tile for plane in planes for tile in tiled(plane, 32)]
    tags = {**entries(81, 81), 284: (3, 2 if planar else 1), 322: (3, 32), 323: (3, 32)}
    del tags[278]
    sizes = (4, tuple(map(len, tiles)))
    np.testing.assert_array_equal(decode(tiff_of({**tags, 325: sizes}, tiles, 324)), PHOTO)
    with pytest.raises(BrokenImage):
        decode(tiff_of({**tags, 325: (4, sizes[1][:-1])}, tiles[:-1], 324))


@pytest.mark.parametrize("compression", ["jpeg", "group3", "group4"])
def test_a_compressed_tiff_whose_header_says_more_rows_than_there_are_is_broken(compression, capfd):
    data = encode(PHOTO if compression == "jpeg" else FAX, "TIFF", compression=compression)
    with Image.open(io.BytesIO(data)) as image:
        tags = {tag: (image.tag_v2.tagtype[tag], value) for tag, value in image.tag_v2.items()}
        strip = data[tags[273][1][0] :][: tags[279][1][0]]
    assert decode(tiff_of(tags, [strip])).shape == (81, 97, 3)
    with pytest.raises(BrokenImage):
        decode(tiff_of({**tags, 257: (3, 160), 278: (3, 160)}, [strip]))


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
@pytest.mark.parametrize("tags", [{}, {278: 7}, {266: 2}, {292: 1}], ids=str)
def test_a_sound_fax_is_never_taken_for_a_cut_one(compression, tags):
    if 292 in tags and compression != "group3":
        return
    rng = np.random.default_rng(3)
    for share in (0, 0.01, 0.5, 0.99, 1):
        page = rng.random((rng.integers(1, 60), rng.integers(1, 90))) < share
        data = encode(page, "TIFF", compression=compression, tiffinfo=tags)
        np.testing.assert_array_equal(decode(data)[..., 0], 255 * page)
