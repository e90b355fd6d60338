"""WebP: the size that a file states, before its decoder takes memory for all pixels, and whether the file is whole.

The bytes of a file enter; a size, or yes or no leaves. Pixels are left to Pillow.

Source: the WebP container specification (RIFF chunks), RFC 6386, 9.1 (VP8), and the lossless bitstream's (VP8L).
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from PIL import Image, ImageChops
from PIL.WebPImagePlugin import WebPImageFile


def size(data: bytes) -> tuple[int, int]:
    """Return the (width, height) that the first chunk states; (0, 0) if it is another one."""
    if data[12:16] == b"VP8X":
        return _number(data[24:27]) + 1, _number(data[27:30]) + 1
    if data[12:16] == b"VP8L":
        bits = _number(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        return _number(data[26:28]) & 0x3FFF, _number(data[28:30]) & 0x3FFF
    return 0, 0


def is_whole(data: bytes, image: Image.Image) -> bool:
    """Whether the first frame, which is loaded as `image`, is.

    Lossless pixels, and alpha, of an odd number of bytes are followed by one that fills up. libwebp takes it for one of
    theirs; with another one there, a file that lacks its last byte has other pixels.
    """
    changed = bytearray(data)
    for position in _fillers(data, 12):
        changed[position] ^= 255
    if changed == data:
        return True
    with WebPImageFile(io.BytesIO(changed)) as other:
        other.load()
        return ImageChops.difference(image, other).getbbox(alpha_only=False) is None


def is_decoded_twice(data: bytes) -> bool:
    """Whether `is_whole` may have to decode the image again."""
    return b"VP8L" in data or b"ALPH" in data


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _fillers(data: bytes, start: int) -> Iterator[int]:
    """Yield the positions of the bytes that fill up chunks of lossless pixels and of alpha."""
    while start + 8 <= len(data):
        kind, length = data[start : start + 4], _number(data[start + 4 : start + 8])
        if kind == b"ANMF":
            yield from _fillers(data[: start + 8 + length], start + 24)
        elif kind in (b"VP8L", b"ALPH") and length % 2 and start + 8 + length < len(data):
            yield start + 8 + length
        start += 8 + length + length % 2
