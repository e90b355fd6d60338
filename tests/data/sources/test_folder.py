import os
import pickle
import sys

import pytest

from regraft.core.errors import DataError
from regraft.data.sources import folder


@pytest.fixture
def photos(tmp_path):
    for name in ("cat/b.jpg", "cat/a.jpg", "dog/new/c.jpg", "dog/.hidden.jpg", ".git/config", "notes.txt"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "photos"


def test_every_file_is_a_row_in_the_order_of_names(photos):
    rows = [(row.path, row.label, row.status) for row in folder.rows(photos)]
    assert rows == [
        ("notes.txt", None, "ignored"),
        (".git/config", None, "ignored"),
        ("cat/a.jpg", "cat", "used"),
        ("cat/b.jpg", "cat", "used"),
        ("dog/.hidden.jpg", None, "ignored"),
        ("dog/new/c.jpg", "dog", "used"),
    ]


def test_a_location_reads_its_file_and_can_be_sent_to_another_process(photos):
    for row in folder.files(photos):
        assert pickle.loads(pickle.dumps(row.location)).read() == row.path.encode()


def test_links_to_files_and_folders_are_followed(photos, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.jpg").write_bytes(b"d")
    (photos / "bird").symlink_to(tmp_path / "more")
    (photos / "cat" / "z.jpg").symlink_to(tmp_path / "more" / "d.jpg")
    labels = {row.path: row.label for row in folder.rows(photos)}
    assert labels["bird/d.jpg"] == "bird"
    assert labels["cat/z.jpg"] == "cat"


def test_links_in_a_circle_end_as_ignored_rows(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"1")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    rows = [(row.path, row.status, row.reason) for row in folder.files(tmp_path)]
    assert rows == [
        ("a/1.jpg", "used", ""),
        ("a/self/", "ignored", "a link to a/, where it is read"),
        ("a/to_b/", "ignored", "a link to b/, where it is read"),
        ("b/1.jpg", "used", ""),
        ("b/to_a/", "ignored", "a link to a/, where it is read"),
    ]


@pytest.mark.parametrize("inside", [True, False])
def test_folders_that_are_all_linked_to_each_other_are_read_once_each(tmp_path, inside):
    source, real = tmp_path / "source", tmp_path / ("source" if inside else "elsewhere")
    names = [f"folder{number}" for number in range(9)]
    for name in names:
        (real / name).mkdir(parents=True)
        (real / name / "1.jpg").write_bytes(name.encode())
    for name in names:
        for other in names:
            (real / name / f"to_{other}").symlink_to(real / other)
    if not inside:
        source.mkdir()
        for name in names:
            (source / f"link_{name}").symlink_to(real / name)
    rows = list(folder.files(source))
    used = [row for row in rows if row.status == "used"]
    assert sorted(row.location.read().decode() for row in used) == names
    assert len(rows) == 9 + 81
    if inside:
        assert [row.path for row in used] == [f"{name}/1.jpg" for name in names]


def test_a_folder_is_read_where_it_lies_and_not_at_a_link_that_comes_before(tmp_path):
    for name in ("b", "deep/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.jpg").write_bytes(name.encode())
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "back").symlink_to(tmp_path)
    rows = {row.path: (row.status, row.reason) for row in folder.files(tmp_path)}
    assert rows == {
        "a/": ("ignored", "a link to b/, where it is read"),
        "b/1.jpg": ("used", ""),
        "back/": ("ignored", "a link to the folder that was given, where it is read"),
        "deep/c/1.jpg": ("used", ""),
    }


def test_a_folder_that_holds_nothing_is_an_ignored_row(tmp_path):
    for name in ("full", "empty", "hidden/.git", "deep/er"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "full" / "1.jpg").write_bytes(b"1")
    (tmp_path / "hidden" / ".DS_Store").write_bytes(b"1")
    rows = [(row.path, row.reason) for row in folder.files(tmp_path)]
    assert rows == [
        ("deep/er/", "an empty folder"),
        ("empty/", "an empty folder"),
        ("full/1.jpg", ""),
        ("hidden/.DS_Store", "hidden or system file"),
        ("hidden/", "an empty folder"),
    ]


def test_a_link_to_nothing_stays_a_row_and_fails_when_read(photos):
    (photos / "cat" / "gone.jpg").symlink_to(photos / "nowhere")
    [row] = [row for row in folder.rows(photos) if row.path == "cat/gone.jpg"]
    assert row.status == "used"
    with pytest.raises(FileNotFoundError):
        row.location.read()


def test_a_pipe_is_ignored_and_never_opened(photos):
    os.mkfifo(photos / "cat" / "pipe.jpg")
    [row] = [row for row in folder.rows(photos) if row.path == "cat/pipe.jpg"]
    assert (row.status, row.reason) == ("ignored", "not a regular file")
    with pytest.raises(OSError, match="not a regular file"):
        row.location.read()


def test_a_file_that_is_too_large_for_an_image_is_not_read(tmp_path):
    path = tmp_path / "film.mp4"
    with path.open("wb") as file:
        file.truncate(folder.MAX_BYTES + 1)
    with pytest.raises(OSError, match="larger than 512 MiB"):
        folder.FileLocation(str(path)).read()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no names that are not text")
def test_a_name_that_is_no_text_gives_a_path_that_can_be_written(tmp_path):
    (tmp_path / "cat").mkdir()
    try:
        (tmp_path / "cat" / os.fsdecode(b"\xff\n.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system wants names that are text")
    [row] = folder.rows(tmp_path)
    assert row.path == "cat/\\udcff\\n.jpg"
    assert row.location.read() == b"x"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_can_not_be_listed_is_a_broken_row(photos):
    (photos / "dog").chmod(0)
    try:
        [row] = [row for row in folder.files(photos) if row.path == "dog/"]
    finally:
        (photos / "dog").chmod(0o755)
    assert (row.status, row.reason) == ("broken", "can't be listed: Permission denied")


def test_a_path_that_is_not_a_folder_is_refused(photos):
    with pytest.raises(DataError, match=r"notes.txt is not a folder"):
        list(folder.rows(photos / "notes.txt"))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no files"):
        list(folder.rows(tmp_path))


def test_a_path_with_a_null_byte_fails_alike_in_every_python():
    with pytest.raises(OSError, match="null byte in its path"):
        folder.FileLocation("nul\0").read()


def test_a_stamp_stays_while_a_file_stays_and_changes_with_its_size_its_time_or_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "CLOCK", 0)
    path = tmp_path / "1.jpg"
    path.write_bytes(b"first")
    location = folder.FileLocation(str(path))
    stamps = [location.stamp(), location.stamp()]
    assert stamps[0] == stamps[1] != 0
    path.write_bytes(b"longer than first")
    stamps.append(location.stamp())
    os.utime(path, (1e9, 1e9))
    stamps.append(location.stamp())
    (tmp_path / "2.jpg").write_bytes(b"longer than first")
    os.utime(tmp_path / "2.jpg", (1e9, 1e9))
    (tmp_path / "2.jpg").replace(path)
    stamps.append(location.stamp())
    assert len(set(stamps)) == 4


def test_a_file_that_was_just_written_or_is_missing_has_no_stamp(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"new")
    for path in (tmp_path / "1.jpg", tmp_path / "missing", "nul\0"):
        assert folder.file_stamp(path) == 0
    assert folder.file_stamp(sys.executable) != 0  # written long ago
