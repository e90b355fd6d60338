"""What is not the thing itself predicts the class: found where it does, not found where it doesn't, copies together."""

import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import Ridge
from tests.conftest import PLAIN

import regraft
from regraft.audit import shortcuts
from regraft.data.index import Row
from regraft.features.store.store import Store
from regraft.pipeline.report import model_page

SMALL = {"backbone": "test_resnet", "size": 64, "weights": "random", "views": 0, **PLAIN}
CLUES = ["image size", "file format", "brightness", "border"]


def photo(rng, size=(72, 72), brightness=0, border=0):
    """Return noise in patches; with a border of so many grey levels."""
    pixels = np.kron(rng.integers(60, 190, (9, 9, 3)), np.ones((8, 8, 1))) + brightness
    pixels[:6], pixels[-6:] = pixels[:6] + border, pixels[-6:] - border  # whose signs change no whole
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize(size)


def write(folder, clue=None, count=60):
    """Write two classes that differ in one clue alone, or in none."""
    rng = np.random.default_rng(0)
    for number in range(count):
        second = number % 2 == 1
        more = {
            "image size": {"size": (96, 72) if second else (72, 72)},
            "brightness": {"brightness": 60 * second},
            "border": {"border": 60 if second else -60},
        }
        path = folder / "ab"[second] / f"{number}.{'jpg' if second and clue == 'file format' else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(rng, **more.get(clue, {})).save(path)
    return folder


@pytest.mark.parametrize("clue", CLUES)
def test_a_clue_that_gives_the_class_away_is_told_with_a_warning(clue, tmp_path):
    measured = shortcuts.measure(regraft.read(write(tmp_path / "photos", clue)), Store(tmp_path / "store"))
    (strong, *others) = sorted(measured.strong, key=lambda one: -one.accuracy)
    assert strong.name == clue
    assert strong.accuracy > 0.9
    assert not {one.name for one in others} - {"border", "brightness"}  # a bright picture has a bright border
    assert measured.warnings()[[one.name for one in measured.strong].index(clue)].startswith(f"{clue} alone predicts")


def test_pictures_that_differ_in_nothing_of_this_have_no_strong_clue_and_none_that_is_the_same_for_all(tmp_path):
    measured = shortcuts.measure(regraft.read(write(tmp_path / "photos")), Store(tmp_path / "store"))
    assert [one.name for one in measured.clues] == ["brightness", "border"]
    assert (measured.strong, measured.warnings()) == ([], [])
    assert (measured.n, measured.chance) == (60, 0.5)
    assert shortcuts.Shortcuts.from_dict(measured.to_dict()) == measured


def test_copies_are_in_one_fold_so_that_what_is_learned_by_heart_does_not_count(tmp_path):
    for path in list(write(tmp_path / "photos", count=16).rglob("*.png")):
        for copy in range(7):
            shutil.copy(path, path.with_name(f"{path.stem}_{copy}.png"))
    measured = shortcuts.measure(regraft.read(tmp_path / "photos"), Store(tmp_path / "store"))
    assert measured.n == 128
    low, high = measured.clues[-1].interval
    assert high - low > 0.35  # of 16 pictures
    assert measured.strong == []


def test_the_regression_is_scikit_learns_ridge_on_the_rows_of_other_folds():
    rng, labels = np.random.default_rng(0), np.arange(90) % 3
    inputs = (rng.normal(size=(90, 4)) + 0.5 * np.eye(3, 4)[labels]).astype(np.float32)
    rows = [Row(path=str(number), location=None) for number in range(90)]
    correct = shortcuts._correct(inputs, labels, rows)
    from regraft.training import cross_validation
    from regraft.training.examples import Examples

    (fold_of,) = cross_validation.deal_folds(Examples(inputs, labels))
    values = np.column_stack([inputs, np.ones(90)])
    for fold in range(5):
        others, own = fold_of != fold, fold_of == fold
        ridge = Ridge(alpha=shortcuts.RIDGE, fit_intercept=False).fit(values[others], np.eye(3)[labels[others]])
        assert (ridge.predict(values[own]).argmax(axis=1) == labels[own]).tolist() == correct[own].tolist()


def test_of_few_images_or_several_labels_nothing_is_told(photos, tmp_path):
    assert shortcuts.measure(regraft.read(photos), Store(tmp_path / "store")) is None


def test_train_evaluate_and_inspect_warn_and_their_pages_have_the_table(tmp_path):
    photos, store = write(tmp_path / "photos", "image size"), tmp_path / "store"
    report = regraft.train(photos, tmp_path / "model", **SMALL, store=store)
    warning = "image size alone predicts the class of"
    assert f"Note: {warning}" in report.text()
    assert report.to_dict()["shortcuts"]["clues"][0]["name"] == "image size"
    model = regraft.load(tmp_path / "model", **PLAIN)
    again = regraft.evaluate(model, photos, store=store)
    assert again.shortcuts == report.shortcuts
    for html in (again.html(), model_page(model)):
        assert 'id="shortcuts"' in html
        assert warning in html
    assert any(note.startswith("Image size alone") for note in regraft.inspect(photos, store=store).notes)
