"""Model folders that earlier versions wrote: they open, and predict what they predicted then."""

import json
import shutil
from pathlib import Path

import pytest
from tests.conftest import PLAIN

import regraft

FIXTURES = sorted(path for path in (Path(__file__).parent / "fixtures").glob("format_*/*") if path.is_dir())


@pytest.mark.parametrize("folder", FIXTURES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_model_of_an_earlier_format_predicts_what_it_did_when_it_was_made(folder, photos, tmp_path):
    expected = json.loads(folder.with_suffix(".expected.json").read_text())
    model = regraft.load(shutil.copytree(folder, tmp_path / "model"), **PLAIN)
    top = len(expected[0]["top"])
    predictions = regraft.predict(model, sorted(photos.glob("*/00[0-3].png")), top=top, store=tmp_path / "store")
    assert len(predictions) == len(expected) == 12
    for prediction, then in zip(predictions, expected, strict=True):
        assert (prediction.label, prediction.labels) == (then["label"], _labels(then))
        probabilities = {answer["label"]: answer["probability"] for answer in then["top"]}
        assert dict(prediction.ranked) == pytest.approx(probabilities, abs=1e-6)  # as written, to six digits


def _labels(then):
    return tuple(then["labels"]) if "labels" in then else None


def test_there_is_a_folder_of_each_kind():
    assert {path.name for path in FIXTURES} == {"linear", "mlp", "multilabel", "tail", "joined"}
