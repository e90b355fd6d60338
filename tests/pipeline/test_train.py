"""What a trained model keeps of how it was measured."""

import dataclasses
import logging

import numpy as np
from tests.conftest import PLAIN, write_photo, write_photos

import regraft
from regraft.pipeline import train as training


def test_a_model_without_a_held_out_part_is_evaluated_by_its_cross_validation(tmp_path, monkeypatch):
    photos = write_photos(tmp_path / "photos", per_class=6)
    choices = {**PLAIN, "size": 64, "views": 2}
    report = regraft.train(photos, tmp_path / "model", **choices)
    assert report.part == "cross-validation"
    monkeypatch.setattr(training, "fit_model", None)  # nothing is fitted a second time
    assert regraft.train(photos, tmp_path / "model", **choices).to_dict() == report.to_dict()
    write_photo(photos / "red" / "new.png", (190, 50, 50), seed=99)
    again = regraft.evaluate(regraft.load(tmp_path / "model"), photos)
    assert again.part == "cross-validation" and np.array_equal(again.probabilities, report.probabilities)
    assert again.notes == (*report.notes, "1 images are new to the model and not evaluated; --part all takes them in")
    everything = regraft.evaluate(report.model, photos, part="all")
    assert everything.evaluation.n == 19 and "were trained on" in str(everything.notes)
    unmeasured = dataclasses.replace(report.model, predictions=None)  # as models before format 3 are
    assert regraft.evaluate(unmeasured, write_photos(tmp_path / "same", per_class=6)).part == "all"


def test_a_tail_on_random_weights_says_that_its_head_has_no_phase_of_its_own(photos, tmp_path, caplog):
    caplog.set_level(logging.INFO, "regraft")
    small = {"backbone": "test_resnet", "weights": "random", "size": 32, "cut": "layer4", "views": 0, **PLAIN}
    report = regraft.train(photos, tmp_path / "model", **small, tail=True, head="mlp", epochs=1, tail_epochs=1)
    assert [phase["phase"] for phase in report.model.chosen["phases"]] == ["tail"]
    assert "tail and head are trained together, with no phase of the head alone" in caplog.text
