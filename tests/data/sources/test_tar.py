import gzip
import io
import tarfile

import pytest

from regraft.data.sources import _tar

NAMES = ["cat/1.jpg", "dog/" + "long" * 60 + "/2.jpg", "naïve 猫/3.jpg", "empty/4.jpg", "x" * 99, "y" * 100, "z" * 101]


def written(format, names=NAMES):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 0 if name.startswith("empty") else 300 * number + 1
            archive.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return file.getvalue()


def members(data):
    return list(_tar.members(io.BytesIO(data)))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_members_are_those_that_pythons_tarfile_finds(format):
    names = [name for name in NAMES if format != tarfile.USTAR_FORMAT or len(name) <= 100]
    data = written(format, names)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(info.name, "folder" if info.isdir() else "file", info.offset_data, info.size) for info in archive]
    assert [(m.name.rstrip("/"), m.kind, m.offset, m.size) for m in members(data)] == expected


def test_sizes_beyond_eleven_octal_digits_are_read():
    info = tarfile.TarInfo("huge")
    info.size = 2**40
    for format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with pytest.raises(_tar.TarError, match="unexpected end of data"):
            members(info.tobuf(format))


def with_records(records, *, content=b"abc"):
    """A tar of three members, the second of which has these PAX records, or these bytes as its extended header."""
    first, second, third = (tarfile.TarInfo(f"cat/{number}.jpg") for number in range(3))
    second.size = len(content)
    if isinstance(records, dict):
        second.pax_headers = records
        header = second.tobuf(tarfile.PAX_FORMAT)
    else:
        extended = tarfile.TarInfo("pax")
        extended.type, extended.size = tarfile.XHDTYPE, len(records)
        header = extended.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)
        header += second.tobuf(tarfile.USTAR_FORMAT)
    data = first.tobuf() + header + content + bytes(-len(content) % 512)
    return data + third.tobuf() + bytes(1024)


@pytest.mark.parametrize(
    ("records", "kind"),
    [
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99"}, "sparse"),
        ({"GNU.sparse.map": "1,x", "GNU.sparse.size": "9"}, "sparse"),
        ({"size": "many"}, "damaged"),
        (b"12 path", "damaged"),
        (b"99999 path=x\n", "damaged"),
        (b"7 path\n", "damaged"),
        (b"0 path=x\n", "damaged"),
        (b"path=x\n", "damaged"),
        ({"comment": "a=b\nc"}, "file"),
    ],
)
def test_a_header_that_can_not_be_used_breaks_its_own_member_only(records, kind):
    first, second, third = members(with_records(records))
    assert (first.kind, second.kind, third.kind) == ("file", kind, "file")
    assert (first.name, third.name) == ("cat/0.jpg", "cat/2.jpg")
    assert second.size == 3


def test_a_sparse_file_of_gnus_old_format_is_passed_over_with_all_blocks_of_its_map():
    sparse = bytearray(tarfile.TarInfo("sparse").tobuf(tarfile.GNU_FORMAT))
    sparse[156:157], sparse[482], sparse[124:136] = b"S", 1, b"00000000003\0"
    sparse[148:156] = b"%06o\0 " % (sum(sparse[:148]) + sum(sparse[156:]) + 8 * 32)
    maps = bytearray(1024)
    maps[504] = 1  # another one follows
    data = bytes(sparse + maps) + b"abc" + bytes(509) + tarfile.TarInfo("next").tobuf() + bytes(1024)
    assert [(m.name, m.kind, m.offset, m.size) for m in members(data)] == [
        ("sparse", "sparse", 1536, 3),
        ("next", "file", 2560, 0),
    ]


def test_what_a_global_header_says_holds_for_all_that_follow():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "all"}) as archive:
        for name in ("a", "b"):
            archive.addfile(tarfile.TarInfo(name))
    assert [member.name for member in members(file.getvalue())] == ["all", "all"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tarfile.TarInfo("a").tobuf() + bytes(512) + tarfile.TarInfo("b").tobuf(), "more follows its end at byte 512"),
        (tarfile.TarInfo("a").tobuf() + b"?" * 512, "no member's header at byte 512"),
        (tarfile.TarInfo("a").tobuf() + b"?" * 100, "no member's header at byte 512"),
        (written(tarfile.PAX_FORMAT, [])[:512] + with_records(b"12 path")[512:1024], "a header at byte 1024"),
    ],
)
def test_what_is_damaged_or_cut_short_is_said_with_where(data, message):
    with pytest.raises(_tar.TarError, match=message):
        members(data)


@pytest.mark.parametrize("ending", [b"", bytes(512), bytes(1024), bytes(10_240)])
def test_an_archive_ends_with_or_without_zeros(ending):
    assert [member.name for member in members(tarfile.TarInfo("a").tobuf() + ending)] == ["a"]


def test_a_header_is_known_by_its_checksum_also_where_it_was_summed_as_signed_bytes():
    block = bytearray(tarfile.TarInfo("é").tobuf(tarfile.GNU_FORMAT))
    assert _tar.is_header(bytes(block))
    signed = sum(byte - 256 * (byte > 127) for byte in block[:148] + block[156:]) + 8 * 32
    block[148:156] = b"%06o\0 " % signed
    assert _tar.is_header(bytes(block))
    block[0] ^= 1
    assert not _tar.is_header(bytes(block))
    assert not _tar.is_header(bytes(512))


def test_the_members_of_a_compressed_file_are_the_same():
    data = written(tarfile.PAX_FORMAT)
    assert list(_tar.members(gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(data))))) == members(data)
