"""The certificate: what passes its gates, what does not, and how both are told to the user."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from regraft.exports.certificate import GATES, Certificate, Compared, Group, compare
from regraft.training.losses import Loss


@dataclasses.dataclass
class Model:
    """The labels of a model, by rules written here again."""

    classes: tuple[str, ...] = ("cat", "dog")
    loss: Loss = Loss()
    thresholds: tuple[float, ...] | None = None

    def predicted_labels(self, probabilities):
        limits = self.thresholds or (0.5,) * len(self.classes)
        return [
            tuple(name for name, p, limit in zip(self.classes, row, limits, strict=True) if p >= limit)
            for row in probabilities
        ]


def certificate(images, precision="float32", made=()):
    return Certificate(
        format="onnx",
        precision=precision,
        photographs=Group(images=tuple(images)),
        made=Group(images=tuple(made)),
        versions={"regraft": "1"},
        files={"model.onnx": "ab"},
    )


def images(count, difference=0.0, **values):
    return [
        Compared(path=f"{number}.jpg", difference=difference, **{"label": "cat", "exported": "cat", **values})
        for number in range(count)
    ]


def test_equal_answers_pass_every_gate():
    for precision in GATES:
        assert certificate(images(3), precision, images(3)).failures == []


@pytest.mark.parametrize(("precision", "limit"), [("float32", 0.005), ("float16", 0.02)])
def test_one_image_beyond_the_limit_is_refused_by_name(precision, limit):
    assert certificate([*images(99), *images(1, limit)], precision).failures == []
    (failure,) = certificate([*images(99), *images(1, limit * 1.01)], precision).failures
    assert "1 of 100 images" in failure and "0.jpg" in failure


def test_a_probability_that_is_no_number_is_beyond_every_limit():
    for precision in GATES:
        assert certificate(images(1, float("nan")), precision).failures


def test_int8_has_five_images_of_a_hundred_free_and_one_label():
    changed = {"exported": "dog"}
    assert certificate([*images(95), *images(5, 0.3)], "int8").failures == []
    assert certificate([*images(94), *images(6, 0.3)], "int8").failures
    assert certificate([*images(99), *images(1, 0.01, **changed)], "int8").failures == []
    assert certificate([*images(98), *images(2, 0.01, **changed)], "int8").failures
    assert certificate(images(9), "int8", images(9, 0.5)).failures == [], "made images were not calibrated on"


def test_an_accuracy_outside_the_interval_of_the_models_is_refused():
    labelled = [*images(990, true="cat"), *images(10, exported="dog", true="cat")]
    (failure,) = certificate(labelled, "int8").failures
    assert "the accuracy is 99.0%" in failure


def test_a_changed_label_is_excepted_only_where_the_two_are_almost_equal():
    def of(expected, answer, difference=0.005):
        return compare(Model(), np.array(expected), np.array(answer), path="a.jpg", difference=difference)

    assert of([0.502, 0.498], [0.499, 0.501]).tie
    assert of([0.504, 0.496], [0.499, 0.501]).changed
    assert not of([0.9, 0.1], [0.9, 0.1]).tie
    assert of([0.9, 0.1], [0.4, 0.6]).difference == pytest.approx(0.5)


def test_of_several_labels_each_that_differs_must_be_near_its_threshold():
    model = Model(loss=Loss("sigmoid", True), thresholds=(0.3, 0.6))

    def of(expected, answer):
        return compare(model, np.array(expected), np.array(answer), path="a.jpg", difference=0.005)

    assert of([0.9, 0.9], [0.9, 0.9]).label == "cat; dog"
    assert of([0.301, 0.9], [0.299, 0.9]).tie
    changed = of([0.301, 0.9], [0.299, 0.5])
    assert changed.changed and (changed.label, changed.exported) == ("cat; dog", "")


def test_it_says_how_far_which_labels_changed_and_how_accurate_both_are():
    labelled = [
        *images(8, 0.001, true="cat"),
        *images(1, 0.1, exported="dog", true="cat"),
        *images(1, true="dog"),
    ]
    made = certificate(labelled, "int8")
    assert made.photographs.to_dict() == {
        "images": 10,
        "labels_changed": 1,
        "largest_difference": 0.1,
        "percentile_95": pytest.approx(np.percentile([0.001] * 8 + [0.1, 0.0], 95), abs=1e-6),
        "labelled": 10,
        "accuracy": 0.9,
        "exported_accuracy": 0.8,
        "ties": 0,
        "changed": [{"path": "0.jpg", "difference": 0.1, "label": "cat", "exported": "dog", "true": "cat"}],
    }
    assert "0.jpg: cat became dog" in made.text() and "is not held" in made.text()
