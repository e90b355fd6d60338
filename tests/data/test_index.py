import hashlib
from dataclasses import dataclass

import pytest

from regraft.core.errors import DataError
from regraft.data.index import Index, Row


@dataclass
class Location:
    """Bytes in memory, with a stamp as given."""

    content: bytes
    number: int

    def read(self):
        return self.content

    def stamp(self):
        return self.number


def row(path, label="cat", **more):
    return Row(path=path, location=None, label=label, **more)


def read_row(content, stamp):
    """A row as it is after its bytes were read under a stamp."""
    id = hashlib.sha256(content).hexdigest()
    return Row(path="1.jpg", location=Location(content, stamp), id=id, stamp=stamp)


@pytest.mark.parametrize("stamp", [0, 7])
def test_the_bytes_that_were_read_have_not_changed(stamp):
    assert not read_row(b"first", stamp).has_changed(b"first")


@pytest.mark.parametrize(("before", "now"), [(0, 0), (0, 7), (7, 8), (7, 0)])
def test_other_bytes_are_noticed_where_the_stamp_is_unknown_or_another(before, now):
    changed = read_row(b"first", before)
    changed.location.number = now
    assert changed.has_changed(b"other")
    assert not changed.has_changed(b"first")


def test_bytes_under_an_equal_stamp_are_not_hashed_again():
    assert not read_row(b"first", 7).has_changed(b"other")


def test_rows_are_marked_broken_by_the_path_of_one_or_by_the_id_of_all_copies():
    rows = (row("a", id="1"), row("b", id="1"), row("c", id="2"), row("d", id="3", status="ignored"), row("e", id="4"))
    index = Index(rows).mark_broken({"1": "damaged", "b": "gone", "c": "gone", "d": "gone", "x": "gone"})
    assert [(row.path, row.status, row.reason) for row in index] == [
        ("a", "broken", "damaged"),
        ("b", "broken", "gone"),
        ("c", "broken", "gone"),
        ("d", "ignored", ""),
        ("e", "used", ""),
    ]


def test_labels_become_their_index_among_the_classes_and_unknown_ones_are_refused():
    index = Index((row("1", "dog"), row("2", "cat"), row("3", "dog")))
    assert index.label_codes(["cat", "dog"]) == [1, 0, 1]
    with pytest.raises(DataError, match="1 has the label 'dog'; expected one of cat"):
        index.label_codes(["cat"])


def test_multilabel_rows_become_a_flag_for_each_class():
    index = Index((row("1", "a; b", labels=("a", "b")), row("2", "", labels=()), row("3", "c", labels=("c",))))
    assert index.multilabel
    assert index.classes == ("a", "b", "c")
    assert index.label_flags(["a", "b", "c"]) == [[True, True, False], [False] * 3, [False, False, True]]
    with pytest.raises(DataError, match="1 has the label 'b'; expected some of a, c"):
        index.label_flags(["a", "c"])


def test_an_index_shows_its_counts_on_one_line():
    rows = (row("1", part="train"), row("2", "dog", part="test"), row("3", status="broken"), row("4", status="ignored"))
    assert repr(Index(rows, "photos")) == "<Index of photos: 2 used, 1 train, 1 test, 1 ignored, 1 broken, 2 classes>"


def test_of_many_classes_an_error_names_a_few_and_their_number():
    index = Index((Row(path="1", location=None, id="1", label="dog"),))
    with pytest.raises(DataError) as caught:
        index.label_codes([f"class {number}" for number in range(5000)])
    assert "class 4 and 4,995 more" in str(caught.value) and len(str(caught.value)) < 200


def test_an_image_that_later_rules_decode_has_a_key_of_its_own():
    plain, later = row("1", id="5" * 64), row("1", id="5" * 64, rules=3)
    assert plain.key == plain.id
    assert later.key == hashlib.sha256(f"{'5' * 64} decoded by the rules of version 3".encode()).hexdigest()
