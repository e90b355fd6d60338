import pytest

from regraft.data.labels import LABEL_SEPARATOR, as_label, as_labels


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
