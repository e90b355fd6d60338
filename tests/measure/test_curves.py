from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from regraft.measure import curves
from regraft.measure.metrics import evaluate

ODD_NAMES = ["猫", "$x^{$", "a & <b>", "bell\x07\x00\udcff", "x" * 300, "זברה"]


def history(epochs, parts=("train", "validation")):
    return [
        {
            "epoch": epoch,
            "part": part,
            "loss": 1 / epoch + (0.05 * max(0, epoch - 4) if part == "validation" else 0),
            "accuracy": 1 - 0.5 / epoch,
            "learning_rate": 1e-3,
            "seconds": 0.1,
        }
        for epoch in range(1, epochs + 1)
        for part in parts
    ]


def evaluation(classes):
    labels = np.repeat(np.arange(len(classes)), 3)
    predicted = np.where(np.arange(len(labels)) % 3 == 0, (labels + 1) % len(classes), labels)
    return evaluate(np.eye(len(classes))[predicted], labels, classes)


def texts(figure):
    tags = ElementTree.fromstring(curves.svg(figure)).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(tag.itertext()).strip() for tag in tags]


def test_the_curves_are_the_rows_of_each_part_and_the_best_epoch_is_marked():
    rows = history(9)
    figure = curves.learning_curves(rows)
    for axes, measure in zip(figure.axes, ("loss", "accuracy"), strict=True):
        drawn = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
        for part in ("train", "validation"):
            assert drawn[part] == [[row["epoch"], row[measure]] for row in rows if row["part"] == part]
    assert "best: epoch 4" in texts(figure)  # 1/4 + 0, then 1/5 + 0.05: the first of two equally good ones


def test_without_a_validation_part_only_the_training_part_is_drawn():
    figure = curves.learning_curves(history(3, parts=("train",)))
    assert "train" in texts(figure)
    assert "validation" not in texts(figure)


@pytest.mark.parametrize("epochs", [0, 1])
def test_fewer_than_two_epochs_give_no_curves(epochs):
    assert curves.learning_curves(history(epochs)) is None


def test_a_loss_that_became_infinite_is_still_drawn():
    rows = history(5)
    rows[-2]["loss"] = float("inf")
    rows[-1]["loss"] = float("nan")
    assert "validation" in texts(curves.learning_curves(rows))


@pytest.mark.parametrize("n_classes", [2, 6, 30])
def test_every_count_but_zero_stands_in_the_matrix(n_classes):
    found = evaluation([f"class {code}" for code in range(n_classes)])
    shown = texts(curves.confusion_matrix(found))
    assert sorted(text for text in shown if text.isdigit()) == sorted(["2", "1"] * n_classes)
    assert [shown.count(name) for name in found.classes] == [2] * n_classes
    assert {"true", "predicted"} <= set(shown)


def test_a_class_without_images_has_an_empty_row_in_the_matrix():
    found = evaluate(np.eye(3)[[0, 1]], [0, 1], ["a", "b", "empty"])
    assert sorted(text for text in texts(curves.confusion_matrix(found)) if text.isdigit()) == ["1", "1"]


def test_the_bars_are_as_long_as_the_counts_and_stand_end_to_end():
    counts = {"train": {"a": 8, "b": 1200}, "test": {"b": 34, "c": 5}}
    figure = curves.class_counts(counts)
    bars = {group.get_label(): [bar.get_width() for bar in group] for group in figure.axes[0].containers}
    assert bars == {"train": [8, 1200, 0], "test": [0, 34, 5]}
    starts = {group.get_label(): [bar.get_x() for bar in group] for group in figure.axes[0].containers}
    assert starts == {"train": [0, 0, 0], "test": [8, 1200, 0]}
    assert {"a", "b", "c", "8", "1,234", "5", "train", "test"} <= set(texts(figure))


def test_bars_of_many_classes_stand_by_size_and_without_names():
    counts = {"train": {f"class {code}": code for code in range(200)}, "test": {"class 7": 500}}
    figure = curves.class_counts(counts)
    top = figure.axes[0].patches[-1].get_data().values
    assert top.tolist() == sorted([507, *(code for code in range(200) if code != 7)], reverse=True)
    assert "200 classes, the largest first" in texts(figure)
    assert not any(text.startswith("class ") for text in texts(figure))


def test_odd_names_are_shown_as_they_are_as_far_as_svg_can():
    for figure in (
        curves.confusion_matrix(evaluation(ODD_NAMES)),
        curves.class_counts({"train": {"猫": 1, "$x^{$": 2}}),
    ):
        assert {"猫", "$x^{$"} <= set(texts(figure))
    shown = texts(curves.confusion_matrix(evaluation(ODD_NAMES)))
    assert {"a & <b>", "bell\ufffd\ufffd\ufffd", "x" * 23 + "…", "זברה"} <= set(shown)


def test_the_same_numbers_give_the_same_text_even_under_other_settings():
    found = evaluation(["a", "b", "c"])
    pictures = [curves.svg(curves.confusion_matrix(found)), curves.svg(curves.learning_curves(history(5)))]
    before = dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "axes.facecolor": "black", "axes.grid": True}):
        again = [curves.svg(curves.confusion_matrix(found)), curves.svg(curves.learning_curves(history(5)))]
    assert again == pictures
    assert dict(mpl.rcParams) == before


def test_the_picture_names_no_address_but_those_of_the_svg_format():
    text = curves.svg(curves.class_counts({"train": {"a": 1}}))
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", text))
    assert addresses <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd",
    }  # fmt: skip


def test_drawing_never_imports_pyplot():
    program = (
        "import sys; from regraft.measure import curves; "
        "curves.svg(curves.class_counts({'train': {'a': 1}})); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
