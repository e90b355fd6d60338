"""`regraft compare`: candidates on the same images, none of them of the part that evaluates."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from tests.conftest import PLAIN, write_photo, write_photos

import regraft
from regraft.core.errors import DataError, UnknownName, UsageError
from regraft.core.options import make
from regraft.features import extract as extraction
from regraft.network import catalog
from regraft.network.weights import builtin
from regraft.pipeline.compare import compare
from regraft.pipeline.options import CompareOptions, names

SMALL = {"weights": "random", "size": 32, "split": "5-fold", **PLAIN}
TWO = {**SMALL, "backbones": "mobilenetv3_small_050,resnet10t"}


def test_candidates_are_compared_on_the_same_rounds(photos):
    comparison = compare(photos, **TWO)
    assert {candidate.name for candidate in comparison.candidates} == {"mobilenetv3_small_050", "resnet10t"}
    assert (comparison.images, comparison.separate, comparison.folds, comparison.repeats) == (36, 36, 5, 10)
    assert all(len(candidate.scores) == 50 for candidate in comparison.candidates)
    assert all(candidate.milliseconds > 0 and candidate.megabytes > 1 for candidate in comparison.candidates)
    assert comparison.learning_curve.sizes[-1] == 29 and set(comparison.learning_curve.recalls) == {
        "blue",
        "green",
        "red",
    }
    json.dumps(comparison.to_dict())


def test_the_accuracy_is_about_that_of_a_cross_validation_by_scikit_learn(tmp_path):
    write_photos(tmp_path, per_class=12)
    for number in range(12):  # two kinds that are hard to tell apart
        write_photo(tmp_path / "other red" / f"{number}.png", (196, 44, 44), seed=5000 + number)
    comparison = compare(tmp_path, **SMALL, backbones="mobilenetv3_small_050")
    index = regraft.read(tmp_path)
    features = regraft.extract(index, backbone="mobilenetv3_small_050", weights="random", size=32, views=0, **PLAIN)
    inputs = np.asarray(features)
    inputs = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0).mean()
    expected = cross_val_score(LogisticRegression(C=0.1, max_iter=5000), inputs, features.labels(index.classes), cv=5)
    assert comparison.best.accuracy == pytest.approx(expected.mean(), abs=0.12)


def test_the_part_that_evaluates_is_left_out(photos):
    comparison = compare(photos, **{**TWO, "split": "0.5/0.5"})
    assert comparison.images == 18
    assert comparison.notes == ("the 18 images of the test part were left out: they will evaluate the model",)


def test_features_that_are_stored_are_not_computed_again(photos, monkeypatch):
    compare(photos, **TWO)
    monkeypatch.setattr(extraction, "fill", lambda *_: pytest.fail("something was computed"))
    compare(photos, **TWO)


def test_cuts_are_candidates_too(photos):
    options = make(CompareOptions, {**SMALL, "backbones": "mobilenetv3_small_050", "cuts": "pooled, blocks.2"})
    names = {candidate.name for candidate in compare(photos, options=options).candidates}
    assert names == {"mobilenetv3_small_050", "mobilenetv3_small_050 at blocks.2"}


def test_a_folder_of_weights_is_a_candidate(photos, tmp_path):
    about = {"architecture": "test_resnet", "pretrained_cfg": {"input_size": [3, 32, 32]}}
    (tmp_path / "config.json").write_text(json.dumps(about))
    save_file(dict(catalog.build("test_resnet", seed=3).state_dict()), tmp_path / "model.safetensors")
    options = make(CompareOptions, dict(**{**SMALL, "size": None}, backbones=str(tmp_path)))
    assert compare(photos, options=options).best.name == str(tmp_path)


@pytest.mark.slow
def test_without_names_the_backbones_with_installed_weights_are_compared(photos):
    installed = {entry.name for entry in catalog.families() if builtin.find(entry)}
    comparison = compare(photos, split="5-fold", size=64, **PLAIN)
    assert {candidate.backbone for candidate in comparison.candidates} == installed


def test_a_wrong_name_is_told_before_anything_is_computed(photos, monkeypatch):
    monkeypatch.setattr(extraction, "extract", lambda *_, **__: pytest.fail("something was computed"))
    with pytest.raises(UnknownName, match="resnet10t"):
        compare(photos, **SMALL, backbones="mobilenetv3_small_050,resnet10")
    with pytest.raises(UnknownName, match=r"blocks\.2"):
        compare(photos, **SMALL, backbones="mobilenetv3_small_050", cuts="pooled,block.2")
    with pytest.raises(UsageError, match="nothing is frozen"):
        compare(photos, **SMALL, backbones="mobilenetv3_small_050", cuts="input")
    with pytest.raises(UsageError, match="--cuts"):
        make(CompareOptions, {"cuts": " , "})


def test_a_class_of_copies_of_one_picture_is_refused_by_name(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    write_photo(tmp_path / "photos" / "grey" / "0.png", (90, 90, 90), seed=1)
    shutil.copy(tmp_path / "photos" / "grey" / "0.png", tmp_path / "photos" / "grey" / "1.png")
    index = regraft.read(tmp_path / "photos")
    with pytest.raises(DataError, match="'grey'"):
        compare(index, **SMALL, backbones="mobilenetv3_small_050")
    only = index.where(lambda row: row.label == "red")
    with pytest.raises(DataError, match="one class"):
        compare(only, **SMALL, backbones="mobilenetv3_small_050")


def test_a_broken_file_is_left_out_for_all(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    comparison = compare(tmp_path / "photos", **TWO, max_broken=0.1)
    assert comparison.images == 36
    with pytest.raises(DataError, match=r"broken\.png"):
        compare(tmp_path / "photos", **TWO, max_broken=0)


@pytest.mark.slow
@pytest.mark.skipif("REGRAFT_DATA" not in os.environ, reason="REGRAFT_DATA names no folder of photographs")
def test_pokemon_is_told_apart_as_well_as_by_hand_and_wants_more_photographs():
    """By hand: a logistic regression on Lite0's features, 91.0 % of pictures without their copies."""
    source = Path(os.environ["REGRAFT_DATA"]) / "pokemon.zip"
    comparison = compare(source, backbones="efficientnet_lite0")
    assert comparison.best.accuracy == pytest.approx(0.905, abs=0.015)
    assert comparison.learning_curve.gain.difference > 0.01 and comparison.learning_curve.accuracy[0] < 0.75


def test_names_are_divided_by_commas_and_each_counts_once():
    assert names(" a, b,a ,") == ["a", "b"]
