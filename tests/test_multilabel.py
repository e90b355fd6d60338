"""Images with several labels, or none: from a CSV to measures, predictions and back from the disk."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

import regraft
from regraft import cli
from regraft.core.errors import DataError, UsageError
from regraft.data.index import Index, Row
from regraft.data.split import SplitOptions, folds, split
from tests.conftest import COLOURS, PLAIN

SMALL = {"backbone": "mobilenetv3_small_050", "weights": "random", "size": 64, "views": 0, **PLAIN}
SETS = [names for count in range(4) for names in itertools.combinations(sorted(COLOURS), count)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of pictures with a stripe for each colour that they have, its labels with ; between; 20 of each set."""
    folder = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    lines = ["path,labels"]
    for number, names in enumerate(SETS * 20):
        pixels = rng.integers(90, 160, (48, 48, 3))
        for position, name in enumerate(names):
            pixels[16 * position : 16 * position + 16] = np.array(COLOURS[name]) + rng.integers(-25, 25, (16, 48, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{';'.join(reversed(names))}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def report(table, tmp_path_factory):
    return regraft.train(table, tmp_path_factory.mktemp("multilabel") / "model", **SMALL)


def test_a_csv_with_labels_is_an_index_of_several(table):
    index = regraft.read(table)
    assert index.multilabel and index.classes == ("blue", "green", "red")
    assert index.class_counts == dict.fromkeys(COLOURS, 80)  # each is in half of the sets
    assert index.rows[7].labels == ("blue", "green", "red") and index.rows[0].labels == ()
    assert index.rows[4].label == "blue; green"


def test_parts_hold_every_label_in_its_share(table):
    index = regraft.split(regraft.read(table))
    assert (len(index.train), len(index.validation), len(index.test)) == (128, 16, 16)
    for part, whole in (("train", 64), ("validation", 8), ("test", 8)):
        counts = index.part(part).class_counts
        assert abs(counts["blue"] - whole) <= 1 and len(counts) == 3  # of equally rare ones the first by name


def test_measures_are_scikit_learns(report):
    truth = np.array([[name in row.labels for name in report.model.classes] for row in report.index])
    precisions = [average_precision_score(truth[:, at], report.probabilities[:, at]) for at in range(3)]
    evaluation = report.evaluation
    assert evaluation.mean_average_precision == pytest.approx(np.mean(precisions))
    assert evaluation.mean_average_precision > 0.8  # of random features; chance is a half
    predicted = report.probabilities >= np.array(report.model.thresholds)
    assert evaluation.macro["f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert report.accuracy == (predicted == truth).all(axis=1).mean()
    assert not np.allclose(report.probabilities.sum(axis=1), 1)


def test_thresholds_are_chosen_on_the_validation_part(report, table):
    assert len(report.model.thresholds) == 3 and report.part == "test"
    shown = regraft.evaluate(report.model, table, part="validation")
    for at, name in enumerate(report.model.classes):
        truth = [name in row.labels for row in shown.index]
        own = f1_score(truth, shown.probabilities[:, at] >= report.model.thresholds[at])
        others = [f1_score(truth, shown.probabilities[:, at] >= cut, zero_division=0) for cut in np.linspace(0, 1, 101)]
        assert own >= max(others) - 1e-9


def test_images_with_one_label_each_are_evaluated_as_what_the_model_may_say_of_them(report, table):
    shown = regraft.evaluate(report.model, table, part="test")
    single = [row for row in shown.index if len(row.names) == 1]
    paths, labels = [row.location.path for row in single], [row.label for row in single]
    alone = regraft.evaluate(report.model, regraft.read(paths, labels), part="all")
    rows = [position for position, row in enumerate(shown.index) if len(row.names) == 1]
    predicted = shown.probabilities[rows] >= np.array(report.model.thresholds)
    truth = np.array([[name == label for name in report.model.classes] for label in labels])
    assert alone.accuracy == (predicted == truth).all(axis=1).mean()


def test_the_model_comes_back_and_says_the_labels_of_an_image(report, table, tmp_path, capsys):
    report.model.save(tmp_path / "model")
    again = regraft.evaluate(regraft.load(tmp_path / "model", **PLAIN), report.index, part="all")
    assert np.array_equal(again.probabilities, report.probabilities) and again.evaluation == report.evaluation
    (prediction,) = regraft.predict(report.model, report.index.rows[0].location.path)
    probabilities = dict(prediction.ranked)
    cuts = dict(zip(report.model.classes, report.model.thresholds, strict=True))
    assert set(prediction.labels) == {name for name in cuts if probabilities[name] >= cuts[name]}
    words = ["predict", tmp_path / "model", table.parent / "7.png", table.parent / "0.png"]
    assert (
        cli.main([*map(str, words), "-o", str(tmp_path / "p.csv"), "--engine", "torch", "--precision", "float32"]) == 0
    )
    with (tmp_path / "p.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["labels"] == "blue; green; red" and second["labels"] == ""
    assert cli.main([*map(str, words), "--json", "--engine", "torch", "--precision", "float32"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["labels"] == ["blue", "green", "red"]


def test_a_report_shows_the_labels(report):
    html = report.html()
    assert "average precision" in html.lower() and "blue; green" in html
    assert "mAP" in report.text()


def test_the_dense_head_learns_several_labels_too(table, tmp_path):
    report = regraft.train(table, tmp_path / "model", **SMALL, head="mlp", epochs=30)
    assert report.evaluation.mean_average_precision > 0.8
    assert report.model.head(report.model.head[0].mean[None]).shape == (1, 3)


def test_lists_and_frames_hold_a_list_of_labels_for_each_image(table):
    pandas = pytest.importorskip("pandas")
    paths = [table.parent / f"{number}.png" for number in range(16)]
    labels = [list(names) for names in SETS * 2]
    index = regraft.read(paths, labels)
    assert [row.labels for row in index] == [tuple(names) for names in SETS * 2]
    for column in (labels, ["|".join(names) for names in labels]):
        frame = pandas.DataFrame({"path": paths, "labels": column})
        assert [row.labels for row in regraft.read(frame)] == [row.labels for row in index]
    with pytest.raises(DataError, match="expected lists for all paths or for none"):
        regraft.read(paths[:2], [["red"], "red"])


def test_what_does_not_go_with_several_labels_is_refused(table, tmp_path):
    for options, named in [({"loss": "softmax"}, "--loss"), ({"balance": "weights"}, "--balance")]:
        with pytest.raises(UsageError, match=named):
            regraft.train(table, tmp_path / "model", **SMALL, **options)
    (tmp_path / "both.csv").write_text("path,label,labels\n")
    with pytest.raises(DataError, match="both columns label and labels exist"):
        regraft.read(tmp_path / "both.csv")


def test_rare_labels_make_no_split_impossible():
    rows = [
        Row(path=f"{number}", location=None, id=f"{number:064x}", label=name, labels=(name,) if name else ())
        for number, name in enumerate(["a"] * 40 + ["b"] * 35 + ["c"] * 2 + [""] * 3)
    ]
    index = split(Index(tuple(rows)), options=SplitOptions())
    assert len(index.used) == 80 and all(len(index.part(part)) >= 7 for part in ("train", "validation", "test"))
    assert sum(len(fold.test) for fold in folds(Index(tuple(rows)), SplitOptions(split="5-fold"))) == 80
