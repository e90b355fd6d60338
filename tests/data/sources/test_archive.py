import bz2
import gzip
import io
import os
import pickle
import random
import stat
import struct
import tarfile
import threading
import zipfile
import zlib

import pytest

from regraft.core.errors import DataError
from regraft.data.read import read_inputs
from regraft.data.sources import archive, folder

NOISE = random.Random(0)

CONTENT = {
    "train/cat/1.jpg": NOISE.randbytes(3000),
    "train/dog/2.jpg": b"plain " * 500,
    "test/cat/3.jpg": b"",
    "test/dog/naïve 猫.jpg": NOISE.randbytes(70_000),
    "test/dog/.hidden": b"x",
    "README.txt": b"about",
}


def write_zip(path, members=CONTENT, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, method)


def write_tar(path, members=CONTENT, mode="w", format=tarfile.PAX_FORMAT):
    with tarfile.open(path, mode, format=format) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


WRITERS = {
    "deflated": write_zip,
    "stored": lambda path: write_zip(path, method=zipfile.ZIP_STORED),
    "tar": write_tar,
    "gnu tar": lambda path: write_tar(path, format=tarfile.GNU_FORMAT),
    "gzip": lambda path: write_tar(path, mode="w:gz"),
}


def write_tar_with(path, **attributes):
    with tarfile.open(path, "w") as file:
        info = tarfile.TarInfo("cat/1.jpg")
        for name, value in attributes.items():
            setattr(info, name, value)
        file.addfile(info)


def refusal(path):
    with pytest.raises(DataError) as caught:
        list(archive.rows(path))
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("kind", WRITERS)
def test_members_are_rows_in_the_archives_order_under_any_name(tmp_path, kind):
    path = tmp_path / "odd.name"
    WRITERS[kind](path)
    assert archive.is_archive(path)
    rows = list(archive.rows(path))
    assert [(row.path, row.part, row.label, row.status) for row in rows] == [
        ("train/cat/1.jpg", "train", "cat", "used"),
        ("train/dog/2.jpg", "train", "dog", "used"),
        ("test/cat/3.jpg", "test", "cat", "used"),
        ("test/dog/naïve 猫.jpg", "test", "dog", "used"),
        ("test/dog/.hidden", None, None, "ignored"),
        ("README.txt", None, None, "ignored"),
    ]


@pytest.mark.parametrize("kind", WRITERS)
def test_locations_read_their_bytes_in_any_order_from_threads_and_after_pickling(tmp_path, kind):
    WRITERS[kind](tmp_path / "a")
    rows = [pickle.loads(pickle.dumps(row)) for row in archive.files(tmp_path / "a")] * 20
    random.Random(0).shuffle(rows)
    wrong = []

    def read(some):
        wrong.extend(row.path for row in some if row.location.read() != CONTENT[row.path])

    threads = [threading.Thread(target=read, args=(rows[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_archive_gives_the_same_labels_as_the_folder_that_it_was_made_from(tmp_path):
    for name, content in CONTENT.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(content)
    write_zip(tmp_path / "set.zip")

    def seen(rows):
        return {(row.path, row.label, row.part, row.status, row.reason, row.location.read()) for row in rows}

    assert seen(archive.rows(tmp_path / "set.zip")) == seen(folder.rows(tmp_path / "set"))


def test_nothing_is_written_beside_the_archive(tmp_path):
    write_zip(tmp_path / "a.zip")
    for row in archive.files(tmp_path / "a.zip"):
        row.location.read()
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize(
    "content", [b"", b"path,label\n", b"\xff\xd8\xff", b"\0" * 512, gzip.compress(b"no tar" * 200, mtime=0)]
)
def test_other_files_are_not_archives(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    assert not archive.is_archive(tmp_path / "x.zip")
    assert "is not a zip, tar or tar.gz archive" in refusal(tmp_path / "x.zip")


@pytest.mark.parametrize("name", ["../out.jpg", "cat/../../out.jpg", "/etc/1.jpg", "C:/cat/1.jpg", "cat/.."])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_member_that_points_outside_refuses_the_archive_by_name(tmp_path, name, write):
    write(tmp_path / "a", {"cat/1.jpg": b"1", name: b"2"})
    assert f"its member {name} " in refusal(tmp_path / "a")


def test_backslashes_in_a_zip_are_separators(tmp_path):
    write_zip(tmp_path / "good.zip", {"cat\\1.jpg": b"1"})
    assert [(row.path, row.label) for row in archive.rows(tmp_path / "good.zip")] == [("cat/1.jpg", "cat")]
    write_zip(tmp_path / "bad.zip", {"..\\1.jpg": b"1"})
    assert "points outside the archive" in refusal(tmp_path / "bad.zip")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_refuses_a_tar(tmp_path, kind):
    write_tar_with(tmp_path / "a.tar", type=kind, linkname="/etc/passwd")
    assert "its member cat/1.jpg is a " in refusal(tmp_path / "a.tar")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_link_or_device_refuses_a_zip(tmp_path, mode):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        info = zipfile.ZipInfo("cat/1.jpg")
        info.external_attr = (mode | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    assert "its member cat/1.jpg is a " in refusal(tmp_path / "a.zip")


@pytest.mark.parametrize("write", [write_zip, lambda *a: write_tar(*a, "w:gz")])
def test_a_member_that_unpacks_to_far_more_than_it_is_refuses_the_archive(tmp_path, write):
    write(tmp_path / "a", {"cat/1.jpg": bytes(archive.MEMBER_BYTES + 1)})
    assert "its member cat/1.jpg unpacks from " in refusal(tmp_path / "a")


def test_many_small_members_that_unpack_to_far_more_refuse_the_archive(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "TOTAL_BYTES", 2**20)
    write_zip(tmp_path / "a.zip", {f"cat/{number}.jpg": bytes(2**17) for number in range(9)})
    assert "it unpacks from " in refusal(tmp_path / "a.zip")


def test_a_plain_drawing_that_packs_well_is_read(tmp_path):
    write_zip(tmp_path / "a.zip", {"cat/1.bmp": bytes(2**20)})
    [row] = archive.rows(tmp_path / "a.zip")
    assert row.location.read() == bytes(2**20)


def declare_in_zip(path, *, size, packed=None):
    """Write other sizes into the first entry of a zip's central directory."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\1\2")
    struct.pack_into("<I", data, start + 24, size)
    if packed is not None:
        struct.pack_into("<I", data, start + 20, packed)
    path.write_bytes(data)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("size", [1000, 2**20, 2**25])
def test_a_member_of_another_length_than_declared_fails_when_read(tmp_path, method, size):
    write_zip(tmp_path / "a.zip", {"cat/1.jpg": NOISE.randbytes(2**19) + bytes(2**23)}, method)
    declare_in_zip(tmp_path / "a.zip", size=size)
    [row] = archive.rows(tmp_path / "a.zip")
    with pytest.raises(OSError, match="its length or checksum is not the declared one"):
        row.location.read()


def test_a_member_that_declares_more_bytes_than_the_archive_has_refuses_it(tmp_path):
    write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"1"})
    declare_in_zip(tmp_path / "a.zip", size=2**31, packed=2**31)
    assert "its members are declared larger than the file" in refusal(tmp_path / "a.zip")


def test_a_tar_header_that_declares_a_huge_size_is_not_read_into_memory(tmp_path):
    long_name = tarfile.TarInfo("././@LongLink")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 2**33
    (tmp_path / "a.tar").write_bytes(long_name.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    assert "a header of 8,589,934,592 bytes" in refusal(tmp_path / "a.tar")


def write_tar_with_headers(path, **headers):
    """Write a tar of three members, the second of which has these PAX headers."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for name, records in (("cat/1.jpg", {}), ("cat/2.jpg", headers), ("dog/3.jpg", {})):
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = 4, records
            file.addfile(info, io.BytesIO(name[4:8].encode()))


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, "a sparse file, which is not read from an archive"),
        ({"GNU.sparse.map": "1,x"}, "a sparse file, which is not read from an archive"),
        ({"size": "many"}, "its header in the archive is damaged"),
    ],
)
def test_a_member_of_a_tar_with_a_header_that_can_not_be_used_is_broken_and_the_others_are_read(
    tmp_path, headers, reason
):
    write_tar_with_headers(tmp_path / "a.tar", **headers)
    first, second, third = archive.rows(tmp_path / "a.tar")
    assert (second.path, second.status, second.reason) == ("cat/2.jpg", "broken", reason)
    assert (first.location.read(), third.location.read()) == (b"1.jp", b"3.jp")


@pytest.mark.parametrize("kind", WRITERS)
def test_more_empty_members_than_a_limit_refuse_the_archive(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archive, "MAX_EMPTY", 3)
    write = {"deflated": write_zip, "stored": write_zip}.get(kind, write_tar)
    write(tmp_path / "a", {f"cat/{number}.jpg": b"" for number in range(3)})
    assert len(list(archive.rows(tmp_path / "a"))) == 3
    write(tmp_path / "a", {f"cat/{number}.jpg": b"" for number in range(4)})
    assert "it holds more than 3 empty files" in refusal(tmp_path / "a")


@pytest.mark.parametrize("write", [write_zip, lambda *a: write_tar(*a, "w:gz")])
def test_the_headers_of_members_count_towards_what_an_archive_unpacks_to(tmp_path, monkeypatch, write):
    monkeypatch.setattr(archive, "TOTAL_BYTES", 100 * archive.ROW_BYTES)
    monkeypatch.setattr(archive, "MAX_RATIO", 1)
    write(tmp_path / "a", {f"cat/{number}.jpg": b"1" for number in range(99)})
    assert len(list(archive.rows(tmp_path / "a"))) == 99
    write(tmp_path / "a", {f"cat/{number}.jpg": b"1" for number in range(101)})
    assert "it unpacks from " in refusal(tmp_path / "a")


@pytest.mark.parametrize("count", [20, 70_000])  # as it always was, and with the records of zip64
def test_a_zip_that_holds_hardly_more_than_names_is_refused(tmp_path, monkeypatch, count):
    monkeypatch.setattr(archive, "MAX_DIRECTORY", 1000)
    write_zip(tmp_path / "a.zip", {f"cat/{'long' * 20}{number}.jpg": b"1" for number in range(count)})
    assert "it holds the names of members and hardly anything else" in refusal(tmp_path / "a.zip")


def test_a_head_is_the_beginning_of_the_content(tmp_path):
    for kind, write in WRITERS.items():
        write(tmp_path / kind)
        for row in archive.files(tmp_path / kind):
            head = row.location.head()
            assert CONTENT[row.path].startswith(head) and len(head) >= min(1024, len(CONTENT[row.path]))


def test_zeros_that_are_named_like_images_are_not_unpacked(tmp_path, monkeypatch):
    write_zip(tmp_path / "a.zip", {"cat/1.jpg": bytes(2**20), "dog/2": bytes(2**20)})
    monkeypatch.setattr(archive.ZipLocation, "read", lambda location: pytest.fail("unpacked"))
    cat, dog = archive.files(tmp_path / "a.zip")
    assert archive.is_packed(cat.location) and archive.is_packed(dog.location)
    assert [row.status for row in read_inputs(tmp_path / "a.zip")] == ["broken", "ignored"]


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_folder_without_a_file_is_an_ignored_row(tmp_path, write):
    members = {"cat/": b"", "cat/1.jpg": b"1", "dog/": b"", "cow/": b"", "cow/.hidden": b"", ".git/": b""}
    write(tmp_path / "a", members)
    rows = {row.path: row.reason for row in archive.files(tmp_path / "a") if row.path.endswith("/")}
    assert rows == {"dog/": "an empty folder", "cow/": "an empty folder"}


def test_an_encrypted_zip_is_refused(tmp_path):
    write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"1"})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    assert "is encrypted (cat/1.jpg)" in refusal(tmp_path / "a.zip")


def test_a_zip_compressed_in_another_way_is_refused(tmp_path):
    write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"1"}, zipfile.ZIP_LZMA)
    assert "compressed by method 14 (cat/1.jpg)" in refusal(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_an_archive_that_is_cut_short_is_refused(tmp_path, kind, share):
    WRITERS[kind](tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    filled = len(data.rstrip(b"\0"))  # a tar ends in zeros, which may be missing
    (tmp_path / "cut").write_bytes(data[: int(filled * share)])
    assert "is damaged or cut short" in refusal(tmp_path / "cut")


def test_a_tar_with_a_damaged_header_in_its_middle_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", {"cat/1.jpg": b"1", "dog/2.jpg": b"2", "dog/3.jpg": b"3"})
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[1024:1030] = b"damage"
    (tmp_path / "a.tar").write_bytes(data)
    assert "no member's header at byte 1024" in refusal(tmp_path / "a.tar")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_damage_in_one_member_of_a_zip_breaks_that_one_only(tmp_path, method):
    first, second = NOISE.randbytes(1000), NOISE.randbytes(1000)
    write_zip(tmp_path / "a.zip", {"cat/1.jpg": first, "dog/2.jpg": second}, method)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[500] ^= 255
    (tmp_path / "a.zip").write_bytes(data)
    broken, whole = archive.rows(tmp_path / "a.zip")
    with pytest.raises(OSError, match="damaged in the archive"):
        broken.location.read()
    assert whole.location.read() == second


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_of_members_with_one_name_the_last_counts(tmp_path, write, recwarn):
    class Twice(dict):
        def items(self):
            return [("cat/1.jpg", b"old"), ("cat/1.jpg", b"new")]

    write(tmp_path / "a", Twice())
    recwarn.clear()
    old, new = archive.rows(tmp_path / "a")
    assert (old.status, old.reason) == ("ignored", "a later member has the same name")
    assert new.location.read() == b"new"


@pytest.mark.parametrize(("stored", "shown"), [("café".encode(), "café"), ("café".encode("cp437"), "café")])
def test_names_without_the_utf_8_flag_are_read_as_they_were_meant(tmp_path, stored, shown):
    write_zip(tmp_path / "a.zip", {"x" * len(stored) + "/1.jpg": b"1"})
    data = (tmp_path / "a.zip").read_bytes().replace(b"x" * len(stored), stored)
    (tmp_path / "a.zip").write_bytes(data)
    [row] = archive.rows(tmp_path / "a.zip")
    assert row.label == shown
    assert row.location.read() == b"1"


def test_a_tar_name_that_is_no_text_gives_a_path_that_can_be_written(tmp_path):
    write_tar(tmp_path / "a.tar", {"cat/\udcff.jpg": b"1"})
    [row] = archive.rows(tmp_path / "a.tar")
    assert row.path == "cat/\\udcff.jpg"
    assert row.location.read() == b"1"


def test_a_tar_of_the_current_folder_has_the_same_labels(tmp_path):
    write_tar(tmp_path / "a.tar", {"./cat/1.jpg": b"1", "./dog/2.jpg": b"2"})
    assert [row.label for row in archive.rows(tmp_path / "a.tar")] == ["cat", "dog"]


def test_an_archive_that_vanishes_fails_when_read(tmp_path):
    write_tar(tmp_path / "a.tgz", mode="w:gz")
    rows = list(archive.rows(tmp_path / "a.tgz"))
    (tmp_path / "a.tgz").unlink()
    with pytest.raises(FileNotFoundError):
        rows[0].location.read()


def test_a_tar_read_by_offset_after_it_became_shorter_fails(tmp_path):
    write_tar(tmp_path / "a.tar")
    rows = list(archive.rows(tmp_path / "a.tar"))
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1000])
    with pytest.raises(OSError, match="cut short in the archive"):
        rows[0].location.read()


def test_other_compressions_of_a_tar_are_no_archives_here(tmp_path):
    (tmp_path / "a.tar.bz2").write_bytes(bz2.compress(b"x"))
    assert not archive.is_archive(tmp_path / "a.tar.bz2")


def test_the_stamp_of_a_zip_member_is_its_checksum_and_that_of_a_tar_member_changes_with_the_archive(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(folder, "CLOCK", 0)
    write_zip(tmp_path / "a.zip")
    for row in archive.files(tmp_path / "a.zip"):
        assert row.location.stamp() == zlib.crc32(CONTENT[row.path])
    write_tar(tmp_path / "a.tar")
    location = next(archive.files(tmp_path / "a.tar")).location
    stamp = location.stamp()
    assert stamp == location.stamp() != 0
    os.utime(tmp_path / "a.tar", (1e9, 1e9))
    assert location.stamp() != stamp
