"""A zip or tar archive as a source; nothing is ever unpacked to the disk.

A path enters, rows leave in the archive's order, with labels from the members'
names (as in a folder). Whether it is a .zip, a .tar, or a .tar compressed with
gzip is decided by its bytes, never by its name. Listing reads names and sizes
only. A member's bytes are read by offset when its row's location is read, from
any thread or process; how much they may unpack to is limited before.

An archive is refused as a whole if a member points outside it (`..`, an
absolute name, a link, a device), or if it unpacks to far more than its size.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EFBIG, EIO
from pathlib import Path

from regraft.core.errors import DataError
from regraft.core.text import printable
from regraft.data import formats
from regraft.data.index import Row
from regraft.data.sources import _gzip
from regraft.data.sources._layout import HIDDEN, is_hidden, label_rows
from regraft.data.sources.folder import MAX_BYTES, file_stamp

# Against decompression bombs: deflate reaches 1:1032, photographs stay near 1:1, plain drawings near 1:100.
MAX_RATIO = 100
MEMBER_BYTES = 64 * 2**20  # smaller members may have any ratio
TOTAL_BYTES = 1024 * 2**20  # archives with less content may have any ratio

MAX_HEADER = 2**20  # bytes; a tar's header holds names

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

    def read(self) -> bytes:
        """Return the member's bytes; raise OSError if they are damaged, or not as long as declared."""
        _check_size(self.size)
        compressed = self._read_compressed()
        data = _inflate(compressed, self.size) if self.deflated else compressed
        if len(data) != self.size or zlib.crc32(data) != self.checksum:
            raise OSError(EIO, "damaged in the archive: its length or checksum is not the declared one")
        return data

    def stamp(self) -> int:
        """Return the checksum, which `read` compares."""
        return self.checksum

    def _read_compressed(self) -> bytes:
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            header = file.read(_LOCAL_HEADER.size)
            if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
                raise OSError(EIO, "damaged in the archive: no member where one is declared")
            _, name, extra = _LOCAL_HEADER.unpack(header)
            file.seek(name + extra, 1)
            return file.read(self.compressed_size)


@dataclass(frozen=True, slots=True)
class TarLocation:
    """One member of a tar archive, plain or compressed with gzip."""

    archive: Path
    offset: int  # of its bytes, in the tar
    size: int
    gzipped: bool

    def read(self) -> bytes:
        """Return the member's bytes; raise OSError if they are damaged or cut short."""
        _check_size(self.size)
        try:
            data = self._read()
        except (EOFError, zlib.error) as error:
            raise OSError(EIO, f"damaged in the archive: {error}") from error
        if len(data) != self.size:
            raise OSError(EIO, "cut short in the archive")
        return data

    def stamp(self) -> int:
        """Return a number of the archive's size, times and inode, as a tar has no checksums."""
        return file_stamp(self.archive)

    def _read(self) -> bytes:
        if self.gzipped:
            return _gzip.reader(self.archive).read(self.offset, self.size)
        with self.archive.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar archive by its first bytes; raise OSError if it can't be read."""
    return _kind(path) is not None


def rows(path: Path) -> Iterator[Row]:
    """Yield the members in class folders, or in part folders that hold class folders, with label and part.

    Raises DataError if the archive is damaged, encrypted, refused, or has no class folder.
    """
    yield from label_rows(list(files(path)), str(path))


def files(path: Path) -> Iterator[Row]:
    """Yield every member that is a file, without labels; of members with the same name all but the last are ignored."""
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
    last = {row.path: number for number, row in enumerate(members)}
    for number, row in enumerate(members):
        if last[row.path] != number:
            yield row.marked("ignored", "a later member has the same name")
        else:
            yield row.marked("ignored", HIDDEN) if is_hidden(row.path) else row


# What zipfile, tarfile, gzip and zlib raise for damaged archives; DataError is none of these.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    struct.error,
    UnicodeDecodeError,
    OverflowError,
)


def _kind(path: Path) -> str | None:
    """Return "zip", "tar", "gzip" (a tar within) or None."""
    if not path.is_file():  # opening a pipe would wait for ever
        return None
    with path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    known = formats.recognise(head)
    if known is formats.ZIP:
        return "zip"
    if known is not formats.GZIP:
        return "tar" if _is_tar_header(head) else None
    with contextlib.suppress(EOFError, zlib.error):
        return "gzip" if _is_tar_header(_gzip.reader(path).read(0, tarfile.BLOCKSIZE)) else None
    return None


def _is_tar_header(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _zip_members(path: Path) -> Iterator[Row]:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir()]
    archive_size = path.stat().st_size
    if sum(info.compress_size for info in members) > archive_size:
        raise zipfile.BadZipFile("its members are declared larger than the file")
    _check_ratio(path, "it", sum(info.file_size for info in members), archive_size, TOTAL_BYTES)
    for info in members:
        name = _safe_name(path, _zip_name(info))
        _check_zip_member(path, name, info)
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        location = ZipLocation(path, info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)
        yield Row(path=name, location=location)


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
    archive_size, total = path.stat().st_size, 0
    with gzip.open(path) if gzipped else path.open("rb") as file, _listing(file) as archive:
        for info in archive:
            total += info.size
            _check_ratio(path, f"its member {printable(info.name)}", info.size, archive_size, MEMBER_BYTES)
            _check_ratio(path, "it", total, archive_size, TOTAL_BYTES)
            if not info.isdir():
                name = _safe_name(path, info.name)
                _check_tar_member(path, name, info)
                yield Row(path=name, location=TarLocation(path, info.offset_data, info.size, gzipped))
        _check_end(file, archive.offset)


def _listing(file: io.BufferedIOBase) -> tarfile.TarFile:
    return tarfile.TarFile(fileobj=_Headers(file), errors="surrogateescape")  # type: ignore[arg-type]


def _check_tar_member(path: Path, name: str, info: tarfile.TarInfo) -> None:
    if info.issym() or info.islnk():
        raise _refusal(path, name, "is a link")
    if info.issparse() or not info.isreg():
        raise _refusal(path, name, "is a device, a pipe or a sparse file")


class _Headers:
    """The file that tarfile lists, of which it reads only headers: refuse one that would fill the memory."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _check_end(file: io.BufferedIOBase, offset: int) -> None:
    """Raise ReadError unless zeros or the end of the file follow the members: tarfile stops silently at damage."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"no member's header at byte {offset}")


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


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise OSError(EFBIG, f"larger than {MAX_BYTES >> 20} MiB")


def _inflate(compressed: bytes, size: int) -> bytes:
    """Return the unpacked bytes, one more than `size` at most."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(compressed, size + 1)
    except zlib.error as error:
        raise OSError(EIO, f"damaged in the archive: {error}") from error
