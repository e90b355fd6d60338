"""JPEGs: their pixels by libjpeg-turbo, and whether all of them are in the file.

The bytes of one file enter; its pixels leave, as stored, or BrokenImage.

libjpeg fills in what is missing, with grey, and only warns. A JPEG that it decodes without a warning is whole, unless
it has several scans and the last ones are missing: the scans' headers tell. After a warning that may be harmless (bytes
between two segments, an unknown version) the file is decoded twice, the second time with other bytes put in after each
scan. A scan that has too few bytes of its own then has other pixels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from regraft.data.formats import MAX_PIXELS, BrokenImage

# A scan costs some 2 ms for each million pixels, whatever it holds. Encoders write up to about 15 (libjpeg 10), and
# libjpeg-turbo's own fuzzers stop at 500.
MAX_SCANS = 100
MAX_SCANNED = 12 * MAX_PIXELS  # pixels times scans: a few seconds

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)  # also after a scan, where FF 00 is a byte of data
_ALONE = (0x01, 0xD8)  # markers without a segment
_END, _SCAN = 0xD9, 0xDA
_FRAMES, _PROGRESSIVE, _ARITHMETIC = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA), (0xC2, 0xCA), (0xC9, 0xCA)

_GAPS = ("premature end", "bad huffman code", "bad arithmetic code", "instead of rst")  # in libjpeg's warnings
_FILLER = b"\xaa\x55" * 2048
_ZEROS = bytes(8)  # arithmetic coding leaves out zeros at the end

MISSING = "the JPEG is cut short or damaged: a part of the picture is missing"


def decode(data: bytes, image: JpegImageFile, min_side: int) -> NDArray[np.uint8] | None:
    """Return the pixels as stored, (height, width, 3), at 1/8 to 1/1 of the size; None, for Pillow to decode: CMYK.

    image: the opened file, whose size was checked: the buffer has that size, and a larger image does not fit.
    Raises BrokenImage if pixels are missing, or if there are more scans than are accepted.
    """
    _check_scans(data, image.size)
    if image.mode not in ("RGB", "L"):
        _check_gaps(data, _warning(data, "CMYK"))
        return None
    scale = scale_of(image.size, min_side)
    width, height = (side // scale for side in image.size)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, min_height=height, min_width=width, buffer=np.empty((height, width, 3), np.uint8), strict=True
        )
    except ValueError as error:
        return _check_gaps(data, str(error))
    return pixels if pixels.shape == (height, width, 3) else _check_gaps(data, "another size")


def memory(image: JpegImageFile, min_side: int) -> int:
    """Return how many bytes it takes to decode a JPEG: its pixels, and if it is progressive its coefficients."""
    width, height = image.size
    scale = scale_of(image.size, min_side)
    return 3 * (width // scale) * (height // scale) + (6 * width * height if image.info.get("progressive") else 0)


def has_gaps(data: bytes, rows: int) -> bool:
    """Whether a JPEG stream has fewer rows than these, or libjpeg-turbo warns that it ends too early or is damaged."""
    frames = (content for marker, _, content in _segments(data) if marker in _FRAMES)
    height = int.from_bytes(next(frames, b"")[1:3], "big")
    return height < rows or any(_is_gap(_warning(data, space)) for space in ("RGB", "CMYK"))


def scale_of(size: tuple[int, int], min_side: int) -> int:
    """Return the largest of 8, 4 and 2 that divides both sides (no edge moves) and leaves them `min_side` pixels.

    Other ratios take libjpeg-turbo longer than the full size.
    """
    fits = (scale for scale in (8, 4, 2) if all(side % scale == 0 and side // scale >= min_side for side in size))
    return next(fits, 1) if min_side > 0 else 1


# Warnings


def _warning(data: bytes, space: str) -> str:
    """Return libjpeg-turbo's first warning or error, decoding to this colour space at the smallest size; or ""."""
    try:
        simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1, strict=True)
    except ValueError as error:
        return str(error)
    return ""


def _is_gap(warning: str) -> bool:
    return any(text in warning.lower() for text in _GAPS)


def _check_gaps(data: bytes, warning: str) -> NDArray[np.uint8] | None:
    """Return the pixels that Pillow decodes after such a warning, or None without one; raise if any was filled in."""
    if not warning:
        return None
    if _is_gap(warning):
        raise BrokenImage(MISSING)
    pixels = _by_pillow(data)
    if not np.array_equal(pixels, _by_pillow(_filled(data))):
        raise BrokenImage(MISSING)
    return pixels


def _by_pillow(data: bytes) -> NDArray[np.uint8]:
    with JpegImageFile(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def _filled(data: bytes) -> bytes:
    """Return the JPEG with more bytes at the end of each scan."""
    pieces, start, in_scan, zeros = [], 0, False, b""
    for marker, position, _ in _segments(data):
        if in_scan:
            pieces += [data[start:position], zeros, _filler(data[start:position])]
            start = position
        in_scan = marker == _SCAN
        if marker in _ARITHMETIC:
            zeros = _ZEROS
    return b"".join([*pieces, data[start:], _filler(data[start:]) if in_scan else b""])


def _filler(scan: bytes) -> bytes:
    """Return bytes that go on in a scan, and the restarts that would come next."""
    _, last = max((scan.rfind(bytes([0xFF, 0xD0 + number])), number) for number in range(8))
    restarts = (bytes([0xFF, 0xD0 + (last + 1 + number) % 8]) for number in range(16))
    return _FILLER + b"".join(restart + _FILLER for restart in restarts)


# Scans


def _segments(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield each segment's marker, its position, and its content, up to the end of the image."""
    at = 2
    while match := _MARKER.search(data, at):
        marker, at = match[1][0], match.end()
        if marker in _ALONE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        yield marker, match.start(), data[at + 2 : at + length]
        if marker == _END:
            return
        at += length


def _check_scans(data: bytes, size: tuple[int, int]) -> None:
    """Raise BrokenImage if there are too many scans, or if they don't bring all that the header promises."""
    missing: set[tuple[int, int]] = set()  # components and coefficients whose last bit has not come
    progressive, count = False, 0
    for marker, _, content in _segments(data):
        if marker in _FRAMES:
            progressive = marker in _PROGRESSIVE
            components = content[6 : 6 + 3 * content[5] : 3]
            missing = {(component, k) for component in components for k in range(64 if progressive else 1)}
        if marker == _SCAN:
            count += 1
            _check_count(count, size)
            missing -= _brought(content, progressive)
            if not progressive and not missing:
                return  # what follows is not read
    if missing:
        raise BrokenImage(MISSING)


def _brought(content: bytes, progressive: bool) -> set[tuple[int, int]]:
    """Return the components and coefficients that are complete after the scan with this header."""
    count = content[0]
    components, parameters = content[1 : 1 + 2 * count : 2], content[1 + 2 * count : 4 + 2 * count]
    first, last, bits = parameters if progressive and len(parameters) == 3 else (0, 0, 0)
    return set() if bits & 15 else {(component, k) for component in components for k in range(first, last + 1)}


def _check_count(count: int, size: tuple[int, int]) -> None:
    if count > MAX_SCANS or count * size[0] * size[1] > MAX_SCANNED:
        raise BrokenImage(
            f"the JPEG has more scans than the accepted {min(MAX_SCANS, MAX_SCANNED // (size[0] * size[1]))}, which "
            "would take very long to decode; save it again"
        )
