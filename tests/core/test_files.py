"""Writing: a reader sees the old file or the whole new one, and a refusal of the disk is told in words."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from regraft.core import files
from regraft.core.errors import StoreError


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    files.write_file(path, b"old")
    files.write_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    files.write_file(path, b"old")
    with pytest.raises(ZeroDivisionError), files.replacing_file(path) as fresh:
        fresh.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "folder"
    with files.replacing_folder(folder) as fresh:
        (fresh / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), files.replacing_folder(folder) as fresh:
        (fresh / "b").write_text("half")
        raise ZeroDivisionError
    assert [path.name for path in folder.iterdir()] == ["a"]
    with files.replacing_folder(folder) as fresh:
        (fresh / "b").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_process_left_is_swept_and_what_another_is_writing_is_not(tmp_path):
    folder = tmp_path / "model"
    abandoned, writing, mine = (
        tmp_path / name for name in (f".model.a{files.PARTIAL}", f".model.b{files.PARTIAL}", ".model.c")
    )
    for path in (abandoned, writing, mine):
        path.mkdir()
        (path / "content").write_text("x")
    for path in (abandoned, mine):
        os.utime(path, (0, 0))
    with files.replacing_folder(folder) as fresh:
        (fresh / "a").write_text("new")
    assert set(tmp_path.iterdir()) == {folder, writing, mine}


def test_what_is_written_has_the_rights_of_an_ordinary_file(tmp_path):
    files.write_file(tmp_path / "ours", b"")
    (tmp_path / "ordinary").write_bytes(b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "ordinary")}
    assert len(modes) == 1


def test_a_full_disk_is_told_in_words():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StoreError, match="no room is left on the disk"), files.writing(full):
        full.write_bytes(b"x")


def test_a_place_that_can_not_be_written_is_told_in_words(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"Can't write .*below"):
        files.write_file(tmp_path / "file" / "below", b"")


def test_the_hash_is_that_of_hashlib(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    assert files.sha256_file(tmp_path / "file") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_a_folder_is_exchanged_in_one_step_so_that_a_reader_always_finds_one(tmp_path, monkeypatch):
    folder, renames = tmp_path / "folder", []
    with files.replacing_folder(folder) as fresh:
        (fresh / "a").write_text("old")
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: renames.append((self, to)) or replace(self, to))
    with files.replacing_folder(folder) as fresh:
        (fresh / "a").write_text("new")
    if not renames:  # where the system can exchange two folders
        assert (folder / "a").read_text() == "new" and list(tmp_path.iterdir()) == [folder]


def test_a_kill_between_two_renames_loses_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    with files.replacing_folder(folder) as fresh:
        (fresh / "a").write_text("old")
    monkeypatch.setattr(files, "_swap", lambda *_: False)
    replace = Path.replace

    def killed(self, to):
        if to == folder:
            os._exit(9)  # as a kill does: nothing is undone
        return replace(self, to)

    child = os.fork()
    if not child:
        monkeypatch.setattr(Path, "replace", killed)
        with files.replacing_folder(folder) as fresh:
            (fresh / "a").write_text("new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not folder.exists()
    files.recover(folder)
    assert (folder / "a").read_text() == "old"
