"""Fingerprints in the store: computed once, of what can be decoded, and again where the store lost them."""

from __future__ import annotations

import numpy as np
import pytest
from tests.data.pictures import saved, scene

from regraft.data.read import read
from regraft.features import similar
from regraft.features.fingerprints import compare, versions_of
from regraft.features.store import environment
from regraft.features.store.store import Store


@pytest.fixture
def source(tmp_path):
    """Four pictures, one of them saved again, and a file that is cut short."""
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    for number in range(4):
        scene(number).save(folder / f"{number}.png")
    saved(scene(2), quality=60).save(folder / "2 again.png")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:-40])
    return folder.parent


def pictures(index):
    groups = {}
    for row in index.used:
        groups.setdefault(row.picture, []).append(row.path)
    return sorted(groups.values())


ALONE = [["a/0.png"], ["a/1.png"], ["a/2 again.png", "a/2.png"], ["a/3.png"], ["a/cut.png"]]


def test_versions_of_one_picture_name_the_same_picture(source, tmp_path):
    index = read(source)
    compared = compare(index, Store(tmp_path / "store"))
    assert pictures(compared) == ALONE
    assert compared.compared and not index.compared
    assert [row.id for row in compared] == [row.id for row in index]


def test_the_order_of_the_rows_decides_nothing(source, tmp_path):
    index, store = read(source), Store(tmp_path / "store")
    backwards = compare(index.with_rows(reversed(index.rows)), store)
    assert {row.path: row.version_of for row in compare(index, store)} == {
        row.path: row.version_of for row in backwards
    }


def test_no_image_is_decoded_for_its_fingerprint_twice(source, tmp_path):
    index, store = read(source), Store(tmp_path / "store")
    compare(index, store)
    for path in source.rglob("*.png"):
        path.unlink()
    assert pictures(compare(index, store)) == ALONE


def test_a_damaged_fingerprint_is_computed_again(source, tmp_path):
    index, store = read(source), Store(tmp_path / "store")
    compare(index, store)
    (folder,) = store.shelves()
    key = b"f" + bytes.fromhex(next(row.id for row in index if row.path == "a/2.png"))
    environment.run(folder, lambda transaction: transaction.put(key, bytes(100)), write=True)
    assert pictures(compare(index, store)) == ALONE
    assert len(environment.run(folder, lambda transaction: bytes(transaction.get(key)))) > 100


def test_the_store_counts_fingerprints_and_names_them(source, tmp_path):
    store = Store(tmp_path / "store")
    compare(read(source), store)
    assert "fingerprints of 5 images" in store.text()
    assert store.clear() > 0
    assert store.shelves() == []


def test_an_empty_index_has_no_near_duplicates(tmp_path, source):
    index = read(source).where(lambda row: False)
    assert len(compare(index, Store(tmp_path / "store"))) == 0


def test_a_fingerprint_survives_the_store_bit_by_bit(tmp_path):
    from regraft.features.fingerprints import ABOUT, STORED

    shelf = Store(tmp_path / "store").fingerprints(ABOUT, STORED)
    values = np.arange(256, dtype=np.uint8)
    shelf.put(["ab" * 32], values[None])
    np.testing.assert_array_equal(shelf.read(["ab" * 32], (256,))[0], values)


def test_where_the_store_can_not_be_written_the_pictures_are_compared_all_the_same(source, tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert pictures(compare(read(source), Store(tmp_path / "file" / "store"))) == ALONE


def test_tiny_pictures_are_tied_by_equal_bytes_alone(tmp_path):
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    scene(0).resize((32, 48)).save(folder / "0.png")
    saved(scene(0).resize((32, 48)), quality=90).save(folder / "1.png")
    (folder / "2.png").write_bytes((folder / "0.png").read_bytes())
    assert pictures(compare(read(folder.parent), Store(tmp_path / "store"))) == [["a/0.png", "a/2.png"], ["a/1.png"]]


def test_the_same_pictures_are_compared_once_and_others_again(source, tmp_path, monkeypatch):
    index, store, runs = read(source), Store(tmp_path / "store"), []
    representatives = similar.representatives
    monkeypatch.setattr(similar, "representatives", lambda prints: runs.append(len(prints)) or representatives(prints))
    first = compare(index, store)
    again = compare(index, store)
    assert [row.version_of for row in first] == [row.version_of for row in again]
    assert pictures(compare(index.where(lambda row: row.path != "a/3.png"), store)) == ALONE[:3] + ALONE[4:]
    assert runs == [5, 4]


def test_versions_of_images_that_are_gone_are_known_by_the_store_and_compared_once(source, tmp_path, monkeypatch):
    store, index = Store(tmp_path / "store"), read(source)
    original = next(row.id for row in index if row.path == "a/2.png")
    compare(index.where(lambda row: row.id == original), store)
    new = index.where(lambda row: row.id != original)
    versions, missing = versions_of(new, [original, "0" * 64], store)
    again = next(row.id for row in index if row.path == "a/2 again.png")
    assert (versions, missing) == ({again: original}, 1)
    monkeypatch.setattr(similar, "shown_by", None)  # it would be called to compare them again
    assert versions_of(new, ["0" * 64, original], store) == (versions, missing)
