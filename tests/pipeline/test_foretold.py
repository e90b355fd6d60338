"""`inspect` foretells what `train` refuses, in the same words; and what it foretells nothing of is trained."""

from __future__ import annotations

import shutil

import pytest
from tests.conftest import PLAIN, write_photo

import regraft
from regraft.core.errors import DataError

SMALL = {"backbone": "mobilenetv3_small_050", "weights": "random", "size": 32, "views": 0, **PLAIN}


def photos(folder, **counts):
    """Write so many pictures into each folder, `__` standing for a slash."""
    for position, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write_photo(
                folder / name.replace("__", "/") / f"{number}.png", (40 * position, 90, 200), 100 * position + number
            )
    return folder


def cut(folder, count):
    """Damage so many files of one class so that only decoding shows it."""
    for path in sorted(folder.rglob("*.png"))[:count]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        path.write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda folder: photos(folder, cat=6), "has one class only (cat)"),
        (lambda folder: photos(folder, cat=6, dog=1), "class 'dog' has 1"),
        (lambda folder: photos(folder, cat=40, dog=40, train=0) and twice(folder), "class 'emu' has 1"),
        (lambda folder: photos(folder, train__cat=6, train__dog=6), "has a training part only"),
        (
            lambda folder: photos(folder, train__cat=6, train__dog=6, test__emu=6, test__cat=3),
            "emu: no image in the training",
        ),
        (lambda folder: cut(photos(folder, cat=12, dog=12), 4), "4 of 24 images in photos are broken"),
        (lambda folder: cut(photos(folder, cat=2, dog=20), 2), "has one class only (dog)"),
    ],
)
def test_what_training_would_refuse_is_foretold(tmp_path, monkeypatch, make, why):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "photos")
    notes = [note for note in regraft.inspect("photos").notes if "would refuse" in note]
    assert len(notes) == 1 and why in notes[0]
    with pytest.raises(DataError) as refused:
        regraft.train("photos", "model", **SMALL)
    assert str(refused.value).partition(":\n")[0].removesuffix(".") in notes[0]


def twice(folder):
    """Add a class of one picture in two files of equal bytes."""
    first = write_photo(folder / "emu" / "0.png", (200, 200, 40), 9000)
    shutil.copy(first, folder / "emu" / "1.png")
    return folder


def test_nothing_is_foretold_of_what_is_trained(tmp_path):
    source = photos(tmp_path / "photos", cat=5, dog=5)
    assert not regraft.inspect(source).notes
    assert regraft.train(source, tmp_path / "model", **SMALL).evaluation.n == 10


def test_what_is_foretold_stands_on_the_page(tmp_path):
    source = photos(tmp_path / "photos", cat=6, dog=1)
    (source / "emu").mkdir()
    page = regraft.inspect(source).html()
    assert "would refuse this" in page and "The class &#39;emu&#39; has no usable image" in page
