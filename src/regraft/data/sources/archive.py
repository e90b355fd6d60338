"""A zip or tar archive as a source; nothing is ever unpacked to the disk.

A path enters, rows leave in the archive's order, with labels from the members'
names (as in a folder). Whether it is a .zip, a .tar, or a .tar compressed with
gzip is decided by its bytes, never by its name. Listing reads names and sizes
only. A member's bytes are read by offset when its row's location is read, from
any thread or process; how much they may unpack to is limited before.

An archive is refused as a whole if a member points outside it (`..`, an
absolute name, a link, a device), if it unpacks to far more than its size, or
if it holds little but names. One member that can't be used breaks that one.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from errno import EFBIG, EIO
from pathlib import Path

from regraft.core.errors import DataError, first_line
from regraft.core.text import printable
from regraft.data import formats
from regraft.data.index import Location, Row
from regraft.data.sources import _gzip, _tar
from regraft.data.sources._layout import EMPTY_FOLDER, HIDDEN, is_hidden, label_rows
from regraft.data.sources.folder import MAX_BYTES, file_stamp

# Against decompression bombs: deflate reaches 1:1032, photographs stay near 1:1, plain drawings near 1:100.
MAX_RATIO = 100
MEMBER_BYTES = 64 * 2**20  # smaller members may have any ratio
TOTAL_BYTES = 1024 * 2**20  # archives with less content may have any ratio
PACKED_RATIO = 20  # of few images; zeros have 1000
ROW_BYTES = 2048  # a member counts as so many more: its header, and what its row takes in memory
MAX_EMPTY = 100_000  # members without content
MAX_DIRECTORY = 16 * 2**20  # bytes of a zip's central directory; a larger one must not be most of the archive

_UNREADABLE = {
    "sparse": "a sparse file, which is not read from an archive",
    "damaged": "its header in the archive is damaged",
}

_END = struct.Struct("<4s8xI6x")  # signature, bytes of the central directory; APPNOTE.TXT 4.3.16
_END_64 = struct.Struct("<40xQ28x")  # the same, and what follows it, where the archive is large; 4.3.14, 4.3.15
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra; APPNOTE.TXT 4.3.7


@dataclass(frozen=True, slots=True)
class ZipLocation:
    """One member of a zip archive, stored or deflated."""

    archive: Path
    offset: int  # of its local header
    compressed_size: int  # bytes in the archive
    size: int  # bytes unpacked
    checksum: int  # CRC-32 of the unpacked bytes
    deflated: bool

    def head(self) -> bytes:
        """Return the first bytes, as many as tell the format; raise OSError as `read` does."""
        compressed = self._read_compressed(min(self.compressed_size, 2 * formats.HEAD))
        return _inflate(compressed, formats.HEAD) if self.deflated else compressed

    def read(self) -> bytes:
        """Return the member's bytes; raise OSError if they are damaged, or not as long as declared."""
        _check_size(self.size)
        compressed = self._read_compressed(self.compressed_size)
        data = _inflate(compressed, self.size) if self.deflated else compressed
        if len(data) != self.size or zlib.crc32(data) != self.checksum:
            raise OSError(EIO, "damaged in the archive: its length or checksum is not the declared one")
        return data

    def stamp(self) -> int:
        """Return the checksum, which `read` compares."""
        return self.checksum

    def _read_compressed(self, size: int) -> bytes:
        with self.archive.open("rb") as file:
            is_possible = 0 <= self.offset < 2**63
            file.seek(self.offset if is_possible else 0)
            header = file.read(_LOCAL_HEADER.size)
            if not is_possible or len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
                raise OSError(EIO, "damaged in the archive: no member where one is declared")
            _, name, extra = _LOCAL_HEADER.unpack(header)
            file.seek(name + extra, 1)
            return file.read(size)


@dataclass(frozen=True, slots=True)
class TarLocation:
    """One member of a tar archive, plain or compressed with gzip."""

    archive: Path
    offset: int  # of its bytes, in the tar
    size: int
    gzipped: bool

    def head(self) -> bytes:
        """Return the first bytes, as many as tell the format; raise OSError as `read` does."""
        return self._read(min(self.size, formats.HEAD))

    def read(self) -> bytes:
        """Return the member's bytes; raise OSError if they are damaged or cut short."""
        _check_size(self.size)
        return self._read(self.size)

    def stamp(self) -> int:
        """Return a number of the archive's size, times and inode, as a tar has no checksums."""
        return file_stamp(self.archive)

    def _read(self, size: int) -> bytes:
        try:
            data = _gzip.reader(self.archive).read(self.offset, size) if self.gzipped else self._read_plain(size)
        except (EOFError, zlib.error) as error:
            raise OSError(EIO, f"damaged in the archive: {error}") from error
        if len(data) != size:
            raise OSError(EIO, "cut short in the archive")
        return data

    def _read_plain(self, size: int) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(size)


def is_packed(location: Location) -> bool:
    """Whether it takes long to unpack for what it is: look at its head before."""
    return isinstance(location, ZipLocation) and location.size > PACKED_RATIO * location.compressed_size


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive by its first bytes; raise OSError if it can't be read."""
    return _kind(path) is not None


def rows(path: Path, pattern: str | None = None) -> Iterator[Row]:
    """Yield the members in class folders, or in part folders that hold class folders, with label and part.

    pattern: where the labels are in the paths instead, see `_pattern`.
    Raises DataError if the archive is damaged, encrypted, refused, or has no class folder.
    """
    yield from label_rows(list(files(path)), str(path), pattern)


def files(path: Path) -> Iterator[Row]:
    """Yield every member that is a file, without labels, and at the end the folders that hold none.

    Of members with the same name all but the last are ignored.
    """
    kind = _kind(path)
    if kind is None:
        raise DataError(f"{path} is not a zip, tar or tar.gz archive, whatever its name; expected one of these.")
    try:
        members = list(_zip_members(path) if kind == "zip" else _tar_members(path, kind == "gzip"))
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{path} is damaged or cut short ({printable(reason)}). Download it or create it again."
        ) from error
    replaced, filled = _replaced(members), _filled_folders(members)
    for number, row in enumerate(members):
        is_folder = row.path.endswith("/")
        if is_folder and (is_hidden(row.path) or row.path in filled or number in replaced):
            continue
        if not is_folder and is_hidden(row.path):
            row = row.marked("ignored", HIDDEN)
        yield row.marked("ignored", "a later member has the same name") if number in replaced else row


def _replaced(members: Sequence[Row]) -> frozenset[int]:
    """Return the numbers of the members after which another one has the same name."""
    names: set[str] = set()
    earlier = []
    for number in range(len(members) - 1, -1, -1):
        if members[number].path in names:
            earlier.append(number)
        names.add(members[number].path)
    return frozenset(earlier)


def _filled_folders(members: Sequence[Row]) -> frozenset[str]:
    """Return the folders that a file is in which is not hidden, at any depth, with a slash at the end."""
    parents = {row.path.rpartition("/")[0] for row in members if not row.path.endswith("/") and not is_hidden(row.path)}
    steps = (parent.split("/") for parent in parents if parent)
    return frozenset("/".join(names[:end]) + "/" for names in steps for end in range(1, len(names) + 1))


# What gzip, zlib and the operating system raise for damaged archives; DataError is none of these.
_DAMAGE = (_tar.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError)


def _kind(path: Path) -> str | None:
    """Return "zip", "tar", "gzip" (a tar within) or None."""
    if not path.is_file():  # opening a pipe would wait for ever
        return None
    with path.open("rb") as file:
        head = file.read(_tar.BLOCK)
    known = formats.recognise(head)
    if known is formats.ZIP:
        return "zip"
    if known is not formats.GZIP:
        return "tar" if _tar.is_header(head) else None
    with contextlib.suppress(EOFError, zlib.error):
        return "gzip" if _tar.is_header(_gzip.reader(path).read(0, _tar.BLOCK)) else None
    return None


def _zip_members(path: Path) -> Iterator[Row]:
    archive_size = path.stat().st_size
    _check_directory(path, archive_size)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # zipfile raises nearly every type for damaged files
        raise zipfile.BadZipFile(first_line(error)) from error
    if sum(info.compress_size for info in members) > archive_size:
        raise zipfile.BadZipFile("its members are declared larger than the file")
    _check_ratio(path, "it", sum(info.file_size + ROW_BYTES for info in members), archive_size, TOTAL_BYTES)
    _check_empty(path, sum(info.file_size == 0 and not info.is_dir() for info in members))
    for info in members:
        stored = _zip_name(info)
        name = _safe_name(path, stored)
        if stored.endswith("/"):
            yield from _folder_row(name, path)
        else:
            _check_zip_member(path, name, info)
            yield Row(path=name, location=_zip_location(path, info))


def _check_directory(path: Path, archive_size: int) -> None:
    """Refuse a zip whose list of members is most of it, before the list is read into memory."""
    with path.open("rb") as file:
        file.seek(max(0, archive_size - _END.size - 2**16))  # a comment may follow, of 64 KiB at most
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        return  # zipfile will say so
    _, size = _END.unpack_from(tail, at)
    if size == 2**32 - 1 and at >= _END_64.size and tail[at - _END_64.size :].startswith(b"PK\6\6"):
        (size,) = _END_64.unpack_from(tail, at - _END_64.size)
    if max(MAX_DIRECTORY, archive_size / 3) < size <= archive_size:
        raise DataError(f"{path} is refused: it holds the names of members and hardly anything else. Create it again.")


def _zip_location(path: Path, info: zipfile.ZipInfo) -> ZipLocation:
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return ZipLocation(path, info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name: decoded as UTF-8 if possible (macOS doesn't set its flag), else as cp437, as DOS did."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/")  # APPNOTE.TXT 4.4.17.1 allows only "/"; old Windows programs wrote "\\"


def _check_zip_member(path: Path, name: str, info: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise _refusal(path, name, "is a link" if kind == stat.S_IFLNK else "is a device or pipe")
    if info.flag_bits & 1:
        raise DataError(
            f"{path} is encrypted ({name}); expected an archive without a password. Create it again without one."
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(
            f"{path} is compressed by method {info.compress_type} ({name}); expected deflate. Create it again."
        )
    _check_ratio(path, f"its member {name}", info.file_size, info.compress_size, MEMBER_BYTES)


def _tar_members(path: Path, gzipped: bool) -> Iterator[Row]:
    archive_size, total, empty = path.stat().st_size, 0, 0
    with gzip.open(path) if gzipped else path.open("rb") as file:
        for member in _tar.members(file):
            total += member.size + ROW_BYTES
            empty += member.size == 0 and member.kind == "file"
            _check_ratio(path, f"its member {printable(member.name)}", member.size, archive_size, MEMBER_BYTES)
            _check_ratio(path, "it", total, archive_size, TOTAL_BYTES)
            _check_empty(path, empty)
            if member.kind == "folder":
                yield from _folder_row(_safe_name(path, member.name), path)
            else:
                yield _tar_row(path, member, gzipped)


def _tar_row(path: Path, member: _tar.Member, gzipped: bool) -> Row:
    name = _safe_name(path, member.name)
    if member.kind in ("link", "device"):
        raise _refusal(path, name, "is a link" if member.kind == "link" else "is a device or a pipe")
    row = Row(path=name, location=TarLocation(path, member.offset, member.size, gzipped))
    return row.marked("broken", _UNREADABLE[member.kind]) if member.kind in _UNREADABLE else row


def _folder_row(name: str, path: Path) -> Iterator[Row]:
    """Yield the row of a folder, unless it is the archive's own; `files` leaves out those that hold a file."""
    if name:
        row = Row(path=name + "/", location=TarLocation(path, 0, 0, False))
        yield row.marked("ignored", EMPTY_FOLDER)


def _safe_name(path: Path, name: str) -> str:
    """Return a member's path, for display; raise DataError if it points outside the archive."""
    shown = printable(name)
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise _refusal(path, shown, "has an absolute name")
    names = [part for part in shown.split("/") if part not in ("", ".")]
    if ".." in names:
        raise _refusal(path, shown, "points outside the archive")
    return "/".join(names)


def _refusal(path: Path, name: str, why: str) -> DataError:
    return DataError(f"{path} is refused: its member {name} {why}. Create the archive again without it.")


def _check_ratio(path: Path, what: str, size: int, compressed_size: int, harmless: int) -> None:
    """Raise DataError if more than `harmless` bytes are declared to unpack from far fewer."""
    if size > harmless and size > MAX_RATIO * compressed_size:
        raise DataError(
            f"{path} is refused: {what} unpacks from {compressed_size:,} bytes to {size:,}, more than "
            f"{MAX_RATIO} times as many. Create the archive again without such files."
        )


def _check_empty(path: Path, count: int) -> None:
    if count > MAX_EMPTY:
        raise DataError(
            f"{path} is refused: it holds more than {MAX_EMPTY:,} empty files. Create the archive again without them."
        )


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise OSError(EFBIG, f"larger than {MAX_BYTES >> 20} MiB")


def _inflate(compressed: bytes, size: int) -> bytes:
    """Return the unpacked bytes, one more than `size` at most."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed, size + 1)
    except zlib.error as error:
        raise OSError(EIO, f"damaged in the archive: {error}") from error
