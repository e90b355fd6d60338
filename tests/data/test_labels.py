import pytest

from regraft.core.errors import DataError
from regraft.data.labels import LABEL_SEPARATOR, as_label, as_labels, check_spellings


def test_the_two_spellings_of_an_accent_are_one_label():
    assert as_label("cafe\u0301") == as_label("caf\u00e9") == "caf\u00e9"


def test_a_label_has_no_space_around_it_and_no_control_characters():
    assert as_label(" cat\x1b\n") == r"cat\x1b\n"
    assert as_label("  ") == ""


@pytest.mark.parametrize(
    ("text", "labels"),
    [("", ()), (" ; ", ()), ("cat", ("cat",)), ("dog;cat", ("cat", "dog")), ("dog|cat| dog ", ("cat", "dog"))],
)
def test_labels_in_one_text_are_separated_sorted_and_each_is_there_once(text, labels):
    assert as_labels(text) == labels
    assert as_labels(LABEL_SEPARATOR.join(labels)) == labels


def test_spaces_within_a_label_are_single_and_those_without_width_are_none():
    assert as_label("hot\u00a0  dog") == as_label("hot \ufeffdog\u200b") == "hot dog"


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat"), ("hot dog", "hotdog"), ("\uff43at", "cat"), ("STRASSE", "straße")]
)
def test_labels_that_differ_in_case_spaces_or_form_are_refused_with_their_counts(one, other):
    with pytest.raises(DataError, match=rf"{one}' \(3 images\) and '{other}' \(1 image\)"):
        check_spellings({one: 3, "dog": 2, other: 1}, "photos")


def test_single_letters_may_differ_in_case():
    check_spellings({"a": 1, "A": 1, "ab": 1, "b": 2}, "letters")
