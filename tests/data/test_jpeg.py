"""JPEG: scans that are missing or too many, and warnings of libjpeg that are harmless."""

from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image
from tests.data.images import encode, waves

from regraft.data import jpeg
from regraft.data.decode import BrokenImage, decode

PHOTO = waves(64, 48)
PROGRESSIVE = encode(PHOTO, "JPEG", progressive=True, quality=90)


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def scans(data):
    """Return the positions of the scans' headers; no byte of these files looks like one by chance."""
    return [match.start() for match in re.finditer(b"\xff\xda", data)]


def test_a_progressive_jpeg_without_its_last_scans_is_broken():
    positions = scans(PROGRESSIVE)
    assert len(positions) == 10
    np.testing.assert_array_equal(decode(PROGRESSIVE), by_pillow(PROGRESSIVE))
    for position in positions[1:]:
        cut = PROGRESSIVE[: PROGRESSIVE.rfind(b"\xff\xc4", 0, position)] + b"\xff\xd9"  # before the scan's tables
        assert by_pillow(cut).shape == PHOTO.shape  # Pillow shows it, blurred
        for min_side in (0, 1):
            with pytest.raises(BrokenImage, match="a part of the picture is missing"):
                decode(cut, min_side)


def one_scan_each(data):
    """Return a grey picture's only scan as the three of a colour picture, which a sequential JPEG may have too."""
    frame, scan = data.index(b"\xff\xc0"), scans(data)[0]
    height, width = struct.unpack(">HH", data[frame + 5 : frame + 9])
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    header = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, height, width, 3) + components
    body = [b"\xff\xda\0\x08\1" + bytes([number]) + data[scan + 6 : -2] for number in (1, 2, 3)]
    return data[:frame] + header + data[frame + 13 : scan], body


def test_a_sequential_jpeg_with_a_scan_for_each_component_needs_all_of_them():
    header, body = one_scan_each(encode(PHOTO[..., 0].copy(), "JPEG"))
    whole = header + b"".join(body) + b"\xff\xd9"
    np.testing.assert_array_equal(decode(whole), by_pillow(whole))
    for count in (1, 2):
        with pytest.raises(BrokenImage, match="a part of the picture is missing"):
            decode(header + b"".join(body[:count]) + b"\xff\xd9")


def with_scans(count):
    """Return a progressive JPEG whose last scan comes again and again."""
    last = scans(PROGRESSIVE)[-1]
    return PROGRESSIVE[:-2] + PROGRESSIVE[last:-2] * (count - 10) + b"\xff\xd9"


def test_a_jpeg_with_very_many_scans_is_refused_before_it_is_decoded():
    assert decode(encode(PHOTO, "JPEG", progressive=True)).shape == PHOTO.shape
    for count in (jpeg.MAX_SCANS + 1, 3000):
        with pytest.raises(BrokenImage, match=r"^the JPEG has more scans than the accepted 100, .* save it again$"):
            decode(with_scans(count))


def test_a_large_jpeg_may_have_fewer_scans():
    large = PROGRESSIVE
    at = large.index(b"\xff\xc2") + 5
    large = large[:at] + struct.pack(">HH", 10_000, 10_000) + large[at + 4 :]
    last = scans(large)[-1]
    for count in (21, 22):
        with pytest.raises(BrokenImage, match="accepted 21" if count == 22 else "a part of the picture is missing"):
            decode(large[:-2] + large[last:-2] * (count - 10) + b"\xff\xd9", 1)


# Warnings of libjpeg's that say nothing about the pixels


def extraneous(data):
    """Bytes before the last marker, as in some of Kaggle's photographs of dogs and cats."""
    return data[:-2] + bytes(range(1, 200)) + b"\xff\xd9"


def between_segments(data):
    return data[:20] + b"\1\2\3" + data[20:]


def unknown_version(data):
    assert data[6:11] == b"JFIF\0"
    return data[:11] + b"\7" + data[12:]


HARMLESS = {"extraneous": extraneous, "between": between_segments, "version": unknown_version}


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}], ids=str)
def test_a_jpeg_with_a_harmless_fault_is_read_but_not_if_it_is_cut_as_well(change, options):
    data = encode(PHOTO, "JPEG", **options)
    whole = by_pillow(data)
    assert jpeg._warning(change(data), "RGB")
    np.testing.assert_array_equal(decode(change(data)), whole)
    if change is not extraneous:  # the bytes that are too many would be those that are missing
        for kept in np.linspace(scans(data)[0] + 20, len(data) - 8, 100).astype(int):
            with pytest.raises(BrokenImage):
                decode(change(data[:kept] + b"\xff\xd9"))


def test_inks_may_have_a_harmless_fault_too():
    data = encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(decode(extraneous(data)), by_pillow(data))
    with pytest.raises(BrokenImage):
        decode(data[: len(data) // 2] + b"\xff\xd9")
