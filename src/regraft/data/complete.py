"""Whether a file has every pixel that its header promises, where Pillow would fill in the others without a word.

An image that Pillow has loaded enters, with its bytes; nothing leaves, or BrokenImage. JPEG is in `jpeg`; GIF, BMP
and AVIF need nothing: their decoders refuse what is cut short.

PNG:  the rows that the compressed data has, if the last row is all zeros, as a missing one would be.
TIFF: the count of strips or tiles; their bytes, where they are not compressed; JPEG's warnings in each. A fax (CCITT)
      is decoded again with other bits at the end of each strip: one that has too few of its own then differs.
WebP, HEIC: see `webp`, `heic`.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from PIL import Image, ImageFile, TiffTags
from PIL.ExifTags import Base as Tag
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from regraft.data import heic, jpeg, webp
from regraft.data.convert import part
from regraft.data.formats import BrokenImage

_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a pixel, by colour type
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_WHOLE = ((0, 0, 1, 1),)

_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS = 322, 323, 324, 325
_JPEG_TABLES = 347
_UNCOMPRESSED, _OLD_JPEG, _JPEG, _FAX = 1, 6, 7, (2, 3, 4, 32771)
_FAX_TAGS = (258, 259, 262, 277, 292, 293)
_FAX_END = re.compile("(0{11}1[01]?){2,6}0*$")  # EOFB, RTC
_ALTERNATING = "000111010"  # a white pixel and a black one, in T.4's code for one dimension
# The row above again, in two dimensions; rows in two dimensions, and in one without and with their ends
_FILLERS = ("1", "001" + _ALTERNATING, _ALTERNATING, "000000000001" + _ALTERNATING * 48)
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check(data: bytes, image: ImageFile.ImageFile) -> None:
    """Raise BrokenImage if the loaded image has pixels that the file has not."""
    if isinstance(image, PngImageFile):
        whole = _png_is_whole(data, image)
    elif isinstance(image, TiffImageFile):
        whole = _tiff_is_whole(data, image)
    elif isinstance(image, WebPImageFile):
        whole = webp.is_whole(data, image)
    else:
        whole = image.format != "HEIF" or heic.is_whole(data)
    if not whole:
        name = {"HEIF": "HEIC", "WEBP": "WebP"}.get(image.format or "", image.format)
        raise BrokenImage(f"the {name} is cut short or damaged: a part of the picture is missing")


# PNG


def _png_is_whole(data: bytes, image: Image.Image) -> bool:
    last = part(image, (0, image.height - 1, image.width, image.height))
    if any(last.tobytes()) and not image.info.get("interlace"):
        return True
    width, height, depth, colour, _, _, interlaced = struct.unpack(">II5B", data[16:29])
    needed = _png_bytes(width, height, depth * _PNG_SAMPLES[colour], _ADAM7 if interlaced else _WHOLE)
    for length in _inflated(data):
        needed -= length
    return needed <= 0


def _png_bytes(width: int, height: int, bits: int, passes: tuple[tuple[int, int, int, int], ...]) -> int:
    """Return how many bytes the rows of all passes are, each with the byte that says how it is filtered."""
    sides = ((-((x - width) // across), -((y - height) // down)) for x, y, across, down in passes)
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sides if columns > 0 and rows > 0)


def _inflated(data: bytes) -> Iterator[int]:
    """Yield the lengths of the pieces that a PNG's pixels inflate to."""
    inflater = zlib.decompressobj()
    at = 8
    while at < len(data) and data[at + 4 : at + 8] != b"IEND":
        length = int.from_bytes(data[at : at + 4], "big")
        piece = data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
        while piece:
            yield len(inflater.decompress(piece, 1 << 20))
            piece = inflater.unconsumed_tail
        at += 12 + length


# TIFF


def _tiff_is_whole(data: bytes, image: TiffImageFile) -> bool:
    tags = image.tag_v2
    compression = tags.get(Tag.Compression, 1)
    if compression == _OLD_JPEG:
        return True
    chunks = _Chunks.of(tags)
    if len(chunks.offsets) < chunks.number:
        return False
    if compression == _UNCOMPRESSED:
        return _has_all_bytes(data, chunks)
    pieces = [data[at : at + count] for at, count in zip(chunks.offsets, chunks.counts, strict=False)]
    if compression == _JPEG:
        tables = bytes(tags.get(_JPEG_TABLES, b""))
        streams = (tables[:-2] + piece[2:] if tables else piece for piece in pieces)
        return not any(jpeg.has_gaps(stream, chunks.rows(number)) for number, stream in enumerate(streams))
    return compression not in _FAX or _fax_is_whole(tags, chunks, pieces)


class _Chunks(NamedTuple):
    """The strips or tiles of a TIFF, and how large they are when not compressed."""

    offsets: tuple[int, ...]
    counts: tuple[int, ...]  # of bytes
    planes: tuple[int, ...]  # bits of a pixel in each
    across: int  # how many are side by side in a plane
    down: int
    width: int  # of one, in pixels
    length: int
    last_length: int  # of those at the bottom

    @classmethod
    def of(cls, tags: ImageFileDirectory_v2) -> _Chunks:
        width, height = tags[Tag.ImageWidth], tags[Tag.ImageLength]
        samples = tags.get(Tag.SamplesPerPixel, 1)
        bits = (tags.get(Tag.BitsPerSample, (1,)) * samples)[:samples]
        planes = bits if tags.get(Tag.PlanarConfiguration, 1) == 2 else (sum(bits),)
        if _TILE_OFFSETS in tags:
            offsets, counts = tags[_TILE_OFFSETS], tags.get(_TILE_COUNTS)
            across, length = tags[_TILE_WIDTH], tags[_TILE_LENGTH]
        else:
            offsets, counts = tags.get(Tag.StripOffsets, ()), tags.get(Tag.StripByteCounts)
            across, length = width, min(tags.get(Tag.RowsPerStrip, height), height)
        down = -(-height // length)
        last = length if _TILE_OFFSETS in tags else height - (down - 1) * length
        return cls(*(offsets, counts or (0,) * len(offsets)), planes, -(-width // across), down, across, length, last)

    @property
    def number(self) -> int:
        """How many there are in all planes."""
        return len(self.planes) * self.across * self.down

    def rows(self, number: int) -> int:
        """Return how many rows of pixels one has."""
        return self.last_length if number // self.across % self.down == self.down - 1 else self.length

    def bytes(self, number: int) -> int:
        """Return how many bytes one takes."""
        return -(-self.width * self.planes[number // (self.across * self.down)] // 8) * self.rows(number)


def _has_all_bytes(data: bytes, chunks: _Chunks) -> bool:
    """Whether the rows of each chunk are in the file, and before whatever comes next there: counts may be wrong."""
    big = data[2:4] in (b"+\0", b"\0+")
    directory = int.from_bytes(data[8:16] if big else data[4:8], "little" if data[:2] == b"II" else "big")
    starts = sorted({*chunks.offsets, directory, len(data)})
    for number, (offset, count) in enumerate(zip(chunks.offsets, chunks.counts, strict=False)):
        if number == chunks.number:
            break
        after = starts[bisect_right(starts, offset) :][:1]
        if chunks.bytes(number) > max(min(count, len(data) - offset), (after or [0])[0] - offset):
            return False
    return True


def _fax_is_whole(tags: ImageFileDirectory_v2, chunks: _Chunks, pieces: Sequence[bytes]) -> bool:
    if tags.get(Tag.FillOrder, 1) == 2:
        pieces = [piece.translate(_REVERSED) for piece in pieces]
    return len({_fax(tags, chunks, pieces, filler) for filler in ("", *_FILLERS)}) == 1


def _fax(tags: ImageFileDirectory_v2, chunks: _Chunks, pieces: Sequence[bytes], filler: str) -> bytes:
    """Return the pixels of all strips or tiles of a fax, one below the other, with other bits at the end of each."""
    directory = ImageFileDirectory_v2()
    for tag in _FAX_TAGS:
        if tag in tags:
            directory[tag] = tags[tag]
    directory[Tag.ImageWidth], directory[Tag.RowsPerStrip] = chunks.width, chunks.length
    directory[Tag.ImageLength] = sum(map(chunks.rows, range(chunks.number)))
    strips = [_with_filler(piece, filler) if filler else piece for piece in pieces[: chunks.number]]
    directory[Tag.StripByteCounts] = tuple(map(len, strips))
    directory[Tag.StripOffsets] = (0, *accumulate(map(len, strips[:-1])))  # after the directory: it adds its own length
    directory.tagtype[Tag.StripOffsets] = directory.tagtype[Tag.StripByteCounts] = TiffTags.LONG
    file = io.BytesIO()
    directory.save(file)
    file.write(b"".join(strips))
    file.seek(0)
    with TiffImageFile(file) as image:
        image.load()
        return image.tobytes()


def _with_filler(strip: bytes, filler: str) -> bytes:
    """Return a strip whose mark of the end is replaced by these bits, many times."""
    tail = "".join(f"{byte:08b}" for byte in strip[-16:])
    bits = _FAX_END.sub("", tail) + filler * 200
    bits = bits[: len(bits) // 8 * 8]
    return strip[:-16] + int(bits, 2).to_bytes(len(bits) // 8, "big")
