import pytest

from regraft.core.errors import DataError
from regraft.data.index import Row
from regraft.data.sources._layout import is_hidden, label_rows
from regraft.data.sources.folder import FileLocation


def labelled(*paths):
    rows = [Row(path=path, location=FileLocation(path)) for path in paths]
    return {row.path: (row.part, row.label) for row in label_rows(rows, "photos")}


def test_the_first_folder_is_the_class_and_what_is_nested_belongs_to_it():
    assert labelled("cat/1.jpg", "cat/more/old/2.jpg", "dog/3.jpg") == {
        "cat/1.jpg": (None, "cat"),
        "cat/more/old/2.jpg": (None, "cat"),
        "dog/3.jpg": (None, "dog"),
    }


@pytest.mark.parametrize(
    ("folder", "part"),
    [
        ("train", "train"),
        ("Training", "train"),
        ("val", "validation"),
        ("VALID", "validation"),
        ("Validation", "validation"),
        ("test", "test"),
    ],
)
def test_a_part_folder_is_known_by_its_common_names_in_any_case(folder, part):
    assert labelled(f"{folder}/cat/1.jpg") == {f"{folder}/cat/1.jpg": (part, "cat")}


def test_parts_may_hold_different_classes():
    assert set(labelled("train/cat/1.jpg", "test/dog/2.jpg").values()) == {("train", "cat"), ("test", "dog")}


@pytest.mark.parametrize("wrapper", ["pets", "pets/pets"])
def test_folders_that_hold_only_one_folder_are_entered(wrapper):
    labels = labelled(f"{wrapper}/train/cat/1.jpg", f"{wrapper}/test/cat/2.jpg", f"{wrapper}/LICENSE", "README.txt")
    assert labels == {
        f"{wrapper}/train/cat/1.jpg": ("train", "cat"),
        f"{wrapper}/test/cat/2.jpg": ("test", "cat"),
        f"{wrapper}/LICENSE": (None, None),
        "README.txt": (None, None),
    }


def test_one_class_folder_with_images_is_a_class_and_not_a_wrapper():
    assert labelled("cat/1.jpg", "cat/more/2.jpg") == {
        "cat/1.jpg": (None, "cat"),
        "cat/more/2.jpg": (None, "cat"),
    }


def test_a_file_outside_any_class_folder_is_ignored():
    rows = [Row(path=path, location=FileLocation(path)) for path in ("train/cat/1.jpg", "train/2.jpg", "3.jpg")]
    statuses = [(row.status, row.reason) for row in label_rows(rows, "photos")]
    assert statuses == [("used", ""), ("ignored", "not in a class folder"), ("ignored", "not in a class folder")]


def test_part_folders_beside_class_folders_are_refused_by_name():
    with pytest.raises(DataError, match=r"\(test\) beside other folders with images \(cat, dog\).*rename it"):
        labelled("cat/1.jpg", "dog/2.jpg", "test/3.jpg")


def test_a_folder_without_images_beside_part_folders_is_accepted():
    assert labelled("train/cat/1.jpg", "docs/about.txt")["docs/about.txt"] == (None, None)


@pytest.mark.parametrize(
    ("paths", "count"),
    [(("1.jpg", "2.jpg"), "2 files"), (("train/1.jpg", "test/2.jpg"), "2 files"), (("notes.txt",), "1 file")],
)
def test_a_source_without_class_folders_is_refused_with_what_would_work(paths, count):
    with pytest.raises(DataError, match=rf"holds {count} .*Expected one folder per class"):
        labelled(*paths)


def test_a_source_without_files_is_refused():
    with pytest.raises(DataError, match="holds no files"):
        labelled()


@pytest.mark.parametrize(
    "path", [".DS_Store", "cat/._1.jpg", "__MACOSX/cat/1.jpg", "cat/Thumbs.db", "a/DESKTOP.INI", ".git/x"]
)
def test_hidden_and_system_files_are_known(path):
    assert is_hidden(path)


@pytest.mark.parametrize("path", ["cat/1.jpg", "cat.d/1.jpg", "cat/thumbs.jpg"])
def test_other_files_are_not_hidden(path):
    assert not is_hidden(path)
