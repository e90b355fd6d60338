"""`regraft tune`: the search has the training part alone, and goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
from tests.conftest import COLOURS, PLAIN, write_photo

import regraft
from regraft.core.errors import DataError, UsageError
from regraft.core.options import make
from regraft.features.options import FeatureOptions
from regraft.pipeline import tune as tuning
from regraft.pipeline import tune_search
from regraft.pipeline.extract import build_network
from regraft.pipeline.options import TuneOptions
from regraft.pipeline.tune import tune
from regraft.training.options import FitOptions

optuna = pytest.importorskip("optuna", reason="tune needs Optuna: `pip install regraft[tune]`")

SMALL = {"backbone": "mobilenetv3_small_050", "weights": "random", "size": 32, "trials": 6, "views": "0", **PLAIN}


@pytest.fixture(autouse=True)
def short_trials(monkeypatch):
    """Let heads train for three epochs in a trial."""
    monkeypatch.setattr(tune_search, "FitOptions", partial(FitOptions, epochs=3))


@pytest.fixture(scope="module")
def parted(tmp_path_factory):
    """A folder of train and test, of colours that can be mistaken for each other."""
    folder = tmp_path_factory.mktemp("parted")
    for part, count in (("train", 10), ("test", 4)):
        for position, (red, green, blue) in enumerate(COLOURS.values()):
            for number in range(count):
                near = ((red + 120) // 2, (green + 100) // 2, (blue + 110) // 2)
                path = folder / part / f"kind {position}" / f"{number}.png"
                write_photo(path, near, seed=10_000 * position + 1000 * count + number)
    return folder


def lines(output: Path) -> list[dict]:
    text = output.with_name(f"{output.name}.trials.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_it_searches_then_trains_and_reports_on_the_test_part(parted, tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.pipeline.tune._is_better", lambda best, usual: best is not usual)
    tuned = tune(parted, tmp_path / "model", **SMALL)
    assert tuned.kept is tuned.best
    assert len(tuned.trials) == 6 and tuned.images == 30 and tuned.folds == 5
    whole = [trial for trial in tuned.trials if len(trial.losses) == 5]
    assert tuned.best in whole and tuned.best.loss == min(trial.loss for trial in whole)
    assert [trial.parameters["head"] for trial in tuned.trials[:2]] == ["linear", "mlp"]
    assert {trial.parameters["head"] for trial in tuned.trials[2:]} <= {"linear", "mlp", "prototype", "knn"}
    assert tuned.report.part == "test" and tuned.report.evaluation.n == 12
    kept = regraft.load(tmp_path / "model")
    assert kept.head_name == tuned.best.parameters["head"]
    assert kept.options["cut"] == tuned.best.parameters["cut"] == "pooled"
    assert f"{tuned.best.loss:.4f}" in tuned.text()
    json.dumps(tuned.to_dict())


def test_without_a_combination_that_is_better_beyond_chance_the_usual_recipe_is_trained(parted, tmp_path):
    tuned = tune(parted, tmp_path / "model", **SMALL)
    assert tuned.kept is tuned.trials[0] and tuned.kept.parameters["head"] == "linear"
    outcome = (
        "Nothing that was tried beats" if tuned.best is tuned.kept else "does not beat the usual recipe beyond chance"
    )
    assert outcome in tuned.text() and tuned.to_dict()["kept"] == tuned.to_dict()["trials"][0]
    alone = regraft.train(
        parted, tmp_path / "alone", **{n: v for n, v in SMALL.items() if n != "trials"} | {"views": 0}
    )
    assert tuned.report.probabilities == pytest.approx(alone.probabilities)


@pytest.mark.parametrize(
    ("usual", "other", "better"),
    [
        ([0.5, 0.6, 0.4, 0.5, 0.6], [0.3, 0.41, 0.2, 0.31, 0.39], True),
        ([0.5, 0.6, 0.4, 0.5, 0.6], [0.49, 0.4, 0.5, 0.45, 0.55], False),
        ([0.3, 0.41, 0.2, 0.31, 0.39], [0.5, 0.6, 0.4, 0.5, 0.6], False),
    ],
)
def test_a_combination_is_better_where_the_folds_agree_that_its_log_loss_is_lower(usual, other, better):
    trials = [tune_search.Trial({}, tuple(losses), (0.9,) * 5, 1.0) for losses in (other, usual)]
    assert tuning._is_better(*trials) is better


@pytest.mark.slow
def test_without_a_named_network_it_searches_on_the_networks_that_it_trains(parted, tmp_path):
    tuned = tune(parted, tmp_path / "model", trials=1, views="0", **PLAIN)
    assert len(tuned.report.model.trunks) == 2
    alone = regraft.train(parted, tmp_path / "alone", views=0, **PLAIN)
    assert tuned.report.probabilities == pytest.approx(alone.probabilities)


def test_what_the_test_part_holds_changes_nothing_that_is_searched(parted, tmp_path):
    plain = tune(parted, tmp_path / "plain", **SMALL)
    poisoned = tmp_path / "poisoned"
    shutil.copytree(parted, poisoned)
    kinds = sorted((poisoned / "test").iterdir())
    for kind in kinds:
        kind.rename(kind.with_name(f"_{kind.name}"))
    for kind, wrong in zip(kinds, [*kinds[1:], kinds[0]], strict=True):
        kind.with_name(f"_{kind.name}").rename(wrong)
    tuned = tune(poisoned, tmp_path / "model", **SMALL)
    results = [[(trial.parameters, trial.losses) for trial in each.trials] for each in (plain, tuned)]
    assert results[0] == results[1] and tuned.best.parameters == plain.best.parameters
    assert tuned.report.accuracy < plain.report.accuracy


def test_a_search_that_was_killed_goes_on_as_if_it_had_not_been(parted, tmp_path, monkeypatch):
    whole = tune(parted, tmp_path / "whole", **SMALL)
    evaluated = tune_search.Search._evaluated

    def killed(own, parameters):
        if len(lines(tmp_path / "model")) == 3 if (tmp_path / "model.trials.jsonl").exists() else False:
            raise KeyboardInterrupt
        return evaluated(own, parameters)

    monkeypatch.setattr(tune_search.Search, "_evaluated", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(parted, tmp_path / "model", **SMALL)
    assert len(lines(tmp_path / "model")) == 3
    with (tmp_path / "model.trials.jsonl").open("a") as file:
        file.write('{"key": "cut sho')
    counted = []
    monkeypatch.setattr(
        tune_search.Search,
        "_evaluated",
        lambda self, parameters: counted.append(parameters) or evaluated(self, parameters),
    )
    resumed = tune(parted, tmp_path / "model", **SMALL)
    left = len(lines(tmp_path / "whole")) - 3
    assert len(counted) == left > 0
    assert [trial.losses for trial in resumed.trials] == [trial.losses for trial in whole.trials]
    assert resumed.best.parameters == whole.best.parameters
    again = tune(parted, tmp_path / "model", **SMALL)
    assert len(counted) == left and again.report.to_dict() == resumed.report.to_dict()


def test_a_budget_of_minutes_counts_what_earlier_runs_took(parted, tmp_path, monkeypatch):
    clock = iter(range(0, 100_000, 30))
    monkeypatch.setattr(tune_search.time, "perf_counter", lambda: next(clock))  # each trial takes half a minute
    monkeypatch.setattr(tune_search.Search, "_evaluated", lambda *_: iter([(0.5, 0.8)] * 5))
    folder = tmp_path / "trials.jsonl"
    index = regraft.read(parted).train

    def looked_for():
        options = make(FeatureOptions, {name: SMALL[name] for name in ("backbone", "weights", "size", *PLAIN)})
        return tune_search.Search(index, options, {"pooled": build_network(options)}, [0], folder)

    assert len(looked_for().run(10, minutes=1)) == 2
    assert len(looked_for().run(10, minutes=1)) == 2
    assert len(looked_for().run(10, minutes=2)) == 4
    assert len(looked_for().run(3)) == 3
    assert len(looked_for().run(10, minutes=0.01)) == 1


def test_other_images_are_searched_again(parted, tmp_path):
    tune(parted, tmp_path / "model", **{**SMALL, "trials": 2})
    shutil.copytree(parted, tmp_path / "more")
    write_photo(tmp_path / "more" / "train" / "kind 0" / "new.png", (70, 80, 150), seed=77)
    tune(tmp_path / "more", tmp_path / "model", **{**SMALL, "trials": 2, "overwrite": True})
    assert len(lines(tmp_path / "model")) == 4


def test_cuts_and_views_are_searched_where_they_are_given(parted, tmp_path):
    options = make(TuneOptions, {**SMALL, "trials": 10, "views": "0,1", "cuts": "pooled,blocks.2"})
    tuned = tune(parted, tmp_path / "model", options=options)
    assert {trial.parameters["cut"] for trial in tuned.trials} == {"pooled", "blocks.2"}
    assert {trial.parameters["views"] for trial in tuned.trials} == {0, 1}


def test_few_images_without_parts_keep_a_fifth_for_the_report(photos, tmp_path):
    tuned = tune(photos, tmp_path / "model", **{**SMALL, "trials": 1})
    assert tuned.report.part == "test" and tuned.report.evaluation.n + tuned.images == 36


def test_what_can_not_be_tuned_is_refused_in_words(parted, tmp_path, monkeypatch):
    shutil.copytree(parted / "train", tmp_path / "only" / "train")
    with pytest.raises(DataError, match="training part only"):
        tune(tmp_path / "only", tmp_path / "model", **SMALL)
    with pytest.raises(UsageError, match="--tail"):
        tune(parted, tmp_path / "model", **SMALL, tail=True, cut="blocks.2")
    for wrong in ({"trials": 0}, {"minutes": 0}, {"views": "some"}, {"cuts": ","}):
        with pytest.raises(UsageError):
            make(TuneOptions, wrong)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install regraft\[tune\]"):
        tune(parted, tmp_path / "model", **SMALL)


def test_the_programs_own_logging_of_optuna_stays_as_it_was(parted, tmp_path):
    before = optuna.logging.get_verbosity()
    tune(parted, tmp_path / "model", **{**SMALL, "trials": 1})
    assert optuna.logging.get_verbosity() == before
