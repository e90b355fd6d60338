"""Image files for tests: encoded by Pillow, built byte by byte, or cut short and closed again."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(image, kind, **options):
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def three(grey):
    return np.stack([grey] * 3, axis=-1)


def on_white(colour, alpha):
    alpha = alpha.astype(float)[..., None]
    return np.floor((colour * alpha + 255 * (255 - alpha)) / 255 + 0.5)


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, depth, colour, rows, *between, before_end=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    body = b"".join(between) + chunk(b"IDAT", packed) + before_end
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


def tiff(width, height, data, **tags):
    """Return a TIFF of one strip: tags by number as t256=value or a tuple of values, all of type SHORT."""
    entries = {256: (width,), 257: (height,), 259: (1,), 273: (8,), 277: (1,), 278: (height,), 279: (len(data),)}
    entries |= {int(name[1:]): value if isinstance(value, tuple) else (value,) for name, value in tags.items()}
    data += b"\0" * (len(data) % 2)
    extra_at = 8 + len(data) + 2 + 12 * len(entries) + 4
    directory, extra = struct.pack("<H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed
        directory += struct.pack("<HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + b"\0\0\0\0" + extra


def waves(width, height):
    """A picture like a photograph, smooth in most places, with hard edges in some."""
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    levels = [128 + 60 * np.sin(across / 11 + c) + 50 * np.cos(down / 7 + c) for c in range(3)]
    return (np.stack(levels, axis=-1) + 15 * (across // 16 % 2)[..., None]).astype(np.uint8)


# Cut short, and closed again: (the first `kept` bytes of the pixels' data, in a file that is complete otherwise)


def pieces(data, kind):
    """Return what is before the data of the pixels, that data, and a function that closes the file after other data."""
    return {"JPEG": _jpeg, "PNG": _png, "GIF": _gif, "WebP": _webp, "TIFF": _tiff}[kind](data)


def _jpeg(data):
    at = data.index(b"\xff\xda")
    return data[at:-2], lambda kept: data[:at] + kept + b"\xff\xd9"


def _png(data):
    at, packed = data.index(b"IDAT") - 4, b""
    end = at
    while data[end + 4 : end + 8] == b"IDAT":
        length = int.from_bytes(data[end : end + 4], "big")
        packed += data[end + 8 : end + 8 + length]
        end += 12 + length
    return packed, lambda kept: data[:at] + chunk(b"IDAT", kept) + data[end:]


def _gif(data):
    """Of the first image: its blocks of up to 255 bytes; whatever is before it has no comma."""
    at = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    start = at = at + 11 + (3 * 2 ** ((data[at + 9] & 7) + 1) if data[at + 9] & 128 else 0)
    packed = b""
    while data[at]:
        packed += data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]

    def closed(kept):
        blocks = (kept[first : first + 255] for first in range(0, len(kept), 255))
        return data[:start] + b"".join(bytes([len(block)]) + block for block in blocks) + data[at:]

    return packed, closed


def _webp(data):
    at = next(at for at in map(data.find, (b"VP8 ", b"VP8L")) if at > 0)
    length = int.from_bytes(data[at + 4 : at + 8], "little")

    def closed(kept):
        body = data[8:at] + data[at : at + 4] + struct.pack("<I", len(kept)) + kept + b"\0" * (len(kept) % 2)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    return data[at + 8 : at + 8 + length], closed


def _tiff(data):
    """Of strips or tiles, all of them: those at the end become shorter, or empty."""
    with Image.open(io.BytesIO(data)) as image:
        tags, types = dict(image.tag_v2), dict(image.tag_v2.tagtype)
    offsets, counts = (324, 325) if 324 in tags else (273, 279)
    slices = [slice(at, at + count) for at, count in zip(tags[offsets], tags[counts], strict=True)]

    def closed(kept):
        entries = {tag: (types[tag], value) for tag, value in tags.items()}
        strips = []
        for part in slices:
            strips.append(kept[: part.stop - part.start])
            kept = kept[part.stop - part.start :]
        entries |= {offsets: (4, (0,) * len(strips)), counts: (4, tuple(map(len, strips)))}
        return tiff_of(entries, strips, offsets)

    return b"".join(data[part] for part in slices), closed


def tiff_of(entries, strips, offsets=273):
    """Return a little-endian TIFF of tags, {number: (type, value or tuple)}, and the data of strips or tiles."""
    out, positions = bytearray(8), []
    for strip in strips:
        positions.append(len(out))
        out += strip + b"\0" * (len(strip) % 2)
    entries = {**entries, offsets: (4, tuple(positions))}
    extra_at, extra = len(out) + 2 + 12 * len(entries) + 4, b""
    directory = struct.pack("<H", len(entries))
    for tag, (kind, value) in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        packed = value if isinstance(value, bytes) else b"".join(struct.pack("<" + "?BBHI"[kind], v) for v in values)
        count = len(packed) if isinstance(value, bytes) else len(values)
        if len(packed) > 4:
            packed, extra = struct.pack("<I", extra_at + len(extra)), extra + packed + b"\0" * (len(packed) % 2)
        directory += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
    out[:8] = b"II*\0" + struct.pack("<I", len(out))
    return bytes(out + directory + b"\0\0\0\0" + extra)
