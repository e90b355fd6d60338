"""What every format must hold, in each of its precisions; and what is refused, with nothing written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tests.conftest import PLAIN, write_photo, write_photos
from tests.exports.browsers import web_runtime
from torch import nn

import regraft
from regraft import cli
from regraft.core import plugins
from regraft.core.errors import DataError, RefusedFile, UsageError
from regraft.data.decode import decode
from regraft.exports import formats
from regraft.exports.made_images import made_images

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, "views": 0, **PLAIN}
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}  # else OpenVINO may resize in bfloat16
EACH = [
    pytest.param(
        name,
        precision,
        id=f"{name}-{precision}",
        marks=[] if (name, precision) == ("onnx", "float32") else pytest.mark.slow,
    )
    for name in plugins.names(formats)
    for precision in plugins.load(formats, name).PRECISIONS
    if name != "web" or precision == "float32"  # its model is that of onnx
]


def needed(name):
    """Return the options that a format can't do without; skip where a part of it is not on this machine."""
    for module in plugins.load(formats, name).MODULES:
        pytest.importorskip(module, reason=f"--to {name} needs {module}")
    return {"runtime": web_runtime()} if name == "web" else {}


@pytest.fixture(scope="module")
def model(photos, tmp_path_factory):
    return regraft.train(photos, tmp_path_factory.mktemp("export") / "model", **SMALL).model


@pytest.fixture(scope="module")
def checked(photos, tmp_path_factory):
    """The photographs of the training, six new ones, and one that has two labels."""
    folder = tmp_path_factory.mktemp("check") / "photos"
    shutil.copytree(photos, folder)
    for path in sorted(write_photos(folder.parent / "new", per_class=2, seed=500).glob("*/*.png")):
        shutil.copy(path, folder / path.parent.name / f"new{path.name}")
    for label in ("red", "blue"):
        write_photo(folder / label / "both.png", (120, 50, 120), seed=900)
    return folder


@pytest.fixture(scope="module")
def folder_of(model, photos, checked, tmp_path_factory):
    """Return the folder of an export, written once for all tests."""
    made = {}

    def folder_of(name, precision="float32"):
        needs = needed(name)
        if (name, precision) not in made:
            folder = tmp_path_factory.mktemp("exported") / f"{name}-{precision}"
            made[name, precision] = regraft.export(
                model, folder, to=name, precision=precision, check=checked, calibrate=photos, **needs
            )
        return made[name, precision]

    return folder_of


@pytest.mark.parametrize(("name", "precision"), EACH)
def test_an_export_gives_what_the_model_gives(folder_of, model, photos, name, precision):
    export = folder_of(name, precision)
    run = plugins.load(formats, name).load(export.folder)
    limit = {"float32": 0.005, "float16": 0.02, "int8": 0.2}[precision]
    for path in sorted(photos.glob("*/00[0-3].png")):
        probabilities = run(decode(path.read_bytes()))
        assert np.abs(probabilities - model.predict_proba(path)[0]).max() <= limit
        assert model.classes[probabilities.argmax()] == path.parent.name
    figures = export.certificate.photographs.to_dict()
    assert (figures["images"], figures["labelled"]) == (44, 6), "not those trained on, nor that in conflict"


@pytest.mark.parametrize(("name", "precision"), EACH)
def test_its_folder_says_what_it_is_with_checksums(folder_of, model, name, precision):
    folder = folder_of(name, precision).folder
    about = json.loads((folder / "export.json").read_text("utf-8"))
    assert (about["format"], about["precision"], about["classes"]) == (name, precision, ["blue", "green", "red"])
    assert [backbone["preprocess"] for backbone in about["backbones"]] == [model.trunk.preprocess.to_dict()]
    assert (folder / "labels.txt").read_text("utf-8").splitlines() == about["classes"]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"export.json", *about["files"]}
    for file, digest in about["files"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest
    certificate = json.loads((folder / "CERTIFICATE.json").read_text("utf-8"))
    assert certificate["passed"] and certificate["made"]["images"] >= 20
    assert all(about["files"][file] == digest for file, digest in certificate["sha256"].items())
    assert "probabilities" in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize(("name", "precision"), EACH)
def test_no_path_of_this_machine_is_in_an_export(folder_of, name, precision):
    folder = folder_of(name, precision).folder
    for path in folder.rglob("*"):
        if path.is_file():
            assert b"site-packages" not in path.read_bytes() and str(folder.parent).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    "name", ["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "torch"))]
)
def test_the_example_of_a_folder_names_what_regraft_names_and_needs_neither_regraft_nor_timm(
    folder_of, model, tmp_path, name
):
    folder = folder_of(name).folder
    kinds = [(kind, data) for kind, data in made_images() if "CMYK" not in kind and "4096" not in kind]
    for number, (_, data) in enumerate(kinds):
        (tmp_path / f"{number:02}").write_bytes(data)
    paths = sorted(tmp_path.iterdir())
    absent = ["regraft", "timm", *(["torch"] if name != "torch" else [])]
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent})); del sys.argv[0]; runpy.run_path(sys.argv[0])"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", program, folder / "example.py", *paths]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for (kind, data), line in zip(kinds, lines, strict=True):
        probabilities = model.predict_proba(data)[0]
        label, share = line.split("  ")[1].rsplit(" ", 2)[:2]
        assert label == model.classes[probabilities.argmax()], kind
        assert float(share) == pytest.approx(100 * probabilities.max(), abs=0.6), kind


def test_the_result_is_the_certificate_as_a_page_and_as_json(folder_of, tmp_path):
    export = folder_of("onnx")
    export.save(tmp_path / "export.html")
    export.save(tmp_path / "export.json")
    data = json.loads((tmp_path / "export.json").read_text("utf-8"))
    assert data["certificate"]["photographs"]["images"] == 44 and data["sizes"]["model.onnx"] > 1e6
    page = (tmp_path / "export.html").read_text("utf-8")
    assert "Export to onnx" in page and "is held" in page
    assert repr(export).startswith("<Export: onnx in float32")


def test_onnx_passes_the_full_check_and_tells_its_classes(folder_of):
    folder = folder_of("onnx").folder
    import onnx

    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import if not entry.domain] == [("", 18)]
    (image,), (probabilities,) = model.graph.input, model.graph.output
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == [1, "height", "width", 3]
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in probabilities.type.tensor_type.shape.dim] == [1, 3]
    properties = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert properties["classes"] == ["blue", "green", "red"] and properties["backbones"][0]["preprocess"]["size"] == 64


def test_onnx_runs_in_openvino_too(folder_of, model, photos):
    from regraft.inference.engines.openvino import import_openvino

    network = import_openvino().Core().compile_model(folder_of("onnx").folder / "model.onnx", "CPU", FLOAT32)
    path = photos / "red" / "001.png"
    answer = network([decode(path.read_bytes())[None]])[0][0]
    assert np.abs(answer - model.predict_proba(path)[0]).max() <= 0.005


@pytest.mark.slow
def test_float16_halves_the_weights(folder_of):
    sizes = [
        (folder_of("onnx", precision).folder / "model.onnx").stat().st_size for precision in ("float32", "float16")
    ]
    assert sizes[1] < 0.6 * sizes[0]


@pytest.mark.slow
def test_joined_backbones_each_have_their_own_preprocessing(photos, tmp_path):
    needed("onnx")
    names = "test_resnet@64+test_efficientnet@96"
    joined = regraft.train(photos, tmp_path / "model", **{**SMALL, "backbone": names, "size": None}).model
    export = regraft.export(joined, tmp_path / "out", to="onnx", check=photos)
    about = json.loads((export.folder / "export.json").read_text("utf-8"))
    assert [backbone["preprocess"]["size"] for backbone in about["backbones"]] == [64, 96]
    assert export.certificate.to_dict()["photographs"]["images"] == 36


# What is refused


def test_an_export_that_gives_something_else_is_refused_and_nothing_is_written(model, tmp_path):
    needed("onnx")
    huge = {name: tensor * 1e6 for name, tensor in model.head_weights.items()}
    with pytest.raises(RefusedFile, match=r"(?s)Nothing was written.*made 1 x 1: nan.*finer --precision"):
        regraft.export(dataclasses.replace(model, head_weights=huge), tmp_path / "out", to="onnx", precision="float16")
    assert list(tmp_path.iterdir()) == []


class Changing(nn.Module):
    """A network whose graph depends on the values that it is given."""

    def forward(self, images):
        means = images.mean((2, 3))
        return means if means.sum() > 0 else -means


def test_a_network_that_no_graph_can_hold_is_refused_in_one_line(photos, tmp_path):
    own = {"backbone": Changing(), "preprocess": {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}}
    trained = regraft.train(photos, tmp_path / "model", **own, views=0, **PLAIN).model
    with pytest.raises(UsageError, match=r"^This network can't be converted to torch .*Nothing was written"):
        regraft.export(trained, tmp_path / "out", to="torch")
    assert not (tmp_path / "out").exists()


FOREIGN = {
    "notes.txt": "mine",
    "model.json": "{}",
    "export.json": '{"made_by": "somebody", "files": {}}',
    "deep/export.json": "[" * 100_000,
    "odd/export.json": '{"made_by": "regraft", "files": 7}',
}


@pytest.mark.parametrize("file", FOREIGN)
def test_a_folder_of_something_else_is_never_replaced(model, tmp_path, file):
    needed("onnx")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(FOREIGN[file])
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is not an export"):
            regraft.export(model, (tmp_path / file).parent, to="onnx", overwrite=overwrite)
    assert (tmp_path / file).read_text() == FOREIGN[file]


def test_a_foreign_file_in_an_earlier_export_is_never_deleted(folder_of, model, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folder_of("onnx").folder, out)
    with pytest.raises(UsageError, match="Add --overwrite"):
        regraft.export(model, out, to="onnx")
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not an export"):
        regraft.export(model, out, to="onnx", overwrite=True)
    assert (out / "mine.txt").exists()


def test_int8_without_images_to_calibrate_on_is_refused(model, tmp_path):
    needed("onnx")
    with pytest.raises(UsageError, match="name some with --calibrate"):
        regraft.export(model, tmp_path / "out", to="onnx", precision="int8")
    with pytest.raises(UsageError, match="can't have --precision int8; it has float32"):
        regraft.export(model, tmp_path / "out", to="torch", precision="int8")
    with pytest.raises(UsageError, match="--runtime FOLDER"):
        regraft.export(model, tmp_path / "out", to="web")
    with pytest.raises(UsageError, match="is not onnxruntime-web"):
        regraft.export(model, tmp_path / "out", to="web", runtime=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_the_words_is_said_first(model, tmp_path):
    with pytest.raises(UsageError, match=r"No value of --to 'onx'\. Did you mean 'onnx'"):
        regraft.export(model, tmp_path / "out", to="onx")
    with pytest.raises(UsageError, match="'int4'"):
        regraft.export(model, tmp_path / "out", precision="int4")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_folder_and_prints_the_certificate(model, folder_of, photos, tmp_path, capsys):
    model.save(tmp_path / "model")
    bag, out = tmp_path / "bag", tmp_path / "out"
    bag.mkdir()
    whole = (photos / "red" / "000.png").read_bytes()
    (bag / "half.png").write_bytes(whole[: len(whole) // 2])
    words = ["export", str(tmp_path / "model"), "-o", str(out), "--to", "onnx", "--check", str(bag)]
    shutil.copytree(folder_of("onnx").folder, out)
    assert cli.main(words) == 2
    assert "Add --overwrite" in capsys.readouterr().err
    (bag / "a.png").write_bytes(whole)
    assert cli.main([*words, "--overwrite", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["certificate"]["photographs"]["images"] == 1
    assert "Left out, broken" in output.err and "half.png" in output.err


def test_without_an_image_that_can_be_read_nothing_is_written(model, photos, tmp_path):
    needed("onnx")
    whole = (photos / "red" / "000.png").read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"such as .*half\.png, can be read"):
        regraft.export(model, tmp_path / "out", to="onnx", check=tmp_path / "half.png")
    assert [path.name for path in tmp_path.iterdir()] == ["half.png"]
