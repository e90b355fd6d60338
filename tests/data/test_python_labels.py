import numpy as np
import pandas as pd
import pytest
import torch

from regraft.core.errors import DataError
from regraft.data.python_labels import one_for_each_image, text_of

HOT = [[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    "labels",
    [
        HOT,
        np.array(HOT),
        np.array(HOT, np.float32),
        np.array(HOT, bool),
        [np.array(row) for row in HOT],
        [tuple(row) for row in HOT],
        torch.tensor(HOT),
        pd.DataFrame(HOT, columns=["ant", "bee", "fly"]),
    ],
)
def test_one_hot_rows_are_the_numbers_of_their_classes_as_argmax_gives_them(labels):
    assert one_for_each_image(labels) == np.argmax(HOT, axis=1).tolist()


@pytest.mark.parametrize(
    "column", [[["cat"], ["dog"]], np.array([["cat"], ["dog"]]), pd.DataFrame({"y": ["cat", "dog"]})]
)
def test_a_column_is_a_flat_list(column):
    assert one_for_each_image(column) == ["cat", "dog"]


def test_rows_with_several_ones_are_multilabel():
    assert one_for_each_image(np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]])) == [[0, 1], [], [2]]


def test_lists_of_names_or_of_other_numbers_stay_as_they_are():
    assert one_for_each_image([["cat", "dog"], []]) == [["cat", "dog"], []]
    assert one_for_each_image([[3, 5], [2, 3]]) == [[3, 5], [2, 3]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("cat", "The labels are 'cat'"),
        ({"a.jpg": "cat"}, "expected a list with one label"),
        (7, "expected a list with one label"),
        ([[0.9, 0.1], [0.2, 0.8]], "argmax"),
        ([[0, 1], [0, 0], [1, 0]], "Label number 1 is a row of zeros"),
        (np.array(["cat", np.nan]), "Label number 1 is the text 'nan'"),
    ],
)
def test_what_can_not_be_labels_is_refused(labels, message):
    with pytest.raises(DataError, match=message):
        one_for_each_image(labels)


@pytest.mark.parametrize(
    ("label", "text"), [(1.0, "1"), (1, "1"), (True, "True"), (b"cat", "cat"), (" cat ", "cat"), ("nan", "nan")]
)
def test_a_label_is_one_text_whatever_its_type(label, text):
    assert text_of(label) == text


@pytest.mark.parametrize("label", [0.5, {"cat": 1}, 1j, [["cat"]]])
def test_what_names_no_class_is_no_label(label):
    with pytest.raises(DataError, match="expected the name or the number of a class"):
        text_of(label)
