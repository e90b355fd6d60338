"""Several backbones in one model: each has its own shelf, one decoding serves all, and their features are joined."""

import io
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

import regraft
from regraft.cli import main
from regraft.core.errors import UnknownName, UsageError
from regraft.core.options import flat, make
from regraft.data.decode import decode
from regraft.features import worker
from regraft.features.store.store import Store
from regraft.pipeline import presets
from regraft.pipeline.options import TrainOptions
from regraft.training.cross_validation import cross_validate
from regraft.training.examples import Examples
from tests.conftest import PLAIN, write_photo

TWO = "test_resnet@64+test_efficientnet@48"
SMALL = {"backbone": TWO, "weights": "random", "views": 0, **PLAIN}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def trained(photos, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    return regraft.train(photos, folder, **SMALL, split="0.6/0.2/0.2", store=store), folder


def alone(index, store, name, size, **choices):
    features = regraft.extract(index, **{**SMALL, "backbone": name, "size": size, **choices}, store=store)
    return np.asarray(features)


# What is asked for


@pytest.mark.parametrize(
    ("choices", "reason"),
    [
        ({"tail": True, "cut": "layer3"}, "--tail is True"),
        ({"pool": "none", "cut": "layer3"}, "--pool is 'none'"),
        ({"cut": "input"}, "--cut is 'input'"),
        ({"weights": "some.safetensors"}, "--weights is 'some.safetensors'"),
        ({"backbone": "test_resnet+"}, "--backbone is 'test_resnet+'"),
        ({"backbone": "test_resnet@big"}, "--backbone is 'test_resnet@big'"),
        ({"backbone": "test_resnet@0"}, "--size is 0"),
        ({"cut": "pooled+"}, "--cut is 'pooled+'"),
    ],
)
def test_what_several_backbones_can_not_have_is_refused_before_anything_is_read(choices, reason, tmp_path):
    with pytest.raises(UsageError, match=reason.replace("+", r"\+")):
        regraft.train(tmp_path / "none", tmp_path / "model", **{**SMALL, **choices})


def test_each_name_must_be_a_backbone(tmp_path):
    with pytest.raises(UnknownName, match="test_resnot"):
        regraft.train(tmp_path / "none", tmp_path / "model", **{**SMALL, "backbone": "test_resnet+test_resnot"})


def test_a_size_behind_a_name_is_that_of_size(photos, store):
    index = regraft.read(photos)
    behind = regraft.extract(index, **{**SMALL, "backbone": "test_resnet@80"}, store=store)
    beside = regraft.extract(index, **{**SMALL, "backbone": "test_resnet", "size": 80}, store=store)
    assert behind.trunk.digest == beside.trunk.digest


# Features


def rooted(rows):
    return np.copysign(np.sqrt(np.abs(rows)), rows)


def test_joined_features_are_square_roots_divided_by_their_root_mean_square_over_the_training_part(photos, store):
    index = regraft.split(regraft.read(photos), split="0.5/0.25/0.25")
    joined = regraft.extract(index, **SMALL, store=store)
    train = np.array([row.part == "train" for row in joined.rows])
    each = [rooted(alone(index, store, name, size)) for name, size in (("test_resnet", 64), ("test_efficientnet", 48))]
    expected = np.concatenate([rows / np.sqrt(np.mean(np.square(rows[train]))) for rows in each], axis=1)
    np.testing.assert_allclose(np.asarray(joined), expected, rtol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(joined.part("test")), np.asarray(joined)[[r.part == "test" for r in joined.rows]]
    )


def test_no_rows_have_joined_features_of_their_width(photos, store):
    joined = regraft.extract(regraft.read(photos), **SMALL, store=store)
    assert joined[[]].shape == (0, *joined.shape[1:])


def test_the_layers_of_one_network_are_joined_as_well(photos, store):
    index = regraft.read(photos)
    choices = {**SMALL, "backbone": "test_resnet", "size": 64, "cut": "layer2+pooled"}
    each = [rooted(alone(index, store, "test_resnet", 64, cut=cut)) for cut in ("layer2", "pooled")]
    expected = np.concatenate([rows / np.sqrt(np.mean(np.square(rows))) for rows in each], axis=1)
    np.testing.assert_allclose(np.asarray(regraft.extract(index, **choices, store=store)), expected, rtol=1e-5)


def test_one_decoding_serves_all_and_nothing_known_is_computed_again(photos, tmp_path, monkeypatch):
    decoded, decode_once = [], worker.decoded
    monkeypatch.setattr(worker, "decoded", lambda data, *more: decoded.append(data) or decode_once(data, *more))
    index = regraft.read(photos)
    half = index.with_rows(index.rows[::2])
    alone(half, tmp_path, "test_resnet", 64)
    views = {"views": 2, "store": tmp_path}
    assert len(decoded) == len(half)
    regraft.extract(index, **SMALL | views)
    assert len(decoded) <= len(half) + len(index) + len(half)  # of one half a network lacks views alone
    assert sorted((shelf.images, shelf.views) for shelf in Store(tmp_path).info()) == [(36, 72), (36, 72)]
    decoded.clear()
    regraft.extract(index, **SMALL | views)
    assert not decoded


def test_from_nothing_each_image_is_decoded_once(photos, tmp_path, monkeypatch):
    decoded, decode_once = [], worker.decoded
    monkeypatch.setattr(worker, "decoded", lambda data, *more: decoded.append(data) or decode_once(data, *more))
    regraft.extract(regraft.read(photos), **SMALL | {"views": 1, "store": tmp_path})
    assert len(decoded) == 36


def test_a_network_sees_the_same_pixels_as_alone_where_the_scale_of_a_large_jpeg_hangs_on_its_size(tmp_path):
    for label, seed in (("a", 1), ("b", 2)):
        large = Image.open(write_photo(tmp_path / "drawn.png", (90, 120, 40), seed, size=400))
        content = io.BytesIO()
        large.save(content, "JPEG")
        (tmp_path / "photos" / label).mkdir(parents=True)
        (tmp_path / "photos" / label / "large.jpg").write_bytes(content.getvalue())
    assert {decode(content.getvalue(), 2 * side).shape[0] for side in (48, 160)} == {100, 400}
    index = regraft.read(tmp_path / "photos")
    sizes = {**SMALL, "backbone": "test_resnet@160+test_efficientnet@48"}
    joined = regraft.extract(index, **sizes, store=tmp_path / "joined")
    scales = joined.runner.scales
    each = [
        rooted(alone(index, tmp_path / name, name, size))
        for name, size in (("test_resnet", 160), ("test_efficientnet", 48))
    ]
    expected = np.concatenate([rows / np.float32(scale) for rows, scale in zip(each, scales, strict=True)], axis=1)
    np.testing.assert_array_equal(np.asarray(joined), expected)


def test_a_broken_image_is_broken_for_all_and_computed_for_none(photos, tmp_path):
    (tmp_path / "photos").mkdir()
    for path in photos.glob("*/00[0-3].png"):
        write_photo(tmp_path / "photos" / path.parent.name / path.name, (20, 90, 200), int(path.stem))
    broken = tmp_path / "photos" / "red" / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 no more")
    features = regraft.extract(regraft.read(tmp_path / "photos", conflicts="keep"), **SMALL, store=tmp_path / "store")
    assert [row.path for row in features.index.broken] == [row.path for row in features.index if "broken" in row.path]


# The model


def test_a_model_of_several_backbones_is_saved_opened_and_predicts_the_same(trained, photos, store, tmp_path):
    report, folder = trained
    assert report.accuracy > 0.9
    model = regraft.load(folder, **PLAIN)
    assert model.scales == report.model.scales and len(model.trunks) == 2
    inputs = sorted(photos.glob("*/*.png"))
    expected = report.model.predict_proba(inputs, store=store)
    np.testing.assert_array_equal(model.predict_proba(inputs, store=store), expected)
    (again := tmp_path / "again").mkdir()
    model.save(again)
    assert (again / "network.safetensors").read_bytes() == (folder / "network.safetensors").read_bytes()
    with pytest.raises(UsageError, match="joined here"):
        _ = model.trunk


def test_its_whole_module_takes_the_images_as_each_network_sees_them(trained, photos, store):
    import torch

    model = trained[0].model
    inputs = sorted(photos.glob("*/00[0-2].png"))
    pixels = [decode(path.read_bytes()) for path in inputs]
    images = [np.stack([trunk.preprocess(each) for each in pixels]) for trunk in model.trunks]
    with torch.no_grad():
        probabilities = model.module(*map(torch.from_numpy, images)).numpy()
    np.testing.assert_allclose(probabilities, model.predict_proba(inputs, store=store), atol=1e-5)


def test_evaluation_reads_the_store_and_the_same_run_again_fits_nothing(trained, photos, store, monkeypatch):
    report, folder = trained
    monkeypatch.setattr(worker, "decoded", lambda *arguments: pytest.fail("an image was decoded"))
    again = regraft.evaluate(regraft.load(folder, **PLAIN), photos, store=store)
    np.testing.assert_allclose(again.probabilities, report.probabilities, rtol=1e-6)
    before = (folder / "model.json").read_bytes()
    regraft.train(photos, folder, **SMALL, split="0.6/0.2/0.2", store=store)
    assert (folder / "model.json").read_bytes() == before
    assert "test_resnet + test_efficientnet" in report.html()


def test_an_mlp_and_fresh_views_take_joined_features(photos, store, tmp_path):
    choices = {"head": "mlp", "augment": "fresh", "epochs": 3, "split": "0.6/0.2/0.2"}
    report = regraft.train(photos, tmp_path / "model", **SMALL | choices | {"views": 1}, store=store)
    assert report.model.history.epochs == 3
    assert regraft.load(tmp_path / "model", **PLAIN).runner.output_shape == report.model.runner.output_shape


def test_compare_takes_them_as_one_candidate(photos, store):
    compared = regraft.compare(photos, backbones=f"test_resnet,{TWO}", weights="random", size=64, store=store, **PLAIN)
    widths = {candidate.backbone: candidate.width for candidate in compared.candidates}
    assert widths.keys() == {"test_resnet", TWO} and widths[TWO] > widths["test_resnet"]


def test_a_prediction_needs_no_torch_once_the_networks_are_converted(photos, store, tmp_path):
    pytest.importorskip("openvino")
    options = {**SMALL, "engine": "openvino"}
    regraft.train(photos, tmp_path / "model", **options, split="0.6/0.2/0.2", store=store)
    code = (
        "import sys, regraft; model = regraft.load(sys.argv[1], engine='openvino', precision='float32');"
        "print(model.predict(sys.argv[2], store=sys.argv[3])[0].label, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model"), str(photos / "red" / "000.png"), str(store)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["red", "False"]


@pytest.mark.slow
def test_it_is_exported_as_one_module_that_answers_as_the_model(trained, photos, tmp_path):
    pytest.importorskip("onnxruntime")
    exported = regraft.export(trained[0].model, tmp_path / "out", to="onnx", check=sorted(photos.glob("*/00*.png")))
    assert not exported.certificate.failures


# Presets


def test_a_recipe_holds_where_no_network_is_chosen_and_nowhere_else():
    made = make(TrainOptions, {})
    assert presets.resolved(None, made)[1].features.network.backbone == presets.RECIPES["balanced"]["backbone"]
    for preset, recipe in presets.RECIPES.items():
        resolved = flat(presets.resolved(None, make(TrainOptions, {"preset": preset, "head": "mlp"}))[1])
        assert resolved == {**flat(made), "preset": preset, "head": "mlp", **recipe}
    for choice in ({"cut": "blocks.5", "tail": True}, {"size": 96}, {"weights": "random"}, {"backbone": "resnet18"}):
        chosen = make(TrainOptions, choice)
        assert presets.resolved(None, chosen) == (None, chosen)


def test_best_takes_what_has_the_lowest_log_loss_in_the_training_part_alone(photos, store, monkeypatch):
    names = ("test_resnet@32", TWO, "test_efficientnet@48")
    monkeypatch.setattr(presets, "BEST", names)
    monkeypatch.setattr(presets, "OF_NETWORK", ())  # random weights, of which a user asks for none by a preset
    options = make(TrainOptions, {"preset": "best", **SMALL, "store": store})
    index, chosen = presets.resolved(photos, options)
    losses = {}
    for name in names:
        features = regraft.extract(index.train, **{**SMALL, "backbone": name}, store=store)
        labels = features.labels(index.classes)
        examples = Examples(np.asarray(features), labels, features.groups())
        losses[name] = sklearn.metrics.log_loss(labels, cross_validate(examples, 3)[0])
    assert chosen.features.network.backbone == min(losses, key=losses.get)
    assert index.test and chosen.split.split == "0.8/0.2"  # few images: what chooses is not what measures


def test_a_recipe_is_shown_as_a_command(capsys):
    assert main(["train", "--preset", "fast", "--show"]) == 0
    assert capsys.readouterr().out == "regraft train SOURCE -o MODEL --backbone efficientnet_lite0\n"
    assert main(["train", "--preset", "best", "--show"]) == 0
    printed = capsys.readouterr().out
    assert all(f"--backbone {name}\n" in printed for name in presets.BEST)
    assert main(["train"]) == 2
