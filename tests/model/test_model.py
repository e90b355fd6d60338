"""The model as one: without PyTorch it says what it says with it, and as a module too."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import PLAIN

import regraft
from regraft.data.decode import decode
from regraft.inference.engines import openvino
from regraft.network.trunk import Choice
from regraft.training import loop

SMALL = {"backbone": "test_efficientnet", "weights": "random", "size": 48, "cut": "blocks.1", "views": 0, **PLAIN}
KINDS = {
    "linear": {},
    "mlp": {"head": "mlp", "epochs": 3, "head_options": {"hidden": (8, 5)}},
    "sigmoid": {"loss": "sigmoid"},
    "prototype": {"head": "prototype"},
    "knn": {"head": "knn"},
    "tail": {"cut": "blocks.0", "tail": True, "tail_epochs": 1, "phases": "tail"},
}


@pytest.fixture(scope="module")
def models(photos, tmp_path_factory):
    """A model of each kind, trained once."""
    store, made = tmp_path_factory.mktemp("models"), {}

    def model(kind):
        if kind not in made:
            paths = sorted(path for path in photos.glob("*/*.png") if kind != "sigmoid" or "red" not in str(path))
            index = regraft.split(regraft.read(paths, [path.parent.name for path in paths]))
            choices = {**SMALL, **KINDS[kind]}
            features = regraft.extract(index, store=store, **{n: v for n, v in choices.items() if n not in FIT})
            made[kind] = regraft.fit(features, **{name: value for name, value in choices.items() if name in FIT})
        return made[kind]

    return model


FIT = {"head", "epochs", "head_options", "loss", "tail_epochs", "phases"}


def images(photos, model, count=12):
    paths = sorted(photos.glob("*/*.png"))[:count]
    return np.stack([model.trunk.preprocess(decode(path.read_bytes())) for path in paths])


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_are_those_of_the_torch_module(models, kind):
    model = models(kind)
    features = np.random.default_rng(0).normal(size=(600, *model.trunk.output_shape)).astype(np.float32)
    expected = model.loss.probabilities(loop.logits(model.trained_module, features) / model.temperature)
    probabilities = model.probabilities(features)
    assert (probabilities.dtype, probabilities.shape) == (np.float64, (600, len(model.classes)))
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_module_gives_images_the_probabilities_of_a_prediction(models, photos, kind):
    model = models(kind)
    inputs = images(photos, model)
    with torch.no_grad():
        probabilities = model.module(torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(probabilities, model.probabilities(model.runner(inputs)), atol=1e-5)
    paths = sorted(photos.glob("*/*.png"))[: len(inputs)]
    for row, prediction in zip(probabilities, regraft.predict(model, paths, top=3), strict=True):
        by_class = dict(prediction.ranked)
        np.testing.assert_allclose(row, [by_class[name] for name in model.classes], atol=1e-5)


def test_the_whole_module_is_in_eval_mode_and_its_frozen_part_has_no_gradient(models):
    module = models("tail").module
    assert not any(part.training for part in module.modules())
    module.train()
    assert not any(part.training for part in module.trunk.modules())
    assert not any(parameter.requires_grad for parameter in module.trunk.parameters())
    assert any(parameter.requires_grad for parameter in module.trained.parameters())


def test_the_head_as_a_module_draws_nothing_from_the_global_generator(models):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert isinstance(models("linear").head, torch.nn.Module)
    assert torch.equal(torch.rand(2), expected)


def test_no_features_have_no_probabilities(models):
    model = models("linear")
    assert model.probabilities(np.empty((0, *model.trunk.output_shape), np.float32)).shape == (0, 3)


def test_a_model_that_has_predicted_can_be_pickled(models, photos):
    model = models("linear")
    before = model.probabilities(model.runner(images(photos, model)))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.probabilities(again.runner(images(photos, model))), before)


PREDICT = """
import json, sys
from pathlib import Path
import regraft
model = regraft.load(sys.argv[1], engine="openvino", precision="float32")
predictions = regraft.predict(model, sorted(Path(sys.argv[2]).glob("*/*.png")), top=3, store=Path(sys.argv[3]))
print(json.dumps([prediction.to_dict() for prediction in predictions]))
print(json.dumps(sorted({"torch", "timm", "torchvision", "sklearn", "scipy", "matplotlib"} & set(sys.modules))))
"""


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("prototype", "knn")]


@pytest.mark.skipif(not openvino.precisions(), reason="OpenVINO is not installed")
@pytest.mark.parametrize("kind", ["linear", "mlp", *SLOW])
def test_a_converted_network_predicts_without_pytorch_what_it_does_with_it(models, photos, tmp_path, kind):
    model = models(kind)
    model.save(tmp_path / "model")
    whole = regraft.load(tmp_path / "model", engine="openvino", precision="float32")
    paths = sorted(photos.glob("*/*.png"))
    first = regraft.predict(whole, paths, top=3, store=tmp_path / "store")  # converts the network
    second = predict(tmp_path, photos)
    assert second == ([json.loads(json.dumps(prediction.to_dict())) for prediction in first], [])
    assert len(first) == 36
    inputs = images(photos, whole, 36)
    logits = loop.logits(whole.trained_module, whole.runner(inputs))
    expected = whole.loss.probabilities(logits / whole.temperature)
    for row, prediction in zip(expected, second[0], strict=True):
        assert prediction["label"] == whole.classes[row.argmax()]
        by_class = {answer["label"]: answer["probability"] for answer in prediction["top"]}
        np.testing.assert_allclose([by_class[name] for name in whole.classes], row, atol=1.5e-6)  # six digits


def predict(tmp_path: Path, photos: Path):
    command = [sys.executable, "-c", PREDICT, str(tmp_path / "model"), str(photos), str(tmp_path / "store")]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return tuple(map(json.loads, lines))


def test_the_trunk_runs_by_the_choice_that_the_model_was_opened_with(models, tmp_path):
    models("linear").save(tmp_path / "model")
    assert regraft.load(tmp_path / "model", **PLAIN).runner.trunk.choice == Choice("torch", "float32")
