import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regraft.core.errors import DataError
from regraft.data.sources import memory


def test_labels_and_groups_of_any_kind_become_text_in_the_order_given():
    labels = [1, np.int64(2), True, "café"]
    groups = [None, 7, float("nan"), "a"]
    rows = list(memory.rows(["a.jpg", Path("x/b.jpg"), "c", "d"], labels, groups=groups))
    assert [(row.path, row.label, row.group) for row in rows] == [
        ("a.jpg", "1", None),
        ("x/b.jpg", "2", "7"),
        ("c", "True", None),
        ("d", "café", "a"),
    ]


def test_parts_are_known_by_their_common_names():
    rows = memory.rows(["a", "b"], [0, 1], parts=["Valid", "test"])
    assert [row.part for row in rows] == ["validation", "test"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b"], [1]), "2 paths and 1 labels"),
        (([], []), "is empty"),
        ((["a"], [None]), r"a \(number 0\) has no label"),
        ((["a"], [float("nan")]), "has no label"),
        ((["a"], [pd.NA]), "has no label"),
        ((["a"], [" "]), "has no label"),
        (([3], [1]), r"Path number 0 is 3 \(int\); expected the path of an image"),
        (([b"a"], [1]), r"Path number 0 is b'a' \(bytes\)"),
    ],
)
def test_lists_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(DataError, match=message):
        list(memory.rows(*arguments))


def test_an_unknown_part_is_refused_with_the_known_ones():
    with pytest.raises(DataError, match="the part 'blind'; expected one of train, validation, test"):
        list(memory.rows(["a"], [1], parts=["blind"]))


def test_a_frame_gives_the_same_rows_as_its_lists():
    paths, labels, parts, groups = ["a", "b"], ["x", "y"], ["train", "test"], ["g", None]
    frame = pd.DataFrame({"group": groups, "part": parts, "label": labels, "path": paths, "width": [1, 2]})
    assert list(memory.frame_rows(frame)) == list(memory.rows(paths, labels, parts=parts, groups=groups))


def test_a_frame_without_a_column_is_refused_by_name():
    with pytest.raises(DataError, match="The DataFrame: no column label; got path, width, height"):
        list(memory.frame_rows(pd.DataFrame({"path": ["a"], "width": [3], "height": [4]})))


def test_a_frame_with_a_column_twice_is_refused():
    frame = pd.DataFrame([["a", "x", "y"]], columns=["path", "label", "label"])
    with pytest.raises(DataError, match="the column 'label' more than once"):
        list(memory.frame_rows(frame))


def test_a_frame_is_told_from_other_things_without_importing_pandas(monkeypatch):
    frame = pd.DataFrame({"path": []})
    for name in [name for name in sys.modules if name.partition(".")[0] == "pandas"]:
        monkeypatch.setitem(sys.modules, name, None)  # an import would raise
    assert memory.is_frame(frame)
    assert not memory.is_frame([])


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"filename": ["a", "b"], "class": ["cat", "dog"], "is_valid": [True, False]}),
        pd.DataFrame({"image_id": ["a", "b"], "cat": [1, 0], "dog": [0, 1], "split": ["valid", "training"]}),
        pd.DataFrame({"image": ["a", "b"], "labels": ["cat", "dog"], "set": ["val", "train"]}),
        pd.DataFrame({"image": ["a", "b"], "labels": [["cat"], ["dog"]], "part": ["val", "train"]}),
    ],
)
def test_a_frame_has_the_usual_names_of_columns_too(frame):
    assert [(row.path, row.label, row.labels, row.part) for row in memory.frame_rows(frame)] == [
        ("a", "cat", None, "validation"),
        ("b", "dog", None, "train"),
    ]
