"""HEIC: whether a file has every byte that its table of contents names.

libheif leaves out the tiles of a photograph that it can't find, without a word, and libde265 decodes what is there of a
picture. The bytes of a file enter, yes or no leaves. Pixels are left to pillow-heif.

Source: ISO/IEC 14496-12, 8.11 (meta, iloc, iinf); H.265, 7.3.1.1: no picture's data ends in a zero byte.
"""

from __future__ import annotations

from collections.abc import Iterator


def is_whole(data: bytes) -> bool:
    """Whether all items of a HEIC file lie within it, and no picture ends in zeros, as an unfinished download does."""
    meta = next((body for kind, body in _boxes(data) if kind == b"meta"), b"")
    boxes = dict(_boxes(meta[4:]))
    pictures = set(_pictures(boxes.get(b"iinf", b"")))
    for item, end in _ends(boxes.get(b"iloc", b"")):
        if end > len(data) or (item in pictures and end and data[end - 1] == 0):
            return False
    return True


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind and the content of each box."""
    at = 0
    while at + 8 <= len(data):
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        size = size or len(data) - at  # 0: to the end
        yield kind, data[at + head : at + size]
        at += max(size, head)


def _pictures(body: bytes) -> Iterator[int]:
    """Yield the numbers of the items that are coded pictures, of a content of `iinf`."""
    for kind, entry in _boxes(body[6 if body[:1] == b"\0" else 8 :]):
        width = 2 if entry[:1] == b"\2" else 4
        if kind == b"infe" and entry[6 + width : 10 + width] == b"hvc1":
            yield int.from_bytes(entry[4 : 4 + width], "big")


class _Reader:
    """Takes numbers off the front of a box's content."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self, width: int) -> int:
        """Return the next number of so many bytes; past the end they are zeros."""
        self._at += width
        return int.from_bytes(self._data[self._at - width : self._at].ljust(width, b"\0"), "big")


def _ends(body: bytes) -> Iterator[tuple[int, int]]:
    """Yield the number of each item in the file itself, and where it ends, of a content of `iloc`."""
    reader = _Reader(body)
    version = reader.number(1)
    reader.number(3)
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(min(reader.number(2 if version < 2 else 4), len(body))):
        item = reader.number(2 if version < 2 else 4)
        method = reader.number(2) & 15 if version else 0
        reference = reader.number(2)
        base = reader.number(base_size)
        end = 0
        for _ in range(min(reader.number(2), len(body))):
            reader.number(index_size if version else 0)
            offset, length = reader.number(offset_size), reader.number(length_size)
            end = max(end, base + offset + length)
        if method == reference == 0:
            yield item, end
