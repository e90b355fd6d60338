from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from regraft.evaluation.ranking import Curves
from regraft.report import plots

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


def two_phases(head, tail):
    """Return rows of a head of so many epochs (0: in one go), then a tail, at a tenth of its rate."""
    rows = history(head) if head else [{**row, "epoch": 0, "learning_rate": None} for row in history(1)]
    later = [{**row, "epoch": row["epoch"] + head, "learning_rate": 1e-4, "phase": "tail"} for row in history(tail)]
    return [*rows, *later]


def texts(figure):
    tags = ElementTree.fromstring(plots.svg(figure)).iter("{http://www.w3.org/2000/svg}text")
    return ["".join(tag.itertext()).strip() for tag in tags]


def drawn(axes):
    """Return the named lines of axes with their points."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines if not line.get_label().startswith("_")}


def test_the_curves_are_the_rows_of_each_part_and_the_best_epoch_is_marked():
    rows = history(9)
    figure = plots.training_curves(rows)
    for axes, measure in zip(figure.axes[:2], ("loss", "accuracy"), strict=True):
        for part in ("train", "validation"):
            assert drawn(axes)[part] == [[row["epoch"], row[measure]] for row in rows if row["part"] == part]
        assert drawn(axes)["best: epoch 4"][0][0] == 4  # 1/4 + 0, then 1/5 + 0.05: the first of two equally good ones
    assert {"loss", "accuracy", "best: epoch 4"} <= set(texts(figure))


def test_the_epoch_that_the_watched_measure_chose_is_the_best():
    assert "best: epoch 9" in texts(plots.training_curves(history(9), watch="accuracy"))


def test_the_learning_rate_of_every_epoch_stands_below_on_a_logarithmic_axis():
    rows = history(5)
    for row in rows:
        row["learning_rate"] = 10.0 ** -row["epoch"]
    *_, axes = plots.training_curves(rows).axes
    assert axes.lines[0].get_xydata() == pytest.approx(np.array([[epoch, 10.0**-epoch] for epoch in range(1, 6)]))
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "learning rate")
    assert {"0.1", "1e-05"} <= set(texts(axes.figure))


def test_rates_that_are_near_each_other_are_both_written():
    rows = history(5)
    for row in rows:
        row["learning_rate"] = 2e-5 if row["epoch"] < 3 else 1e-5
    assert {"2e-05", "1e-05"} <= set(texts(plots.training_curves(rows)))


def test_without_learning_rates_there_is_no_picture_of_them():
    rows = [{**row, "learning_rate": None} for row in history(5)]
    assert [axes.get_ylabel() for axes in plots.training_curves(rows).axes] == ["loss", "accuracy"]


@pytest.mark.parametrize(("head", "border"), [(6, 6.5), (0, 0.5)])
def test_both_phases_are_in_one_picture_with_their_border_their_names_and_their_best_epochs(head, border):
    rows = two_phases(head, 5)
    figure = plots.training_curves(rows)
    for axes in figure.axes:
        upright = [
            line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1 and line.get_ydata()[-1] == 1
        ]
        assert border in upright
        assert head + 4 in upright  # the tail's fourth epoch has the lowest validation loss …
        assert 4 in upright  # … as has the head's, if it has epochs
    for axes, measure in zip(figure.axes[:2], ("loss", "accuracy"), strict=True):
        points = [tuple(point) for line in axes.lines for point in line.get_xydata().tolist()]
        assert {(row["epoch"], row[measure]) for row in rows} <= set(points)
    shown = texts(figure)
    assert [shown.count(name) for name in ("head", "tail", "train", "validation")] == [1, 1, 1, 1]
    assert ("best: epochs 4 and 10" if head else "best: epoch 4") in shown


def test_without_a_validation_part_only_the_training_part_is_drawn():
    figure = plots.training_curves(history(3, parts=("train",)))
    assert "train" in texts(figure)
    assert "validation" not in texts(figure)


@pytest.mark.parametrize("epochs", [0, 1])
def test_fewer_than_two_epochs_give_no_curves(epochs):
    assert plots.training_curves(history(epochs)) is None


def test_a_loss_that_became_infinite_is_still_drawn():
    rows = history(5)
    rows[-2]["loss"] = float("inf")
    rows[-1]["loss"] = float("nan")
    assert "validation" in texts(plots.training_curves(rows))


def test_the_learning_curve_shows_the_accuracy_its_band_and_the_recall_of_each_class():
    sizes, mean = [100, 200, 400], np.array([0.7, 0.8, 0.85])
    recalls = {"猫": [0.6, 0.7, 0.8], "dog": [0.8, 0.9, 0.9]}
    figure = plots.learning_curve(sizes, mean, mean - 0.05, mean + 0.05, recalls)
    lines = drawn(figure.axes[0])
    assert lines["accuracy"] == [[100, 0.7], [200, 0.8], [400, 0.85]]
    assert lines["recall of dog"] == [[100, 0.8], [200, 0.9], [400, 0.9]]
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {(100, 0.65), (100, 0.75), (400, 0.8), (400, 0.9)} <= {(x, round(y, 6)) for x, y in band.tolist()}
    assert {"100", "400", "training photographs", "recall of 猫", "80 %"} <= set(texts(figure))


def test_the_learning_curve_of_many_classes_shows_those_with_the_lowest_recall():
    recalls = {f"class {code}": [0.5, code / 50] for code in range(40)}
    shown = drawn(plots.learning_curve([10, 20], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7], recalls).axes[0])
    assert set(shown) == {"accuracy", *(f"recall of class {code}" for code in range(8))}


def test_the_learning_curve_needs_no_classes_and_one_size_is_enough():
    assert "accuracy" in texts(plots.learning_curve([50], [0.5], [0.4], [0.6]))


def test_a_sweep_of_rates_shows_the_loss_and_the_suggestion():
    rates = np.logspace(-6, 0, 50)
    losses = [1 - 0.1 * step / 50 for step in range(48)] + [80.0, float("nan")]
    axes = plots.rate_sweep(rates, losses, 3e-3).axes[0]
    assert axes.lines[0].get_ydata()[:49].tolist() == losses[:49]
    assert drawn(axes)["suggested: 0.003"][0][0] == 3e-3
    low, high = axes.get_ylim()
    assert low < min(losses[:48])
    assert 1 < high < 2  # what ran away does not flatten the rest
    assert axes.get_xscale() == "log"


@pytest.mark.parametrize("losses", [[float("nan")] * 3, [0.5, 0.5, 0.5]])
def test_a_sweep_without_a_suggestion_is_drawn_all_the_same(losses):
    assert "learning rate" in texts(plots.rate_sweep([1e-3, 1e-2, 1e-1], losses, None))


def test_the_bars_are_as_long_as_the_counts_and_stand_end_to_end():
    counts = {"train": {"a": 8, "b": 1200}, "test": {"b": 34, "c": 5}}
    figure = plots.class_counts(counts)
    bars = {group.get_label(): [bar.get_width() for bar in group] for group in figure.axes[0].containers}
    assert bars == {"train": [8, 1200, 0], "test": [0, 34, 5]}
    starts = {group.get_label(): [bar.get_x() for bar in group] for group in figure.axes[0].containers}
    assert starts == {"train": [0, 0, 0], "test": [8, 1200, 0]}
    assert {"a", "b", "c", "8", "1,234", "5", "train", "test"} <= set(texts(figure))


def test_bars_of_many_classes_stand_by_size_and_without_names():
    counts = {"train": {f"class {code}": code for code in range(200)}, "test": {"class 7": 500}}
    figure = plots.class_counts(counts)
    top = figure.axes[0].patches[-1].get_data().values
    assert top.tolist() == sorted([507, *(code for code in range(200) if code != 7)], reverse=True)
    assert "200 classes, the largest first" in texts(figure)
    assert not any(text.startswith("class ") for text in texts(figure))


def test_odd_names_are_shown_as_they_are_as_far_as_svg_can():
    shown = texts(plots.class_counts({"train": dict.fromkeys(ODD_NAMES, 1)}))
    assert {"猫", "$x^{$", "a & <b>", r"bell\x07\x00\udcff", "x" * 8 + "…" + "x" * 15, "זברה"} <= set(shown)


def test_the_same_numbers_give_the_same_text_even_under_other_settings():
    def draw():
        return [plots.svg(plots.class_counts({"train": {"a": 3}})), plots.svg(plots.training_curves(history(5)))]

    pictures, before = draw(), dict(mpl.rcParams)
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "axes.facecolor": "black", "axes.grid": True}):
        again = draw()
    assert again == pictures
    assert dict(mpl.rcParams) == before


def test_the_picture_names_no_address_but_those_of_the_svg_format():
    text = plots.svg(plots.class_counts({"train": {"a": 1}}))
    addresses = set(re.findall(r"https?://[^\"'\s<>]+", text))
    assert addresses <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd",
    }  # fmt: skip


def test_drawing_never_imports_pyplot():
    program = (
        "import sys; from regraft.report import plots; "
        "plots.svg(plots.class_counts({'train': {'a': 1}})); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
def test_reliability_has_a_point_and_an_interval_for_each_bin(width):
    bins = [
        {"n": 4, "confidence": 0.55, "accuracy": 0.5, "accuracy_interval": (0.15, 0.85)},
        {"n": 9, "confidence": 0.95, "accuracy": 1.0, "accuracy_interval": (0.7, 1.0)},
    ]
    figure = plots.reliability(bins, width)
    assert drawn(figure.axes[0])["accuracy"] == [[0.55, 0.5], [0.95, 1.0]]
    (lines,) = (each for each in figure.axes[0].collections if each.get_label() == "95 % interval")
    assert [segment.tolist() for segment in lines.get_segments()] == [
        [[0.55, 0.15], [0.55, 0.85]],
        [[0.95, 0.7], [0.95, 1.0]],
    ]
    assert plots.reliability([]) is None


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
def test_each_class_has_a_line_in_both_panels_whatever_its_name(width):
    both = Curves(np.array([[0, 0], [0.2, 0.9], [1, 1]]), np.array([[0.5, 1.0], [1.0, 0.6]]))
    figure = plots.ranking_curves(dict.fromkeys(ODD_NAMES, both), width)
    assert len(figure.axes[0].lines) == len(ODD_NAMES) + 1
    assert len(figure.axes[1].lines) == len(ODD_NAMES)
    assert "precision and recall" in texts(figure)
    assert plots.ranking_curves({}) is None
