"""Damaged archives and tables by the thousand: every one is read or refused in words, none ends in another error.

The mutations know the formats: they change fields and keep checksums right, so that they get behind the first check.
Seeds are fixed. Each test prints how many files it tried, and how they ended.
"""

from __future__ import annotations

import collections
import contextlib
import gzip
import io
import json
import random
import struct
import tarfile
import zipfile

import pytest
from PIL import Image

from regraft.core.errors import RegraftError
from regraft.data.read import read, read_inputs

ROUNDS = 10_000  # files of each kind
NUMBERS = (0, 1, 2, 7, 255, 256, 511, 512, 513, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NAMES = (
    *(
        b"",
        b".",
        b"/",
        b"..",
        b"../x",
        b"cat/../../x",
        b"/etc/x",
        b"C:/x",
        b"\\\\host\\x",
        b"cat\\1.jpg",
        b"cat//1.jpg",
    ),
    *(b"cat/1.jpg", b"cat", b"cat/", b"\xff\xfe/1.jpg", b"cat/\0.jpg", b"\x1b[31m/1.jpg", "e\u0301/1.jpg".encode()),
    *("\u202egpj.1/cat".encode(), b"train/cat/1.jpg", b"test/1.jpg", b"a/" * 200 + b"1.jpg", b"x" * 300, b"=1/1.jpg"),
)


def picture(kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 30, 40)).save(file, kind)
    return file.getvalue()


PICTURE = picture()


def with_changed_bytes(data, rng):
    """Flip, cut, repeat or insert some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(data) + 1)
        length = rng.choice((1, 2, 4, 30, 512))
        match rng.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = rng.randbytes(length)
            case _:
                del data[at:]
    return bytes(data)


def some_name(rng):
    return rng.choice(NAMES) if rng.random() < 0.05 else f"{rng.choice('ab')}/{rng.randrange(9)}.png".encode()


def some_content(rng):
    return rng.choice((PICTURE, PICTURE, b"", b"text", bytes(3000), PICTURE[:50], rng.randbytes(700)))


# Zip

ZIP_FIELDS = {  # signature → offset and type of each field after it
    b"PK\1\2": ((4, "H"), (6, "H"), (8, "H"), (10, "H"), (16, "I"), (20, "I"), (24, "I"), (28, "H"), (30, "H"), (32, "H"), (34, "H"), (38, "I"), (42, "I")),  # noqa: E501
    b"PK\3\4": ((4, "H"), (6, "H"), (8, "H"), (14, "I"), (18, "I"), (22, "I"), (26, "H"), (28, "H")),
    b"PK\5\6": ((4, "H"), (6, "H"), (8, "H"), (10, "H"), (12, "I"), (16, "I"), (20, "H")),
    b"PK\6\6": ((4, "Q"), (24, "Q"), (32, "Q"), (40, "Q"), (48, "Q")),
    b"PK\6\7": ((4, "I"), (8, "Q"), (16, "I")),
}  # fmt: skip


def zip_file(rng):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for _ in range(rng.randrange(6)):
            info = zipfile.ZipInfo(some_name(rng).decode("latin-1").replace("\0", "0") or "x")
            info.extra = rng.choice((b"", b"", b"\1\0\x10\0" + rng.randbytes(16), rng.randbytes(9)))
            info.external_attr = rng.choice((*[0, 0o100644 << 16] * 10, 0o120777 << 16, rng.getrandbits(32)))
            with archive.open(info, "w", force_zip64=rng.random() < 0.2) as member:
                member.write(some_content(rng))
        archive.comment = rng.choice((b"", b"PK\5\6", rng.randbytes(30)))
    data = file.getvalue()
    if rng.random() < 0.3:  # the end as large archives have it
        end = data.index(b"PK\5\6")
        count, size, start = struct.unpack_from("<HII", data, end + 10)
        record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
        data = data[:end] + record + struct.pack("<4sIQI", b"PK\6\7", 0, end, 1) + data[end:]
    return data


def with_changed_zip_fields(data, rng):
    data = bytearray(data)
    positions = [
        (at + offset, kind)
        for signature, fields in ZIP_FIELDS.items()
        for at in range(len(data))
        if data.startswith(signature, at)
        for offset, kind in fields
        if at + offset + struct.calcsize(kind) <= len(data)
    ]
    for at, kind in rng.sample(positions, min(len(positions), rng.choice((1, 1, 2, 3)))):
        bits = 8 * struct.calcsize(kind)
        (now,) = struct.unpack_from(f"<{kind}", data, at)
        number = rng.choice((*NUMBERS, now + 1, now - 1, now ^ (1 << rng.randrange(bits)), rng.getrandbits(bits)))
        struct.pack_into(f"<{kind}", data, at, number % 2**bits)
    return bytes(data)


# Tar

TAR_TYPES = [bytes([number]) for number in b"0" * 60 + b"\0" * 10 + b"x" * 20 + b"LLLLKKggSS55DVVNXAZ7712346M\xff"]
PAX_RECORDS = (
    *((b"path", b"a/%d.png" % number) for number in range(60)),
    *((b"path", name) for name in NAMES),
    *((b"size", text) for text in (b"0", b"-1", b"9" * 30, b"x", b"", b"512", b"1e3", "٣".encode())),
    *((key, b"1") for key in (b"GNU.sparse.major", b"GNU.sparse.minor", b"GNU.sparse.map", b"GNU.sparse.numblocks")),
    *((b"GNU.sparse.map", b"0,x"), (b"GNU.sparse.size", b""), (b"GNU.sparse.name", b"a/s.png"), (b"", b"")),
    *((b"mtime", b"x"), (b"hdrcharset", b"BINARY"), (b"linkpath", b"/etc/passwd"), (b"\xff", b"\xff")),
)  # fmt: skip


def pax_content(rng):
    content = b""
    for key, value in rng.sample(PAX_RECORDS, rng.choice((0, 1, 1, 2, 4))):
        text = b" " + key + b"=" + value + b"\n"
        length = len(text) + 1
        length = len(text) + len(str(length + len(str(length)) - 1))
        content += str(length + rng.choice((0, 0, 0, 0, 1, -1, 99))).encode() + text
    return content if rng.random() < 0.9 else with_changed_bytes(content, rng)


def tar_number(value, width, rng):
    if rng.random() < 0.03:
        return rng.choice(
            (rng.randbytes(width), b"\x80" + value.to_bytes(width - 1, "big"), b" " * width, b"-1".ljust(width))
        )
    return f"{value:0{width - 1}o}\0".encode()[-width:]


def tar_member(rng):
    kind = rng.choice(TAR_TYPES)
    content = pax_content(rng) if kind in b"xXg" else some_name(rng) if kind in b"LK" else some_content(rng)
    size = len(content) if rng.random() < 0.97 else rng.choice(NUMBERS[:13])
    magic = rng.choice((b"ustar\0" + b"00", b"ustar  \0", bytes(8), rng.randbytes(8)))
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    block[:100] = some_name(rng)[:100].ljust(100, b"\0")
    block[124:136] = tar_number(size, 12, rng)
    block[156:157], block[257:265] = kind, magic
    block[345:500] = (some_name(rng) if rng.random() < 0.2 else b"")[:155].ljust(155, b"\0")
    if kind == b"S":
        block[482] = rng.randrange(2)
    if rng.random() < 0.99:
        block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32)
    return bytes(block) + content + bytes(-len(content) % 512)


def tar_file(rng):
    ending = rng.choice((b"", bytes(512), bytes(1024), bytes(10_240), bytes(1024), b"?" * 512))
    return b"".join(tar_member(rng) for _ in range(rng.randrange(8))) + ending


def make_zip(rng):
    data = zip_file(rng)
    data = with_changed_zip_fields(data, rng) if rng.random() < 0.6 else data
    return with_changed_bytes(data, rng) if rng.random() < 0.2 else data


def make_tar(rng):
    data = tar_file(rng)
    return with_changed_bytes(data, rng) if rng.random() < 0.2 else data


def make_gzip(rng):
    data = make_tar(rng)
    cut = rng.randrange(len(data) + 1)
    parts = (data[:cut], data[cut:]) if rng.random() < 0.3 else (data,)
    packed = b"".join(gzip.compress(part, rng.choice((0, 1, 9)), mtime=0) for part in parts) + rng.choice(
        (b"", b"", bytes(9))
    )
    return with_changed_bytes(packed, rng) if rng.random() < 0.3 else packed


def outcome_of(action):
    try:
        index = action()
    except RegraftError as error:
        assert str(error) and "\x1b" not in str(error)
        return "refused"
    for row in index:
        json.dumps(row.path, ensure_ascii=False).encode()
        for get in (row.location.head, row.location.read):
            with contextlib.suppress(OSError):
                assert isinstance(get(), bytes)
    return "read" if index.used else "nothing usable"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Duplicate name")  # of zipfile, about the archives that are made here
@pytest.mark.parametrize("make", [make_zip, make_tar, make_gzip], ids=["zip", "tar", "tar.gz"])
def test_a_damaged_archive_is_read_or_refused_in_words(tmp_path, make, capsys):
    rng, counts = random.Random(make.__name__), collections.Counter()
    for number in range(ROUNDS):
        path = tmp_path / f"{number}.archive"
        path.write_bytes(make(rng))
        for kind, action in (("labelled", lambda: read(path)), ("inputs", lambda: read_inputs(path))):  # noqa: B023
            try:
                counts[f"{kind} {outcome_of(action)}"] += 1
            except Exception as error:
                raise AssertionError(f"round {number} of {make.__name__}, {kind}: {error!r}") from error
        path.unlink()
    with capsys.disabled():
        print(f"\n{make.__name__}: {ROUNDS:,} files; {dict(sorted(counts.items()))}")
    assert min(counts["labelled read"], counts["labelled refused"], counts["inputs read"]) > ROUNDS / 50
