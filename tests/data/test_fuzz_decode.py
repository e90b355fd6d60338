"""A fuzzer of image files that knows their structure: whatever it makes of them is read, or broken in words.

Each file is taken apart into segments, chunks, boxes or tags, a few of them are changed, removed, repeated or put
elsewhere, lengths and checksums are made to fit or are not, and bytes are changed as well. Seeds are fixed.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tests.data.images import encode, tiff_of, waves
from tests.data.test_colour import ADOBE, icc

from regraft.data.decode import BrokenImage, decode, read_header

EXECUTIONS = 20_000  # for each kind
LARGEST = 1 << 20  # pixels that are decoded here
ODD = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

PHOTO = waves(31, 23)
ALPHA = np.dstack([PHOTO, PHOTO[..., 0]])
PALETTE = Image.fromarray(PHOTO).quantize(16)
FRAMES = [Image.fromarray(PHOTO), Image.fromarray(PHOTO[::-1].copy())]
PROFILE = icc(b"RGB ", 2.2, ADOBE)
EXIF = b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"


# Parts of files: [(what comes before the content, the content)], and how to put them together again


def jpeg_parts(data):
    """Segments; that of a scan has its data with it."""
    parts, at = [], 2
    while at < len(data) - 2:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if data[at + 1] == 0xDA:
            while not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        parts.append((data[at : at + 2], data[at + 4 : end]))
        at = end
    return parts


def jpeg_of(parts, rng):
    body = b"\xff\xd8"
    for marker, content in parts:
        header = int.from_bytes(content[:1], "big") * 2 + 6 if marker == b"\xff\xda" else len(content) + 2
        body += marker + struct.pack(">H", min(header, 65535)) + content
    return body + b"\xff\xd9"


def png_parts(data):
    parts, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        content = data[at + 8 : at + 8 + length]
        parts.append((data[at + 4 : at + 8], zlib.decompress(content) if data[at + 4 : at + 8] == b"IDAT" else content))
        at += 12 + length
    return parts


def png_of(parts, rng):
    """With checksums that are right, mostly, and pixels that can be inflated."""
    body = b"\x89PNG\r\n\x1a\n"
    for kind, content in parts:
        content = zlib.compress(content) if kind == b"IDAT" else content
        check = zlib.crc32(kind + content) ^ int(rng is not None and rng.random() < 0.02)
        body += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
    return body


def riff_parts(data):
    parts, at = [], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts


def riff_of(parts, rng):
    chunks = (kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) for kind, body in parts)
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def box_parts(data):
    """Boxes; those that hold others are taken apart by the changes of bytes alone."""
    parts, at = [], 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + length]))
        at += length
    return parts


def box_of(parts, rng):
    return b"".join(struct.pack(">I", 8 + len(content)) + kind + content for kind, content in parts)


def tiff_parts(data):
    """Tags, (kind, content), the strips at the end."""
    with Image.open(io.BytesIO(data)) as image:
        tags, types = dict(image.tag_v2), image.tag_v2.tagtype
    parts = []
    for tag, value in tags.items():
        if types[tag] in (3, 4, 7) and tag not in (273, 279):
            values = value if isinstance(value, tuple) else (value,)
            content = (
                value
                if isinstance(value, bytes)
                else struct.pack(f"<{len(values)}{'H' if types[tag] == 3 else 'I'}", *values)
            )
            parts.append((struct.pack("<HH", tag, types[tag]), content))
    return [*parts, *((b"strip", data[at : at + count]) for at, count in zip(tags[273], tags[279], strict=True))]


def tiff_of_parts(parts, rng):
    strips = [content for kind, content in parts if kind == b"strip"]
    tags = {}
    for kind, content in parts:
        if kind != b"strip":
            tag, type_ = struct.unpack("<HH", kind[:4].ljust(4, b"\0"))
            width = {3: 2, 4: 4}.get(type_)
            numbers = width and tuple(
                int.from_bytes(content[at : at + width], "little") for at in range(0, len(content), width)
            )
            tags[tag] = (type_, numbers) if width else (7, content)
    counts = tuple(len(strip) for strip in strips) or (0,)
    return tiff_of({**tags, 279: (4, counts)}, strips or [b""])


def whole(data):
    return [(b"", data)]


def joined(parts, rng):
    return b"".join(kind + content for kind, content in parts)


KINDS = {
    "JPEG": (
        jpeg_parts,
        jpeg_of,
        [
            encode(PHOTO, "JPEG", exif=EXIF, icc_profile=PROFILE),
            encode(PHOTO, "JPEG", progressive=True),
            encode(PHOTO, "JPEG", restart_marker_blocks=2, subsampling=1),
            encode(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"),
            encode(PHOTO[..., 0].copy(), "JPEG"),
            encode(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:]),
        ],
    ),
    "PNG": (
        png_parts,
        png_of,
        [
            encode(PHOTO, "PNG", icc_profile=PROFILE, exif=EXIF),
            encode(ALPHA, "PNG"),
            encode(PALETTE, "PNG", transparency=3),
            encode(PHOTO[..., 0].astype(np.uint16) * 257, "PNG"),
            encode(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
        ],
    ),
    "WebP": (
        riff_parts,
        riff_of,
        [
            encode(PHOTO, "WebP", icc_profile=PROFILE, exif=EXIF),
            encode(ALPHA, "WebP"),
            encode(ALPHA, "WebP", lossless=True),
            encode(FRAMES[0], "WebP", save_all=True, append_images=FRAMES[1:]),
        ],
    ),
    "GIF": (
        whole,
        joined,
        [
            encode(PALETTE, "GIF", transparency=2),
            encode(PALETTE, "GIF", interlace=1),
            encode(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:]),
        ],
    ),
    "BMP": (
        whole,
        joined,
        [
            encode(PHOTO, "BMP"),
            encode(PALETTE, "BMP"),
            encode(ALPHA, "BMP"),
            encode(Image.fromarray(PHOTO).convert("1"), "BMP"),
        ],
    ),
    "TIFF": (
        tiff_parts,
        tiff_of_parts,
        [
            encode(PHOTO, "TIFF", icc_profile=PROFILE, tiffinfo={278: 8, 274: 6}),
            encode(PHOTO, "TIFF", compression="jpeg"),
            encode(PHOTO, "TIFF", compression="tiff_lzw"),
            encode(ALPHA, "TIFF", compression="tiff_adobe_deflate"),
            encode(PHOTO[..., 0].astype(np.uint16) * 257, "TIFF"),
            encode(PHOTO[..., 0].astype(np.float32), "TIFF"),
            encode(Image.fromarray(PHOTO).convert("1"), "TIFF", compression="group4"),
            encode(Image.fromarray(PHOTO).convert("1"), "TIFF", compression="group3"),
            encode(Image.fromarray(PHOTO).convert("CMYK"), "TIFF", compression="packbits"),
            encode(PALETTE, "TIFF"),
        ],
    ),
    "AVIF": (box_parts, box_of, [encode(PHOTO, "AVIF", icc_profile=PROFILE, exif=EXIF), encode(ALPHA, "AVIF")]),
    "HEIC": (box_parts, box_of, []),
}


def heic_files():
    pillow_heif = pytest.importorskip("pillow_heif")
    files = []
    for picture, options in ((PHOTO, {}), (ALPHA, {}), (waves(100, 90), {"tile_size": 64})):
        file, out = pillow_heif.from_pillow(Image.fromarray(picture)), io.BytesIO()
        file[0].info["exif"], file[0].info["icc_profile"] = EXIF, PROFILE
        file.save(out, quality=50, **options)
        files.append(out.getvalue())
    return files


# What is changed


def changed_parts(parts, others, rng):
    """Remove, repeat, move, exchange or replace parts, or change the bytes of one."""
    parts = list(parts)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(parts))) if parts else 0
        match rng.integers(8) if parts else 4:
            case 0:
                del parts[at]
            case 1:
                parts[at:at] = [parts[at]] * int(rng.integers(1, 40))
            case 2:
                parts.insert(int(rng.integers(len(parts))), parts.pop(at))
            case 3:
                parts[at] = (parts[int(rng.integers(len(parts)))][0], parts[at][1])
            case 4:
                parts.insert(at, others[int(rng.integers(len(others)))])
            case _:
                parts[at] = (parts[at][0], changed_bytes(parts[at][1], rng))
    return parts


def changed_bytes(data, rng):
    """Change bits, bytes, or numbers of two or four bytes; cut, lengthen, or take out a piece."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data))) if data else 0
        match rng.integers(8) if data else 5:
            case 0:
                data[at] ^= 1 << int(rng.integers(8))
            case 1:
                data[at] = int(rng.integers(256))
            case 2 | 3:
                width = int(rng.choice([1, 2, 4]))
                number = ODD[int(rng.integers(len(ODD)))] % 256**width
                data[at : at + width] = number.to_bytes(width, str(rng.choice(["big", "little"])))
            case 4:
                del data[at:]
            case 5:
                data[at:at] = rng.bytes(int(rng.integers(1, 20)))
            case 6:
                del data[at : at + int(rng.integers(1, 20))]
            case 7:
                data[at:at] = data[: int(rng.integers(len(data)))]
    return bytes(data)


def outcome(data):
    """Return "read", "broken", or, of an image that would take long, "header"; anything else is an error."""
    try:
        header = read_header(data)
        if header.size[0] * header.size[1] > LARGEST:
            return "header"
        pixels = decode(data)
    except BrokenImage as error:
        assert str(error).isprintable() and 0 < len(str(error)) < 400, str(error)
        return "broken"
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert sorted(pixels.shape[:2]) == sorted(header.size)
    return "read"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_any_parts_changed_is_read_or_broken_and_nothing_else(kind, capfd):
    taken_apart, put_together, files = KINDS[kind]
    files = files or heic_files()
    every = [part for data in files for part in taken_apart(data)]
    rng = np.random.default_rng(sum(kind.encode()))
    counts = {"read": 0, "broken": 0, "header": 0}
    for data in files:
        assert outcome(data) == "read"
        assert outcome(put_together(taken_apart(data), None)) == "read"
    for number in range(EXECUTIONS):
        data = files[number % len(files)]
        if rng.random() < 0.8:
            data = put_together(changed_parts(taken_apart(data), every, rng), rng)
        if rng.random() < 0.4:
            data = changed_bytes(data, rng)
        try:
            counts[outcome(data)] += 1
        except BaseException as error:
            error.add_note(f"{kind}, execution {number}: {data[:2000].hex()}")
            raise
    with capfd.disabled():
        print(f"\n{kind}: {EXECUTIONS:,} executions, none outside BrokenImage: {counts}")
    assert counts["read"] > EXECUTIONS / 100 and counts["broken"] > EXECUTIONS / 100
