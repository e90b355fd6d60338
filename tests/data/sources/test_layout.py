import re

import pytest

from regraft.core.errors import DataError, UsageError
from regraft.data.index import Row
from regraft.data.read import SourceOptions
from regraft.data.sources._layout import UNLABELLED, is_hidden, label_rows
from regraft.data.sources._pattern import names_in
from regraft.data.sources.folder import FileLocation


def labelled(*paths, pattern=None):
    rows = [Row(path=path, location=FileLocation(path)) for path in paths]
    return {row.path: (row.part, row.label) for row in label_rows(rows, "photos", pattern)}


def tree(tops, classes, *, each=2):
    """Return the paths of images in the same class folders below each top folder."""
    return [f"{top}/{label}/{number}.jpg" for top in tops for label in classes for number in range(each)]


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


@pytest.mark.parametrize(
    ("train", "test"),
    [("seg_train", "seg_test"), ("train_set", "test_set"), ("Training-Data", "Test-Data"), ("trainset", "testset")],
)
@pytest.mark.parametrize("is_doubled", [False, True])
def test_folders_with_a_part_in_their_names_are_parts_also_where_each_holds_itself_once_more(train, test, is_doubled):
    tops = [f"{top}/{top}" if is_doubled else top for top in (train, test)]
    parts = {path: (part, label) for path, (part, label) in labelled(*tree(tops, ["cat", "dog"])).items()}
    assert parts == {
        f"{top}/{label}/{number}.jpg": (part, label)
        for top, part in zip(tops, ["train", "test"], strict=True)
        for label in ("cat", "dog")
        for number in range(2)
    }


def test_a_collection_folder_within_the_parts_is_no_class():
    assert set(labelled(*tree(["train/images", "val/images"], ["cat", "dog"])).values()) == {
        (part, label) for part in ("train", "validation") for label in ("cat", "dog")
    }


def test_class_folders_that_hold_part_folders_are_classes():
    assert set(labelled(*tree(["cat", "dog"], ["train", "test"])).values()) == {
        (part, label) for part in ("train", "test") for label in ("cat", "dog")
    }


@pytest.mark.parametrize(
    "paths",
    [
        tree(["2024", "2025"], ["ants", "bees"]),
        tree(["2024"], ["ants"]) + tree(["2025"], ["bees"]),
        tree(["2024-05"], ["ants", "bees"]) + tree(["2024-06"], ["bees"]),
        tree(["north", "south"], ["ants", "bees"]),
        tree(["bottle/train", "cable/train"], ["good", "broken"]),
    ],
)
@pytest.mark.parametrize("wrapper", ["", "pictures/"])
def test_classes_that_may_be_the_outer_or_the_inner_folders_are_refused_with_a_pattern_for_each(paths, wrapper):
    paths = [wrapper + path for path in paths]
    with pytest.raises(DataError, match="can be read in two ways") as caught:
        labelled(*paths)
    outer, inner = re.findall(r"--label-from '([^']+)'", str(caught.value))
    assert {label for _, label in labelled(*paths, pattern=outer).values()} == {
        path.removeprefix(wrapper).split("/")[0] for path in paths
    }
    assert {label for _, label in labelled(*paths, pattern=inner).values()} == {path.split("/")[-2] for path in paths}


def test_classes_with_folders_of_their_own_names_are_classes_and_that_is_told(caplog):
    caplog.set_level("INFO", "regraft")
    paths = tree(["animals"], ["cat", "dog"]) + tree(["plants"], ["rose", "fern"])
    assert {label for _, label in labelled(*paths).values()} == {"animals", "plants"}
    assert "folders within them (cat, dog, fern and 1 more) belong to their class" in caplog.text


@pytest.mark.parametrize(
    "names", [("steam_train", "crash_test", "bus"), ("train_station", "steam_train"), ("retrain", "contest")]
)
def test_classes_that_have_a_part_in_their_names_are_classes(names):
    assert {label for _, label in labelled(*(f"{name}/1.jpg" for name in names)).values()} == set(names)


@pytest.mark.parametrize("folder", ["test", "seg_pred/seg_pred", "test/test", "test/images"])
def test_a_part_folder_without_class_folders_holds_pictures_without_labels(folder):
    paths = [*tree(["train", "val"], ["cat", "dog"]), f"{folder}/1.jpg", f"{folder}/2.jpg"]
    rows = list(label_rows([Row(path=path, location=FileLocation(path)) for path in paths], "photos"))
    assert [row.reason for row in rows[-2:]] == [UNLABELLED.format(folder.split("/")[0])] * 2
    assert {row.status for row in rows[:-2]} == {"used"}


def test_a_folder_beside_the_one_with_the_images_does_not_hide_their_classes():
    labels = labelled("pets/cat/1.jpg", "pets/dog/2.jpg", "docs/about.txt")
    assert labels["pets/cat/1.jpg"] == (None, "cat")


def test_a_class_that_holds_something_else_than_images_keeps_the_others_a_class():
    labels = labelled("cat/monday/1.jpg", "cat/tuesday/2.jpg", "dog/3.mp4", "README.md")
    assert labels["cat/monday/1.jpg"] == labels["cat/tuesday/2.jpg"] == (None, "cat")


@pytest.mark.parametrize(
    ("pattern", "path", "label"),
    [
        ("{label}.#.*", "train/cat.12.jpg", "cat"),
        ("{label}_#.jpg", "images/american_bulldog_203.jpg", "american_bulldog"),
        ("{label}/*", "a/b/c/1.jpg", "c"),
        ("{label}/*/*", "a/b/c/1.jpg", "b"),
        ("{label}/**/*", "a/b/c/1.jpg", "a"),
        ("a/{label}/**/*", "a/b/c/1.jpg", "b"),
        ("IMG_?_{label}.*", "IMG_7_cat.jpg", "cat"),
        ("{label}_#.jpg", "cat_x.jpg", None),
        ("{label}.jpg", "cat.jpeg", None),
    ],
)
def test_a_pattern_takes_the_label_from_the_end_of_a_path(pattern, path, label):
    names = names_in(path, pattern)
    assert (names and names["label"]) == label


def test_a_pattern_may_name_the_part_and_the_group_too():
    rows = [Row(path="Valid/cat-ann-1.jpg", location=FileLocation(""))]
    [row] = label_rows(rows, "photos", "{part}/{label}-{group}-#.jpg")
    assert (row.part, row.label, row.group) == ("validation", "cat", "ann")


def test_a_pattern_that_no_file_matches_is_refused_with_a_file():
    with pytest.raises(DataError, match=r"No file in photos matches --label-from '\{label\}_#.jpg', e.g. cat.jpg"):
        labelled("cat.jpg", pattern="{label}_#.jpg")


@pytest.mark.parametrize("pattern", ["*.jpg", "{label}{label}", "{class}_#.jpg", "{label}_{size}"])
def test_a_pattern_without_one_label_is_refused_before_any_file_is_read(pattern):
    with pytest.raises(UsageError, match="expected a pattern"):
        SourceOptions(label_from=pattern)


@pytest.mark.parametrize("form", ["{}.{}.jpg", "{}_{}.jpg", "{}-{}.png", "{} ({}).jpg", "{}{}.jpg"])
def test_a_flat_folder_whose_files_name_their_class_is_refused_with_the_pattern_that_reads_it(form):
    paths = [form.format(label, number) for label in ("cat", "german_shepherd") for number in range(3)]
    with pytest.raises(DataError, match="labels are in the files' names") as caught:
        labelled(*paths)
    [pattern] = re.findall(r"add --label-from '([^']+)'", str(caught.value))
    assert {label for _, label in labelled(*paths, pattern=pattern).values()} == {"cat", "german_shepherd"}


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


@pytest.mark.parametrize(("train", "test"), [("Training", "Testing"), ("train", "holdout"), ("TRAIN", "dev")])
def test_more_names_of_parts_are_known(train, test):
    parts = labelled(f"{train}/cat/1.jpg", f"{train}/dog/2.jpg", f"{test}/cat/3.jpg", f"{test}/dog/4.jpg")
    assert {part for part, _ in parts.values()} == {"train", "validation" if test == "dev" else "test"}
    assert {label for _, label in parts.values()} == {"cat", "dog"}


def test_a_folder_of_images_beside_one_of_annotations_is_no_class():
    labels = labelled("Images/cat/1.jpg", "Images/dog/2.jpg", "Annotation/cat/1", "Annotation/dog/2")
    assert set(labels.values()) == {(None, "cat"), (None, "dog"), (None, None)}


@pytest.mark.parametrize(
    "paths",
    [
        ("site1/2024/cat/1.jpg", "site1/2024/dog/2.jpg", "site2/2025/cat/3.jpg", "site2/2025/dog/4.jpg"),
        ("a/x/y/cat/1.jpg", "a/x/y/dog/2.jpg", "b/z/cat/3.jpg", "b/z/dog/4.jpg"),
    ],
)
def test_classes_may_be_the_last_folders_too(paths):
    with pytest.raises(DataError, match=r"within them, cat, dog\. Say which"):
        labelled(*paths)


@pytest.mark.parametrize("form", ["{}{}", "{}_{}", "{} {}"])
def test_names_of_a_part_and_a_class_at_once_are_refused(form):
    names = [form.format(part, label) for part in ("train", "test") for label in ("A", "B")]
    with pytest.raises(DataError, match=r"a part and a class at once .* such as train/A"):
        labelled(*(f"{name}/{number}.jpg" for number, name in enumerate(names)))


def test_images_beside_masks_are_no_classes():
    with pytest.raises(DataError, match=r"holds images, masks: images and their masks"):
        labelled("images/1.jpg", "masks/1.jpg")
    assert {label for _, label in labelled("labels/1.jpg", "boxes/2.jpg").values()} == {"labels", "boxes"}


def test_a_table_beside_images_without_class_folders_is_pointed_to():
    with pytest.raises(DataError, match=r"If labels\.csv lists the labels, give it as the source"):
        labelled("1.jpg", "2.jpg", "labels.csv")
