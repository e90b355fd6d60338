"""benchmarks/accuracy.py: what it runs, what it skips, and the numbers that it writes."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from regraft.core.options import make
from regraft.pipeline.options import TrainOptions

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("accuracy")
    for name in ("accuracy", "_bench"):
        sys.modules.pop(name, None)


def task(accuracy, **changes):
    ways = {way: accuracy.Way(90.0, "As it is.", {"head": "linear"}) for way in accuracy.WAYS}
    facts = {"name": "moons", "protocol": "half", "articles": "none", "source": "moons", "options": {"views": 0}}
    return accuracy.Task(**{**facts, "ways": ways, **changes})


def run(accuracy, one, way="frozen", seed=0, /, **facts):
    line = {"n": 100, "accuracy": 0.9, "trained_on": 400, "seconds": 3.0, "machine": MACHINE, **facts}
    return {**accuracy.identity(one, way, seed), **line}


MACHINE = {"processor": "P", "cores": 2, "features": ["avx2"], "versions": {"regraft": "1"}}


def test_the_options_of_every_run_are_options_and_each_way_says_how_it_was_chosen(accuracy):
    for one in accuracy.TASKS:
        for way in accuracy.WAYS:
            make(TrainOptions, accuracy.identity(one, way, 0)["options"])
            assert len(one.ways[way].chosen) > 20


def test_the_aims_are_those_that_were_set(accuracy):
    aims = [(one.name, *(one.ways[way].aim for way in accuracy.WAYS)) for one in accuracy.TASKS]
    assert aims == [
        ("cats-dogs", 99.0, 99.3),
        ("cats-dogs, InceptionV3", 97.0, 98.0),
        ("cats-dogs, 100 images a class", 98.0, 98.0),
        ("CIFAR-10 half", 90.0, 96.0),
        ("Pokémon, 5 classes", 91.0, 96.0),
        ("digits (the demo)", 97.5, 99.0),
    ]


def test_some_runs_are_named_by_way_and_by_parts_of_names(accuracy):
    def rows(*only):
        return {(one.name, way) for one, way, _ in accuracy.wanted(accuracy.TASKS, only)}

    assert rows("frozen", "digits") == {("digits (the demo)", "frozen")}
    assert rows("cats-dogs", "fine-tuned") == {(one.name, "fine-tuned") for one in accuracy.TASKS[:3]}
    assert len(rows()) == 2 * len(accuracy.TASKS)
    assert len([*accuracy.wanted(accuracy.TASKS, ["Pokémon"])]) == 10


def test_a_run_is_known_again_by_its_options_and_the_last_one_counts(accuracy):
    one = task(accuracy)
    done = [run(accuracy, one), run(accuracy, one, accuracy=0.8)]
    assert accuracy.result(done, accuracy.identity(one, "frozen", 0))["accuracy"] == 0.8
    assert accuracy.result(done, accuracy.identity(one, "frozen", 1)) is None
    assert accuracy.result(done, accuracy.identity(task(accuracy, options={"views": 1}), "frozen", 0)) is None


def test_a_line_that_a_killed_process_left_half_is_left_out(accuracy, tmp_path):
    path = tmp_path / "results.jsonl"
    assert accuracy.read(path) == []
    path.write_text('{"seed": 0}\n{"seed"')
    assert accuracy.read(path) == [{"seed": 0}]
    accuracy._append(path, {"seed": 1})
    assert accuracy.read(path) == [{"seed": 0}, {"seed": 1}]


def test_the_interval_is_wilsons_where_the_same_images_are_evaluated(accuracy):
    one = task(accuracy, seeds=2)
    rows = accuracy.interval(one, [run(accuracy, one, accuracy=0.88), run(accuracy, one, "frozen", 1, accuracy=0.92)])
    expected = stats.binomtest(90, 100).proportion_ci(method="wilson")
    assert rows == pytest.approx((expected.low, expected.high))


def test_the_interval_over_splits_counts_the_images_that_they_share(accuracy):
    one = task(accuracy, seeds=5, drawn=True)
    values = np.array([0.90, 0.92, 0.91, 0.95, 0.93])
    low, high = accuracy.interval(one, [run(accuracy, one, "frozen", k, accuracy=v) for k, v in enumerate(values)])
    error = np.sqrt((1 / 5 + 100 / 400) * values.var(ddof=1))  # equation 9 of Nadeau and Bengio
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 4, values.mean(), error))


def test_the_page_tells_means_intervals_seconds_and_what_is_short_or_lacking(accuracy):
    one = task(accuracy, seeds=2)
    done = [run(accuracy, one, accuracy=0.85), run(accuracy, one, "fine-tuned"), run(accuracy, one, "fine-tuned", 1)]
    page = accuracy.page([one], done)
    (row,) = [line for line in page.splitlines() if line.startswith("| moons")]
    assert "**85.0 %** (76.7 to 90.7), 3 s; 5.0 points short; 1 of 2 seeds" in row
    assert row.endswith("**90.0 %** (82.6 to 94.5), 3 s |")
    assert "P, 2 cores, avx2; regraft 1." in page
    assert "- **moons, frozen**: `views=0`, `head=linear`. As it is." in page


def test_what_was_not_run_is_said(accuracy):
    page = accuracy.page(accuracy.TASKS, [])
    assert page.count("not run") == 2 * len(accuracy.TASKS) and "Nothing was run yet." in page


def test_without_photographs_nothing_is_run_and_it_is_said(accuracy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accuracy._bench, "header", lambda: MACHINE)
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    words = [str(tmp_path), "--only", "Pokémon", "--results", str(results), "--page", str(page)]
    assert accuracy.main(words) == 0
    assert "skipped: no pokemon.zip" in capsys.readouterr().out
    assert page.exists() and not results.exists()


@pytest.mark.slow
def test_a_run_is_done_once_and_its_line_is_kept(accuracy, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy._bench, "header", lambda: MACHINE)
    one = task(
        accuracy, source="digits", options={"backbone": "test_resnet", "weights": "random", "size": 32, "views": 0}
    )
    monkeypatch.setattr(accuracy, "TASKS", (one,))
    results, page = tmp_path / "results.jsonl", tmp_path / "page.md"
    words = ["--only", "frozen", "--results", str(results), "--page", str(page)]
    assert accuracy.main(words) == 0
    before = results.read_text()
    line = json.loads(before)
    assert 170 <= line["n"] <= 190 and 0.1 < line["accuracy"] <= 1 and line["seconds"] > 0
    monkeypatch.setattr(accuracy, "_measured", None)  # would fail if it were called
    assert accuracy.main(words) == 0
    assert results.read_text() == before and "| moons" in page.read_text()
