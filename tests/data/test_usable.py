import io
import re

import pytest
from PIL import Image

from regraft.core.errors import DataError
from regraft.data import usable
from regraft.data.read import read

DICOM = b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def picture(number):
    file = io.BytesIO()
    Image.new("RGB", (20, 30), (number % 256, number // 256, 9)).save(file, "PNG")
    return file.getvalue()


def folder(path, **classes):
    """Write a folder for each class: so many pictures, or files by their names, or none."""
    for number, (label, content) in enumerate(classes.items()):
        files = (
            content if isinstance(content, dict) else {f"{n}.png": picture(1000 * number + n) for n in range(content)}
        )
        (path / label).mkdir(parents=True)
        for name, data in files.items():
            (path / label / name).write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "its folder is empty"),
        ({f"{n}.dcm": DICOM for n in range(5)}, "5 files: DICOM is not read; convert it to JPEG or PNG"),
        ({"1": DICOM}, "1 file: DICOM is not read"),
        ({"1.jpg": POINTER}, "a Git LFS pointer, not an image; `git lfs pull` fetches the image"),
        ({"1.jpg": b"<!DOCTYPE html><html></html>"}, "a web page (HTML), not an image"),
        ({"1.mp4": b"\0\0\0\x18ftypmp42"}, "a film (MP4 or QuickTime), not an image"),
        ({"1.mkv": b"\x1a\x45\xdf\xa3"}, "a film (Matroska or WebM), not an image"),
        ({"notes.txt": b"hello"}, "1 file: not an image"),
    ],
)
def test_a_class_without_a_usable_image_is_named_with_what_its_files_are(tmp_path, files, why):
    index = read(folder(tmp_path, ant=3, bee=3, lost=files))
    [note] = usable.notes(index)
    assert note.startswith("The class 'lost' has no usable image")
    assert why in note


def test_pictures_of_a_part_without_class_folders_are_counted_once(tmp_path):
    folder(tmp_path / "train", ant=3, bee=3)
    folder(tmp_path, test=4)
    [note] = usable.notes(read(tmp_path))
    assert note.startswith("test/ has no class folders: its 4 pictures have no labels and are not used")


def test_one_file_under_two_labels_is_told_also_where_it_comes_from_a_list(tmp_path):
    path = folder(tmp_path, ant=2) / "ant" / "0.png"
    index = read([path, tmp_path / "ant" / ".." / "ant" / "0.png", tmp_path / "ant" / "1.png"], ["ant", "bee", "ant"])
    [lost, note] = usable.notes(index)
    assert lost.startswith("The class 'bee' has no usable image")
    assert note.startswith("2 files with a picture that has two labels are ignored")


def test_a_source_that_loses_nothing_has_no_notes(tmp_path):
    assert usable.notes(read(folder(tmp_path, ant=3, bee=3))) == []


@pytest.mark.parametrize(
    ("broken", "total", "passes"), [(1, 44, True), (3, 44, True), (4, 44, False), (1, 9, False), (1, 10, True)]
)
def test_few_broken_files_do_not_stop_a_small_folder(tmp_path, broken, total, passes):
    files = {f"broken{n}.jpg": b"" for n in range(broken)}
    index = read(folder(tmp_path, ant=total - broken, bee=files))
    assert (usable.refusal(index, 0.01) == "") is passes
    refusal = usable.refusal(index, 0.0)
    assert f"{broken} of {total} images" in refusal and "and at most 0 may be" in refusal
    assert usable.refusal(index, float(re.search(r"--max-broken (\S+):", refusal)[1])) == ""
    with pytest.raises(DataError):
        usable.check(index, 0.0)
