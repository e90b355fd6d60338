"""The members of a tar archive, from their headers alone.

An open file enters, its members leave one by one, so that memory stays flat however many there are. ustar, GNU and
PAX headers are read. A header that can't be used makes its own member `damaged`, and the next one is read all the same.

Python's tarfile keeps every header that it has read, and gives up at the first PAX header that it does not understand.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

BLOCK = 512
MAX_HEADER = 2**20  # bytes of an extended header; it holds names

Kind = Literal["file", "folder", "link", "device", "sparse", "damaged"]

# name, size, checksum, type, magic, prefix (POSIX.1-1988, ustar)
_HEADER = struct.Struct("100s24x12s12x8sc100x6s82x155s12x")
_KINDS: dict[bytes, Kind] = {
    **dict.fromkeys((b"0", b"\0", b"7"), "file"),
    **dict.fromkeys((b"1", b"2"), "link"),
    **dict.fromkeys((b"3", b"4", b"6"), "device"),
    **dict.fromkeys((b"5", b"D"), "folder"),
    b"S": "sparse",
}
_WITHOUT_BYTES = ("link", "device")  # what their headers say of a size is none in the archive
_OCTAL = re.compile(rb"[0-7]+")
_RECORD = re.compile(rb"([0-9]{1,20}) ")


class TarError(Exception):
    """The file is not a tar archive, damaged or cut short."""


class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Member:
    """One member: the name as it is stored, where its bytes begin in the tar, and how many there are."""

    name: str
    kind: Kind
    offset: int
    size: int


@dataclass
class _Next:
    """What extended headers say of the member that follows them."""

    name: str | None = None
    records: dict[str, str] = field(default_factory=dict)
    is_damaged: bool = False


def is_header(block: bytes) -> bool:
    """Whether a block is a header by its checksum."""
    return len(block) == BLOCK and block.strip(b"\0") != b"" and _has_checksum(block)


def members(file: _File) -> Iterator[Member]:
    """Yield the members; raise TarError where the archive is damaged or cut short, and what the file raises."""
    offset, common, following = 0, dict[str, str](), _Next()
    while block := _block(file, offset):
        name, size, kind_byte = _fields(block, offset)
        data = offset + BLOCK
        if kind_byte in (b"x", b"X", b"g", b"L", b"K"):
            _extend(following, common, kind_byte, _content(file, data, size))
            offset = _after(data, size)
            continue
        member = _member(name, size, kind_byte, data, {**common, **following.records}, following)
        if kind_byte == b"S":
            member = _moved(member, _skip_sparse_maps(file, block, data))
        if kind_byte != b"V":  # the name of a tape
            yield member
        if member.size:  # the caller has seen it, and may have refused it
            _check_bytes(file, member)
        offset, following = _after(member.offset, member.size), _Next()
    if following.name is not None or following.records:
        raise TarError("its last header has no member")


def _block(file: _File, offset: int) -> bytes:
    """Return the header at an offset; empty at the end of the archive, which is two blocks of zeros or none."""
    file.seek(offset)
    block = file.read(BLOCK)
    if block and not block.strip(b"\0"):
        more = file.read(BLOCK)
        if more.strip(b"\0"):
            raise TarError(f"more follows its end at byte {offset}")
        return b""
    if block and not is_header(block):
        raise TarError(f"no member's header at byte {offset}")
    return block


def _has_checksum(block: bytes) -> bool:
    """Whether the sum of a header's bytes is the one in it; old programs summed them as signed numbers."""
    expected, field = _number(block[148:156]), block[148:156]
    unsigned = sum(block) - sum(field) + sum(b" " * len(field))
    return expected == unsigned or expected == unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])


def _fields(block: bytes, offset: int) -> tuple[str, int, bytes]:
    """Return the name, the size and the type of a header."""
    name, size, _checksum, kind, magic, prefix = _HEADER.unpack(block)
    number = _number(size)
    if number is None or number < 0:
        raise TarError(f"the header at byte {offset} has no size")
    texts = [_text(name)] if not magic.startswith(b"ustar\0") else [_text(prefix), _text(name)]
    return "/".join(filter(None, texts)), number, kind


def _number(digits: bytes) -> int | None:
    """Return an octal number, or one in base 256 (GNU); None if it is neither."""
    if digits[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(digits[1:], "big") - (256 ** (len(digits) - 1) if digits[0] == 255 else 0)
    text = digits.partition(b"\0")[0].strip() or b"0"
    return int(text, 8) if _OCTAL.fullmatch(text) else None


def _text(name: bytes) -> str:
    return name.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _content(file: _File, offset: int, size: int) -> bytes:
    if size > MAX_HEADER:
        raise TarError(f"a header of {size:,} bytes")
    file.seek(offset)
    content = file.read(size)
    if len(content) < size:
        raise TarError(f"a header at byte {offset} is cut short")
    return content


def _after(offset: int, size: int) -> int:
    return offset + -(-size // BLOCK) * BLOCK


def _extend(following: _Next, common: dict[str, str], kind: bytes, content: bytes) -> None:
    if kind == b"L":
        following.name = _text(content)
    elif kind != b"K":  # of a link's target nothing is wanted
        try:
            (common if kind == b"g" else following.records).update(_records(content))
        except ValueError:
            following.is_damaged = True


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of a PAX header ("30 path=cat/1.jpg\\n"); raise ValueError if they are no such."""
    at = 0
    while at < len(content.rstrip(b"\0")):
        match = _RECORD.match(content, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise ValueError(content)
        key, equals, value = content[match.end() : end - 1].partition(b"=")
        if not equals:
            raise ValueError(content)
        yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")
        at = end


def _member(name: str, size: int, kind_byte: bytes, offset: int, records: dict[str, str], following: _Next) -> Member:
    name = records.get("GNU.sparse.name") or records.get("path") or following.name or name
    kind = _KINDS.get(kind_byte, "damaged")
    if kind == "file" and name.endswith("/"):  # as folders were written before 1988
        kind = "folder"
    stated = records.get("size")
    if stated is not None and stated.isascii() and stated.isdecimal() and len(stated) <= 20:
        size = int(stated)
    elif stated is not None:
        kind = "damaged"
    if any(key.startswith("GNU.sparse.") for key in records):
        kind = "sparse"
    if following.is_damaged:
        kind = "damaged"
    return Member(name, kind, offset, 0 if kind in _WITHOUT_BYTES else size)


def _moved(member: Member, offset: int) -> Member:
    return Member(member.name, member.kind, offset, member.size)


def _skip_sparse_maps(file: _File, block: bytes, offset: int) -> int:
    """Return where the bytes of a sparse file of GNU's old format begin: behind more blocks of its map."""
    more = block[482]
    while more:
        file.seek(offset)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise TarError(f"a header at byte {offset} is cut short")
        more, offset = block[504], offset + BLOCK
    return offset


def _check_bytes(file: _File, member: Member) -> None:
    """Raise TarError unless the last byte of a member is there."""
    try:
        file.seek(member.offset + member.size - 1)
        last = file.read(1)
    except (OverflowError, ValueError):  # an offset of more than 63 bits
        last = b""
    if not last:
        raise TarError("unexpected end of data")
