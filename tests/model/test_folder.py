"""The model folder: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import operator
import shutil
import subprocess

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image
from tests.conftest import PLAIN

import regraft
from regraft.core.errors import RefusedFile, UnknownName, UsageError
from regraft.core.options import make
from regraft.model import calibration
from regraft.model import folder as folders
from regraft.model.model import Predictions, load
from regraft.network.trunk import Choice
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.train import train

CHOICE = Choice(**PLAIN)


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    return train(photos, folder, **PLAIN, views=0, preset="fast").model, folder


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained[1], tmp_path / "copy")


def resign(folder):
    """Write the checksums again with the standard tool, as a careful forger would."""
    names = sorted(path.name for path in folder.iterdir() if path.name != folders.SUMS)
    sums = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, text=True, check=True)
    (folder / folders.SUMS).write_text(sums.stdout)


def change(folder, **values):
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    resign(folder)


def test_a_loaded_model_gives_the_same_probabilities_bit_for_bit(trained):
    model, folder = trained
    features = np.random.default_rng(0).normal(size=(5, *model.trunk.output_shape)).astype(np.float32)
    loaded = load(folder, CHOICE)
    assert np.array_equal(model.probabilities(features), loaded.probabilities(features))
    assert loaded.classes == ("blue", "green", "red")
    assert loaded.trunk.digest == model.trunk.digest and loaded.trunk.choice == CHOICE
    assert loaded.images == model.images and len(loaded.images) == 36
    assert loaded.history.to_list() == model.history.to_list()


def test_a_model_names_no_engine_as_each_machine_that_opens_it_has_its_own(trained):
    model, folder = trained
    assert regraft.load(folder, **PLAIN).trunk.digest == model.trunk.digest
    other = load(folder, Choice("torch", "bfloat16"))
    assert other.trunk.choice == Choice("torch", "bfloat16") and other.trunk.digest != model.trunk.digest
    described = json.loads((folder / "model.json").read_text())["trunk"]
    assert not {"engine", "precision", "choice"} & set(described)


def test_an_engine_that_is_not_there_is_refused_when_a_model_is_opened(trained):
    with pytest.raises(UnknownName, match="openvino"):
        regraft.load(trained[1], engine="openvin")
    with pytest.raises(UsageError, match="--engine torch can compute in int8"):
        regraft.load(trained[1], engine="torch", precision="int8")


def test_the_checksums_are_those_of_the_standard_tool(trained):
    subprocess.run(["sha256sum", "--check", "--strict", folders.SUMS], cwd=trained[1], check=True, capture_output=True)


@pytest.mark.parametrize("name", folders.FILES)
def test_a_changed_byte_in_any_file_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(RefusedFile, match=f"{name} (was changed|is damaged)"):
        load(copy, CHOICE)


@pytest.mark.parametrize("name", [*folders.FILES[1:], folders.SUMS])
def test_a_missing_file_is_refused_as_cut_short(copy, name):
    (copy / name).unlink()
    with pytest.raises(RefusedFile, match=f"cut short: {name} is missing"):
        load(copy, CHOICE)


def test_a_truncated_file_is_refused_even_with_new_checksums(copy):
    path = copy / "network.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    resign(copy)
    with pytest.raises(RefusedFile, match="not a model that this regraft can open"):
        load(copy, CHOICE)


def test_a_later_format_is_refused_with_the_advice_to_update(copy):
    change(copy, format_version=99)
    with pytest.raises(RefusedFile, match=r"later regraft \(format 99; this one reads up to 6\).*Update"):
        load(copy, CHOICE)


@pytest.mark.parametrize(
    "values",
    [
        {"classes": ["a", "b"]},  # the head has three
        {"classes": None},
        {"classes": ["a", "a", "b"]},
        {"classes": [1, 2, 3]},
        {"format_version": -5},
        {"head": {"name": "os", "options": {}}},
        {"head": {"name": "linear", "options": {"colour": 3}}},
        {"trunk": {"architecture": "resnet18"}},
        {"trunk": None},
        {"history": [{"epoch": 1}]},
        {"options": 3},
        {"measures": []},
        {"versions": "all"},
        {"classes": ["a", "b", "\ud800"]},
    ],
)
def test_a_description_that_does_not_fit_its_weights_is_refused(copy, values):
    change(copy, **values)
    with pytest.raises(RefusedFile):
        load(copy, CHOICE)


@pytest.mark.parametrize(
    ("where", "values"),
    {
        "trunk.preprocess.size": [0, -1, 10**9, 10**400, 224.5, "224", True, None, [224]],
        "trunk.preprocess.crop_share": [0, 1e-9, 2.1, float("nan"), "0.9", True],
        "trunk.preprocess.background": [[0, 0, 256], [0, 0], "black", 0],
        "trunk.preprocess.mean": [[0, 0, float("nan")], [0, 0, 1e30], [0], None],
        "trunk.preprocess.std": [[1, 1, 0], [1, 1, -1], [1, 1, float("inf")], ["1", 1, 1]],
        "trunk.model_args": [{"in_chans": 4}, {"in_chans": 10**9}, {"width": 1e12}, {"a": {"b": [10**12]}}],
        "trunk.output_shape": [[0], [-1280], [1280.5], [10**9], [10**5, 10**5], ["1280"], 1280, [True]],
        "thresholds": [[0.5, 0.5, 7], [0.5], 3],
        "history.0.epoch": [-1, 1.5, "one", 10**12],
        "history.0.accuracy": [-0.1, 1.1, float("nan"), "high"],
        "options.seed": [1.5, 10**30, "x"],
        "options.batch_size": [1e200, float("inf")],
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_number_out_of_range_is_refused_though_its_checksum_is_right(copy, where, values):
    original = json.loads((copy / "model.json").read_text())
    for value in values:
        description = json.loads(json.dumps(original))
        *path, last = (int(name) if name.isdigit() else name for name in where.split("."))
        functools.reduce(operator.getitem, path, description)[last] = value
        change(copy, **description)
        with pytest.raises(RefusedFile) as caught:
            load(copy, CHOICE)
        assert str(last) in str(caught.value) or isinstance(value, dict | int | list), (value, caught.value)


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained", "pretrained_cfg"])
def test_a_description_that_would_have_timm_open_other_files_is_refused(copy, argument):
    trunk = json.loads((copy / "model.json").read_text())["trunk"]
    change(copy, trunk=trunk | {"model_args": {argument: "evil.pth"}})
    with pytest.raises(RefusedFile, match=argument):
        load(copy, CHOICE)


@pytest.mark.parametrize(
    "change_weights",
    [
        lambda weights: weights.pop("1.bias"),
        lambda weights: weights.update({"1.bias": weights["1.bias"][:2]}),
        lambda weights: weights.update({"1.weight": weights["1.weight"][:, 1:]}),
        lambda weights: weights.update({"1.weight": weights["1.weight"][:2], "1.bias": weights["1.bias"][:2]}),
        lambda weights: weights["1.weight"].__setitem__((0, 0), np.nan),
        lambda weights: weights["1.bias"].__setitem__(1, np.inf),
    ],
    ids=["missing", "too few", "other features", "other classes", "nan", "infinite"],
)
def test_a_head_that_does_not_fit_is_refused(copy, change_weights):
    weights = safetensors.numpy.load_file(copy / "head.safetensors")
    change_weights(weights)
    safetensors.numpy.save_file(weights, copy / "head.safetensors")
    resign(copy)
    with pytest.raises(RefusedFile):
        load(copy, CHOICE)


def test_tensors_of_another_network_are_refused_before_an_image_is_answered(trained, copy, photos, tmp_path):
    tensors = safetensors.numpy.load_file(copy / "network.safetensors")
    safetensors.numpy.save_file(dict(list(tensors.items())[1:]), copy / "network.safetensors")
    resign(copy)
    with pytest.raises(RefusedFile, match="1 tensors are missing"):
        regraft.predict(load(copy, CHOICE), photos / "red" / "000.png", store=tmp_path / "store")


# What it was measured by


def predicted(model, count=5, n_classes=3):
    drawn = np.random.default_rng(0).dirichlet(np.ones(n_classes), count)
    ids = tuple(hashlib.sha256(bytes([number % 4])).hexdigest() for number in range(count))  # two of one picture
    return dataclasses.replace(model, predictions=Predictions(ids, drawn))


def test_predictions_come_back_with_the_model_bit_for_bit(trained, tmp_path):
    model = predicted(trained[0])
    model.save(tmp_path / "model")
    again = load(tmp_path / "model", CHOICE).predictions
    assert again.ids == model.predictions.ids
    assert again.probabilities.dtype == np.float64
    np.testing.assert_array_equal(again.probabilities, model.predictions.probabilities)
    check = ["sha256sum", "--check", "--strict", folders.SUMS]
    listed = subprocess.run(check, cwd=tmp_path / "model", capture_output=True, text=True, check=True).stdout
    assert "predictions.safetensors: OK" in listed
    dataclasses.replace(model, predictions=None).save(tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model", CHOICE).predictions is None


@pytest.mark.parametrize("fault", ["changed", "missing", "unlisted", "classes", "rows", "range", "nan"])
def test_predictions_that_are_not_the_models_are_refused(trained, tmp_path, fault):
    path = tmp_path / "model" / folders.PREDICTIONS
    predicted(trained[0], n_classes=4 if fault == "classes" else 3).save(tmp_path / "model")
    tensors = safetensors.numpy.load_file(path)
    if fault == "changed":
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    elif fault == "missing":
        path.unlink()
    elif fault == "unlisted":
        lines = (tmp_path / "model" / folders.SUMS).read_text().splitlines()
        listed = [line for line in lines if folders.PREDICTIONS not in line]
        (tmp_path / "model" / folders.SUMS).write_text("\n".join(listed) + "\n")
    elif fault != "classes":
        change = {
            "rows": {"ids": tensors["ids"][1:]},
            "range": {"probabilities": 1 + tensors["probabilities"]},
            "nan": {"probabilities": np.nan * tensors["probabilities"]},
        }
        safetensors.numpy.save_file(tensors | change[fault], path)
        resign(tmp_path / "model")
    with pytest.raises(RefusedFile, match="predictions"):
        load(tmp_path / "model", CHOICE)


def test_what_the_probabilities_were_calibrated_by_comes_back_with_the_model(trained, tmp_path):
    model = predicted(trained[0])
    by = calibration.of_images(5, 1.25, np.linspace(0, 1, 30))
    kept = dataclasses.replace(model.predictions, calibrations=by)
    dataclasses.replace(model, predictions=kept, true_probabilities=np.linspace(0, 1, 30)).save(tmp_path / "model")
    again = load(tmp_path / "model", CHOICE)
    for one, other in zip(again.predictions.calibrations, by, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.true_probabilities, np.linspace(0, 1, 30))


@pytest.mark.parametrize(
    ("name", "tensor", "values"),
    [
        ("calibration", "true_probabilities", [0.5, 0.4]),
        ("calibration", "true_probabilities", [0.5, np.nan]),
        ("calibration", "true_probabilities", [[0.5]]),
        ("predictions", "temperatures", [0.0] * 5),
        ("predictions", "least", [[0.5]] * 5),
    ],
)
def test_what_is_calibrated_by_something_else_is_refused(trained, tmp_path, name, tensor, values):
    by = calibration.of_images(5, 1.25, None)
    model = predicted(trained[0])
    kept = dataclasses.replace(model.predictions, calibrations=by)
    dataclasses.replace(model, predictions=kept, true_probabilities=np.array([0.5])).save(tmp_path / "model")
    path = tmp_path / "model" / f"{name}.safetensors"
    safetensors.numpy.save_file(safetensors.numpy.load_file(path) | {tensor: np.array(values)}, path)
    resign(tmp_path / "model")
    with pytest.raises(RefusedFile, match=name):
        load(tmp_path / "model", CHOICE)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}', "[" * 100_000, '{"format": "regraft model"}'])
def test_another_model_json_is_refused(copy, text):
    (copy / "model.json").write_text(text)
    with pytest.raises(RefusedFile):
        load(copy, CHOICE)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(RefusedFile, match=r"not a regraft model: it has no model\.json"):
        load(tmp_path, CHOICE)
    with pytest.raises(RefusedFile, match="No model at"):
        load(tmp_path / "nowhere", CHOICE)


def test_saving_over_a_model_replaces_it_when_told_and_over_anything_else_is_refused(trained, tmp_path):
    model, _ = trained
    model.save(tmp_path / "model")
    before = (tmp_path / "model" / folders.SUMS).read_bytes()
    with pytest.raises(UsageError, match=r"already holds a model; nothing was written.*overwrite=True"):
        dataclasses.replace(model, temperature=2.0).save(tmp_path / "model")
    assert (tmp_path / "model" / folders.SUMS).read_bytes() == before
    model.save(tmp_path / "model", overwrite=True)
    assert load(tmp_path / "model", CHOICE).classes == model.classes
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(UsageError, match="already exists and is not a regraft model; nothing was written"):
        model.save(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "thesis"]


@pytest.mark.parametrize("name", ["thesis.txt", "notes.md"])
def test_a_folder_that_holds_something_else_besides_is_not_replaced(trained, tmp_path, name):
    model, _ = trained
    model.save(tmp_path / "model")
    (tmp_path / "model" / name).write_text("years of work")
    with pytest.raises(UsageError, match="is not a regraft model; nothing was written"):
        model.save(tmp_path / "model", overwrite=True)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "model.json").write_text('{"format": "layers-model"}')
    with pytest.raises(UsageError, match="is not a regraft model; nothing was written"):
        model.save(tmp_path / "web", overwrite=True)


def test_nothing_in_the_folder_is_a_pickle(trained):
    for path in trained[1].iterdir():
        assert not path.read_bytes().startswith((b"\x80", b"PK"))


def test_a_trained_tail_comes_back_with_the_model(photos, tmp_path):
    options = make(
        TrainOptions,
        dict(
            backbone="mobilenetv3_small_050",
            weights="random",
            size=32,
            cut="blocks.3",
            tail=True,
            tail_epochs=2,
            views=0,
            split="0.8/0.1/0.1",
            **PLAIN,
        ),
    )
    report = train(photos, tmp_path / "model", options=options)
    loaded = load(tmp_path / "model", CHOICE)
    again = regraft.evaluate(loaded, report.index, part="all")
    assert np.array_equal(again.probabilities, report.probabilities)


def test_a_picture_of_any_size_enters_a_loaded_model(trained, tmp_path):
    for number, size in enumerate([(1, 1), (3, 500), (700, 20)]):
        Image.new("RGB", size, (200, 40, 40)).save(tmp_path / f"{number}.png")
    assert [item.status for item in regraft.predict(load(trained[1], CHOICE), [tmp_path])] == ["ok"] * 3
