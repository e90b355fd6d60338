"""The steps together: who chooses what, what is computed once, what is kept when a run ends early."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import safetensors.torch
import torch

import regraft
from regraft.core.errors import DataError, Diverged, UnknownName, UsageError
from regraft.core.options import make
from regraft.data import split as splitting
from regraft.data.split import SplitOptions
from regraft.features.augmentation import POLICIES
from regraft.features.store.store import Store
from regraft.inference import agreement
from regraft.inference.engines import openvino
from regraft.inference.runner import TrunkRunner
from regraft.network.tensors import to_torch
from regraft.pipeline import train as training
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.train import train
from regraft.training import checkpoint
from tests.conftest import PLAIN, write_photo, write_photos

SMALL = {"backbone": "mobilenetv3_small_050", "weights": "random", "size": 32, "views": 0, **PLAIN}
TRAIN = {**SMALL, "split": "0.8/0.1/0.1"}  # with few images `auto` would cross-validate


@pytest.fixture
def computed(monkeypatch):
    """Count the images that go through a trunk."""
    counts = []
    through = TrunkRunner.__call__

    def counted(runner, batch):
        counts.append(int(batch.any(axis=(1, 2, 3)).sum()))  # without the black ones that fill a batch up
        return through(runner, batch)

    monkeypatch.setattr(TrunkRunner, "__call__", counted)
    return counts


def test_the_python_way_of_the_readme_goes_from_a_folder_to_a_report(photos):
    index = regraft.split(regraft.read(photos), seed=0)
    features = regraft.extract(index, backbone="efficientnet_lite0", views=0)
    model = regraft.fit(features, head="linear")
    report = regraft.evaluate(model, index.test)
    assert report.accuracy == 1 and report.evaluation.n == len(index.test) == 3


def test_the_same_run_again_gives_the_same_numbers(photos, tmp_path):
    options = make(TrainOptions, {**TRAIN, "head": "mlp", "epochs": 3})
    first, second = (train(photos, tmp_path / name, options=options) for name in ("first", "second"))
    assert first.to_dict() == second.to_dict()
    assert (tmp_path / "first" / "head.safetensors").read_bytes() == (
        tmp_path / "second" / "head.safetensors"
    ).read_bytes()


def test_a_run_that_was_finished_is_not_computed_again_and_any_change_is(photos, tmp_path, monkeypatch):
    fits = []
    fit = training.fit_model
    monkeypatch.setattr(training, "fit_model", lambda *arguments, **named: fits.append(1) or fit(*arguments, **named))
    first = train(photos, tmp_path / "model", **TRAIN)
    again = train(photos, tmp_path / "model", **TRAIN)
    assert len(fits) == 1 and again.to_dict() == first.to_dict()
    assert np.array_equal(again.probabilities, first.probabilities)
    with pytest.raises(UsageError, match="--overwrite"):
        train(photos, tmp_path / "model", **TRAIN, seed=1)
    train(photos, tmp_path / "model", **TRAIN, seed=1, overwrite=True)
    assert len(fits) == 2
    shutil.copytree(photos, tmp_path / "photos")
    write_photo(tmp_path / "photos" / "red" / "new.png", (190, 50, 50), seed=99)
    train(tmp_path / "photos", tmp_path / "model", **TRAIN, seed=1, overwrite=True)
    assert len(fits) == 3
    (tmp_path / "model" / "head.safetensors").write_bytes(b"damaged")
    train(tmp_path / "photos", tmp_path / "model", **TRAIN, seed=1, overwrite=True)
    assert len(fits) == 4


def test_a_second_run_reads_one_more_image_costs_one_and_a_renamed_folder_none(tmp_path, computed):
    photos = write_photos(tmp_path / "photos", per_class=5)
    options = make(TrainOptions, {**TRAIN, "store": tmp_path / "store", "overwrite": True})
    train(photos, tmp_path / "model", options=options)
    assert sum(computed) == 15
    train(
        photos,
        tmp_path / "model",
        **{**TRAIN, "split": "0.6/0.2/0.2"},
        store=tmp_path / "store",
        seed=0,
        overwrite=True,
    )
    assert sum(computed) == 15
    write_photo(photos / "red" / "new.png", (190, 50, 50), seed=99)
    train(photos, tmp_path / "model", options=options)
    assert sum(computed) == 16
    train(photos.rename(tmp_path / "renamed"), tmp_path / "model", options=options)
    assert sum(computed) == 16


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_weights_written_to_a_file_give_equal_features_and_share_the_store(photos, tmp_path, computed, name):
    index = regraft.read(photos)
    features = regraft.extract(index, **SMALL, store=tmp_path / "store")
    write = torch.save if name.endswith("pth") else safetensors.torch.save_file
    write(to_torch(features.trunk.tensors()), tmp_path / name)
    before = sum(computed)
    fresh = regraft.extract(index, **SMALL | {"weights": str(tmp_path / name)}, store=tmp_path / "other")
    assert sum(computed) == before + 36
    assert np.array_equal(np.asarray(fresh), np.asarray(features))
    regraft.extract(index, **SMALL | {"weights": str(tmp_path / name)}, store=tmp_path / "store")
    assert sum(computed) == before + 36


def test_a_broken_image_is_left_out_under_the_limit_and_stops_the_run_over_it_before_its_views(tmp_path, caplog):
    photos = write_photos(tmp_path / "photos", per_class=5)
    (photos / "red" / "half.png").write_bytes((photos / "red" / "000.png").read_bytes()[:-900])
    with pytest.raises(DataError, match=r"1 of 16 images .* broken(.|\n)*red/half\.png"):
        train(photos, tmp_path / "model", **TRAIN, max_broken=0)
    assert not (tmp_path / "model").exists()
    caplog.clear()
    caplog.set_level("INFO", "regraft")
    store = tmp_path / "store"
    with pytest.raises(DataError, match="are broken"):
        train(photos, tmp_path / "model", **{**TRAIN, "views": 5, "store": store}, max_broken=0)
    assert not any(message.startswith("Left out, broken") for message in caplog.messages)
    train(photos, tmp_path / "model", **{**TRAIN, "views": 5, "store": store})
    assert [message.split(";")[0] for message in caplog.messages if message.startswith("Computing")] == [
        f"Computing {16 + 10 * 5} features",
        f"Computing {9 * 5} features",
    ]
    report = train(photos, tmp_path / "model2", **TRAIN)
    assert len(report.model.images) == 15
    assert report.to_dict()["left_out"][0]["path"] == "red/half.png"
    assert "1 broken" in report.text()


def test_given_parts_are_kept_and_the_last_held_out_part_never_chooses(tmp_path):
    for part in ("train", "validation"):
        write_photos(tmp_path / "photos" / part, per_class=6, seed=50 if part == "train" else 0)
    report = train(tmp_path / "photos", tmp_path / "model", **TRAIN, head="mlp", epochs=2)
    assert report.part == "validation" and report.evaluation.n == 18
    assert any("no test part" in note for note in report.notes)
    assert not any("helped to choose" in note for note in report.notes)


def test_images_that_are_new_to_the_model_are_not_passed_over_in_silence(photos, tmp_path):
    report = train(photos, tmp_path / "model", **TRAIN)
    mixed = shutil.copytree(photos, tmp_path / "mixed")
    write_photo(mixed / "red" / "new.png", (190, 50, 50), seed=99)
    again = regraft.evaluate(report.model, mixed)
    assert again.evaluation.n == 3 and any("1 images are new" in note for note in again.notes)


def test_a_source_with_a_training_part_alone_is_refused_before_the_work(photos, tmp_path, computed):
    shutil.copytree(photos, tmp_path / "photos" / "train")
    with pytest.raises(DataError, match="training part only"):
        train(tmp_path / "photos", tmp_path / "model", **TRAIN)
    assert computed == []


def test_the_share_of_broken_files_is_that_of_the_source_in_evaluation_too(tmp_path):
    photos = write_photos(tmp_path / "photos", per_class=10)
    (photos / "red" / "bad.png").write_bytes(b"\x89PNG nothing more")
    options = make(TrainOptions, {**TRAIN, "max_broken": 0.05})  # 1 of 31 is broken, and 3 are in the test part
    report = train(photos, tmp_path / "model", options=options)
    assert regraft.evaluate(report.model, photos, max_broken=0.05).evaluation.n == 3


def test_evaluating_stored_features_imports_neither_pytorch_nor_what_draws(photos, tmp_path):
    regraft.train(photos, tmp_path / "model", weights="random", size=64, views=0, head="mlp", epochs=1)
    script = "import sys, regraft; regraft.evaluate(regraft.load(sys.argv[1]), sys.argv[2]); print(*sys.modules)"
    command = [sys.executable, "-c", script, str(tmp_path / "model"), str(photos)]
    imported = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "numpy" in imported
    assert not imported & {"matplotlib", "jinja2"}
    if openvino.precisions():
        assert not imported & {"torch", "timm", "torchvision", "sklearn", "scipy"}


def test_fitting_twice_on_the_same_features_gives_the_same_model_twice(photos):
    features = regraft.extract(regraft.split(regraft.read(photos)), **SMALL, cut="blocks.2", tail=True)
    first, second = (regraft.fit(features, epochs=1) for _ in range(2))
    inputs = features[:8]
    assert np.array_equal(first.probabilities(inputs), second.probabilities(inputs))


def test_a_run_with_other_weights_under_the_same_path_is_another_run(photos, tmp_path):
    options = make(
        TrainOptions,
        dict(**TRAIN | {"weights": str(tmp_path / "weights.pth")}, cut="input", epochs=1, overwrite=True),
    )
    saved = []
    for seed in (0, 1):
        features = regraft.extract(regraft.read(photos), **SMALL, seed=seed, cut="input")
        torch.save(features.tail.module.state_dict(), tmp_path / "weights.pth")
        train(photos, tmp_path / "model", options=options)
        saved.append((tmp_path / "model" / "SHA256SUMS").read_text())
    assert saved[0] != saved[1]


def test_an_empty_folder_as_output_gets_the_last_good_weights_too(photos, tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(Diverged, match="The kept weights are in"):
        train(photos, tmp_path / "model", **TRAIN, head="mlp", optimizer="sgd", learning_rate=1e6)
    assert (tmp_path / "model" / "model.json").exists()


def test_a_model_names_no_folder_of_the_machine_it_was_made_on(photos, tmp_path):
    features = regraft.extract(regraft.read(photos), **SMALL)
    torch.save(to_torch(features.trunk.tensors()), tmp_path / "weights.pth")
    options = make(TrainOptions, dict(**TRAIN | {"weights": str(tmp_path / "weights.pth")}, store=tmp_path / "store"))
    train(photos, tmp_path / "model", options=options)
    assert str(tmp_path) not in (tmp_path / "model" / "model.json").read_text()


def test_copies_among_the_evaluated_images_are_told(photos, tmp_path):
    report = train(photos, tmp_path / "model", **TRAIN)
    paths = [photos / "red" / "000.png"] * 2 + [photos / "blue" / "000.png"]
    again = regraft.evaluate(report.model, regraft.read(paths, ["red", "red", "blue"]), part="all")
    assert "3 images show 2 pictures" in again.text()


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_validation_part_that_chose_says_so_when_it_is_evaluated(photos, tmp_path, head):
    report = train(photos, tmp_path / "model", **TRAIN, head=head, epochs=2)
    assert report.notes == ()
    again = regraft.evaluate(report.model, photos, part="validation")
    assert any("helped to choose" in note for note in again.notes)


def test_images_that_the_model_knows_keep_their_part_whatever_the_source_says(photos, tmp_path):
    report = train(photos, tmp_path / "model", **TRAIN)
    tested = {row.id for row in report.index}
    shutil.copytree(photos, tmp_path / "others" / "test")
    again = regraft.evaluate(report.model, tmp_path / "others")
    assert {row.id for row in again.index} == tested


def test_evaluation_measures_the_part_that_training_measured_though_copies_cross_the_given_parts(tmp_path):
    for part, seed in (("train", 0), ("validation", 50), ("test", 90)):
        write_photos(tmp_path / "photos" / part, per_class=4, seed=seed)
    shutil.copy(tmp_path / "photos" / "train" / "red" / "000.png", tmp_path / "photos" / "test" / "red" / "copy.png")
    report = train(tmp_path / "photos", tmp_path / "model", **TRAIN)
    again = regraft.evaluate(report.model, tmp_path / "photos")
    assert report.evaluation.n == again.evaluation.n == 13
    assert again.to_dict()["confusion"] == report.to_dict()["confusion"]


def test_a_source_of_new_images_is_evaluated_whole(photos, tmp_path):
    report = train(photos, tmp_path / "model", **TRAIN)
    new = write_photos(tmp_path / "new", per_class=2, seed=777)
    again = regraft.evaluate(report.model, new)
    assert (again.part, again.evaluation.n, again.notes) == ("all", 6, ())


def test_one_class_alone_is_refused(tmp_path):
    for number in range(6):
        write_photo(tmp_path / "photos" / "red" / f"{number}.png", (200, 40, 40), seed=number)
    with pytest.raises(DataError, match="one class only"):
        train(tmp_path / "photos", tmp_path / "model", **TRAIN)


def test_training_that_diverges_keeps_the_last_good_weights(photos, tmp_path):
    wild = make(TrainOptions, {**TRAIN, "head": "mlp", "optimizer": "sgd", "learning_rate": 1e6, "overwrite": True})
    with pytest.raises(Diverged, match="The kept weights are in"):
        train(photos, tmp_path / "model", options=wild)
    weights = regraft.load(tmp_path / "model").head_weights
    assert all(np.isfinite(array).all() for array in weights.values())
    train(photos, tmp_path / "good", **TRAIN)
    before = (tmp_path / "good" / "SHA256SUMS").read_text()
    with pytest.raises(Diverged, match="still has the earlier model"):
        train(photos, tmp_path / "good", options=wild)
    assert (tmp_path / "good" / "SHA256SUMS").read_text() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "model"]


@pytest.mark.parametrize("cut", ["input", "blocks.2"])
def test_the_network_above_a_cut_trains_while_what_is_below_stays_bit_equal(photos, tmp_path, cut):
    options = make(TrainOptions, {**TRAIN, "cut": cut, "tail": True, "epochs": 1})
    features = regraft.extract(regraft.split(regraft.read(photos)), **SMALL, cut=cut, tail=True)
    before = features.trunk.hash_tensors()
    untrained = {name: tensor.clone() for name, tensor in features.tail.module.state_dict().items()}
    model = regraft.fit(features, epochs=1)
    assert model.trunk.hash_tensors() == before
    trained = model.tail.module.state_dict()
    assert any(not np.array_equal(untrained[name], trained[name]) for name in untrained)
    report = train(photos, tmp_path / "model", options=options)
    assert report.model.trunk.hash_tensors() == before


def test_a_map_at_the_cut_enters_a_dense_head_whole_if_it_is_not_pooled(photos, tmp_path):
    report = train(photos, tmp_path / "model", **TRAIN, cut="blocks.2", pool="none", head="mlp", epochs=1)
    assert len(report.model.trunk.output_shape) == 3
    assert regraft.load(tmp_path / "model", **PLAIN).trunk.output_shape == report.model.trunk.output_shape


def test_the_files_of_the_user_are_not_written_to(photos, tmp_path):
    copied = shutil.copytree(photos, tmp_path / "photos")
    for path in copied.rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in copied.rglob("*.png")}
    report = train(copied, tmp_path / "model", **TRAIN)
    report.html()
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in copied.rglob("*.png")} == before
    assert len([*copied.rglob("*")]) == len([*photos.rglob("*")])


def test_the_report_shows_the_most_confident_mistakes_with_their_pictures(tmp_path):
    photos = write_photos(tmp_path / "photos", per_class=6)
    for number in range(4):  # red pictures under a blue label: mistakes to come
        write_photo(photos / "blue" / f"red{number}.png", (200, 40, 40), seed=500 + number)
    coarse = {"size": 96, "views": 0, "head_options": {"regularisation": 1e4}}  # it learns none of them by heart
    report = train(photos, tmp_path / "model", **PLAIN, **coarse)
    page = regraft.evaluate(report.model, photos, part="all").html()
    assert page.count("data:image/webp;base64,") >= 1
    assert "were trained on" in page


def test_an_output_that_is_something_else_is_refused_before_the_work(photos, tmp_path, computed):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="nothing was written"):
        train(photos, tmp_path, **TRAIN)
    assert computed == []


# Views


def test_few_images_have_views_by_themselves_in_the_training_part_alone(photos, tmp_path, caplog):
    caplog.set_level(logging.INFO, "regraft")
    index = regraft.split(regraft.read(photos), seed=0)
    features = regraft.extract(index, **SMALL | {"views": "auto"}, store=tmp_path / "store")
    assert len(features.part("train").views) == 16  # ten images a class: as many as there ever are
    assert "16 augmented views of each" in caplog.text and "--views 0" in caplog.text
    (shelf,) = Store(tmp_path / "store").info()
    assert (shelf.images, shelf.views) == (36, 16 * len(index.train))
    assert features.part("validation").views == features.part("test").views == ()


def test_many_images_have_none_by_themselves(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("regraft.features.augmentation.FEW", 10)
    index = regraft.split(regraft.read(photos), seed=0)
    features = regraft.extract(index, **SMALL | {"views": "auto"}, store=tmp_path / "store")
    assert features.part("train").views == () and features.part("train").fresh is None


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_head_learns_from_the_views_and_is_measured_on_the_images_as_they_are(photos, tmp_path, head):
    options = {"head": head, "epochs": 4}
    plain, viewed = (
        train(photos, tmp_path / f"model{views}", **TRAIN | {"views": views}, **options) for views in (0, 3)
    )
    assert plain.index == viewed.index
    assert not np.array_equal(plain.probabilities, viewed.probabilities)
    features = regraft.extract(viewed.index, **SMALL)
    assert np.array_equal(viewed.probabilities, viewed.model.probabilities(features))


def test_a_second_experiment_reads_no_image_again_whatever_the_views(photos, tmp_path, computed):
    options = {**TRAIN, "views": 2, "store": tmp_path / "store", "overwrite": True}
    report = train(photos, tmp_path / "model", **options)
    trained = sum(part == "train" for _, part in report.model.images.values())
    assert sum(computed) == 36 + 2 * trained
    train(photos, tmp_path / "model", **options, head="mlp", epochs=1)
    train(photos, tmp_path / "model", **{**options, "views": 1})
    assert sum(computed) == 36 + 2 * trained
    train(photos, tmp_path / "model", **options, augmentation="strong,rotation=40")
    assert sum(computed) == 36 + 4 * trained


def test_fresh_views_cost_the_training_part_again_in_every_epoch_and_nothing_is_stored(photos, tmp_path, computed):
    options = {**TRAIN, "views": 1, "augment": "fresh", "head": "mlp", "patience": None, "store": tmp_path / "store"}
    train(photos, tmp_path / "store1", **options, epochs=1)
    first = sum(computed)
    train(photos, tmp_path / "store4", **options, epochs=4)
    trained = len(regraft.split(regraft.read(photos), seed=0).train)
    assert first >= 36 + trained and sum(computed) - first >= 4 * trained
    (shelf,) = Store(tmp_path / "store").info()
    assert (shelf.images, shelf.views) == (36, 0)


def test_fresh_views_are_drawn_also_where_images_are_many(photos, monkeypatch):
    monkeypatch.setattr("regraft.features.augmentation.FEW", 1)
    features = regraft.extract(regraft.split(regraft.read(photos)), **SMALL | {"views": "auto"}, augment="fresh")
    assert features.part("train").fresh is not None


def test_fresh_views_make_the_same_run_the_same_numbers(photos, tmp_path):
    options = make(TrainOptions, dict(**TRAIN | {"views": 1}, augment="fresh", head="mlp", epochs=2))
    first, second = (train(photos, tmp_path / name, options=options) for name in ("first", "second"))
    assert np.array_equal(first.probabilities, second.probabilities)


def test_a_tail_trains_on_views_while_what_is_below_stays_bit_equal(photos, tmp_path):
    choices = {**SMALL, "cut": "blocks.2", "tail": True}
    features = regraft.extract(regraft.split(regraft.read(photos)), **{**choices, "views": 2})
    before, digest = features.trunk.hash_tensors(), features.trunk.digest
    model = regraft.fit(features, epochs=2)
    plain = regraft.fit(regraft.extract(features.index, **choices), epochs=2)
    assert model.trunk.hash_tensors() == before and model.trunk.digest == digest
    trained, other = (fitted.tail.module.state_dict() for fitted in (model, plain))
    assert any(not torch.equal(trained[name], other[name]) for name in trained)


def test_where_the_disk_has_no_room_a_tail_still_trains_to_the_same_end_but_for_rounding(photos, tmp_path, caplog):
    choices = {**SMALL, "cut": "blocks.2", "tail": True, "store": tmp_path / "store"}
    features = regraft.extract(regraft.split(regraft.read(photos)), **choices, store_limit=0)
    assert not features.stored and "computed again in every epoch" in caplog.text
    stored = regraft.extract(features.index, **choices)
    first, second = (regraft.fit(each, epochs=1, patience=None) for each in (features, stored))
    np.testing.assert_allclose(first.probabilities(stored), second.probabilities(stored), atol=0.05)


def test_the_views_that_the_limit_has_room_for_are_trained_on(photos, tmp_path, caplog):
    whole = regraft.extract(regraft.read(photos), **SMALL | {"views": 4}, store=tmp_path / "whole")
    (shelf,) = Store(tmp_path / "whole").info()
    assert (shelf.images, shelf.views, len(whole.views)) == (36, 144, 4)
    limit = 3.5e-3  # GB; the trunk takes 2.3 MB of it, the fingerprints 0.2
    options = make(TrainOptions, {**TRAIN, "views": 20, "store": tmp_path / "store", "store_limit": limit})
    assert train(photos, tmp_path / "model", options=options).accuracy > 0
    assert "of 20 views" in caplog.text
    (shelf,) = Store(tmp_path / "store").info()
    assert 0 < shelf.views < 20 * 30 and shelf.views % len(regraft.split(regraft.read(photos), seed=0).train) == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"views": -1}, "--views"),
        ({"views": 1001}, "--views"),
        ({"views": "many"}, "--views"),
        ({"augmentation": "stong"}, "strong"),
        ({"augmentation": "strong,rotate=4"}, "rotation"),
        ({"augment": "again"}, "--augment"),
        ({"store_limit": -1}, "--store-limit"),
        ({"engine": "openvin"}, "openvino"),
        ({"precision": "float16"}, "--precision"),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_when_they_are_made(wrong, named):
    with pytest.raises((UsageError, UnknownName), match=named):
        make(TrainOptions, wrong)


def test_policies_are_named_as_they_are_documented():
    assert {"light", "standard", "strong"} == set(POLICIES)


# Engines


def test_an_engine_that_disagrees_stops_the_run_by_cut_and_precision_and_nothing_is_stored(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setitem(agreement.LEAST_COSINE, "bfloat16", 1.01)
    monkeypatch.setattr("regraft.inference.engines.torch.fast_bfloat16", lambda: True)
    options = make(TrainOptions, dict(**TRAIN | {"precision": "bfloat16"}, cut="blocks.2", store=tmp_path / "store"))
    with pytest.raises(UsageError, match=r"cut at 'blocks\.2' .*bfloat16 on torch"):
        train(photos, tmp_path / "model", options=options)
    assert not (tmp_path / "model").exists()
    assert sum(shelf.images for shelf in Store(tmp_path / "store").info()) == 0


def test_each_precision_has_a_shelf_of_its_own(photos, tmp_path, computed, monkeypatch):
    monkeypatch.setattr("regraft.inference.engines.torch.fast_bfloat16", lambda: True)
    for precision in ("float32", "bfloat16", "bfloat16"):
        choices = {**SMALL, "weights": "builtin", "backbone": "efficientnet_lite0", "precision": precision}
        regraft.extract(regraft.read(photos), **choices, store=tmp_path / "store")
    assert [shelf.images for shelf in Store(tmp_path / "store").info()] == [36, 36]
    assert sum(computed) == 2 * 36


@pytest.mark.slow
def test_training_on_int8_features_is_measured_in_both_and_says_what_it_cost(photos, tmp_path):
    pytest.importorskip("nncf")
    if "int8" not in openvino.precisions():
        pytest.skip("OpenVINO is not installed")
    small = {"cut": "blocks.1", "size": 64, "views": 0, "split": "0.8/0.1/0.1"}
    options = make(TrainOptions, {**small, "precision": "int8", "store": tmp_path / "store"})
    report = train(photos, tmp_path / "model", options=options)
    (note,) = [note for note in report.notes if "int8" in note]
    assert "the model predicts in" in note and f"the same {report.evaluation.n} images is" in note
    assert report.model.trunk.choice.precision != "int8"
    assert len(Store(tmp_path / "store").info()) == 2
    loaded = regraft.load(tmp_path / "model")
    again = regraft.evaluate(loaded, photos, store=tmp_path / "store")
    np.testing.assert_array_equal(again.probabilities, report.probabilities)


STALLS = """
import json, sys
from regraft.training import checkpoint
from regraft.pipeline.train import train

checkpoint.SHARE = float("inf")  # after every epoch, however quick
saved = checkpoint.save
def stall(*arguments):
    saved(*arguments)
    print("epoch", flush=True)
    sys.stdin.read()
checkpoint.save = stall
train(sys.argv[1], sys.argv[2], **json.loads(sys.argv[3]))
"""


def test_training_killed_after_an_epoch_and_started_again_ends_as_the_run_that_was_not(photos, tmp_path, monkeypatch):
    choices = {**SMALL, "head": "mlp", "epochs": 4, "patience": None}
    command = [sys.executable, "-c", STALLS, str(photos), str(tmp_path / "model"), json.dumps(choices)]
    killed = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stdout.readline() == "epoch\n"
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "model").exists() and (tmp_path / ".model.checkpoint").exists()
    epochs, save = [], checkpoint.save
    monkeypatch.setattr(checkpoint, "SHARE", float("inf"))
    monkeypatch.setattr(checkpoint, "save", lambda *arguments: epochs.append(1) or save(*arguments))
    train(photos, tmp_path / "model", **choices)
    assert len(epochs) == 3
    train(photos, tmp_path / "whole", **choices)
    for name in ("head.safetensors", "network.safetensors", "images.csv"):
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / ".model.checkpoint").exists()


def test_few_images_are_cross_validated_as_by_hand_and_the_model_learns_from_all(photos, tmp_path):
    report = train(photos, tmp_path / "model", **SMALL)
    assert report.part == "cross-validation" and report.evaluation.n == 36
    assert "5-fold cross-validation" in report.text() and "cross-validation" in report.html()
    assert {part for _, part in report.model.images.values()} == {"train"}
    index = regraft.read(photos)
    fold, *_ = splitting.folds(index, SplitOptions())
    features = regraft.extract(fold, **SMALL)
    fitted = regraft.fit(features.with_index(fold.where(lambda row: row.part == "train")))
    held = [number for number, row in enumerate(index.used) if row.path in {row.path for row in fold.test}]
    np.testing.assert_allclose(fitted.probabilities(features.part("test")), report.probabilities[held], atol=1e-6)
    whole = regraft.fit(regraft.extract(index, **SMALL))
    assert np.array_equal(whole.head_weights["1.weight"], report.model.head_weights["1.weight"])
    again = train(photos, tmp_path / "model", **SMALL)
    assert np.array_equal(again.probabilities, report.probabilities)


def test_a_trial_on_a_few_images_of_each_class_is_measured_on_the_whole_test_part(photos, tmp_path):
    report = train(photos, tmp_path / "model", **SMALL, per_class=3)
    assert report.part == "test" and report.evaluation.n == 3
    assert Counter(report.model.images.values()) == {
        (label, part): count
        for label in ("blue", "green", "red")
        for part, count in {"train": 3, "validation": 1, "test": 1}.items()
    }


def test_balancing_tells_what_it_did_to_each_class(photos, tmp_path):
    report = train(photos, tmp_path / "model", **TRAIN, balance="weights")
    (note,) = (note for note in report.notes if "recall" in note)
    assert note == (
        "recall with --balance weights (without): blue 100.0 (100.0) %, green 100.0 (100.0) %, red 100.0 (100.0) %"
    )


# Going on from a model


def test_going_on_from_a_model_takes_its_network_head_and_parts_over(photos, tmp_path):
    own = {**TRAIN, "head": "mlp", "head_options": {"hidden": 8}, "learning_rate": 1e-2, "patience": None}
    first = train(photos, tmp_path / "first", **own, epochs=3).model
    more = {name: TRAIN[name] for name in ("engine", "precision")}  # what is not the model's
    options = make(TrainOptions, dict(**more, epochs=4, batch_size=8, learning_rate=1e-3, continue_=tmp_path / "first"))
    report = train(photos, tmp_path / "more", options=options)
    second = report.model
    assert second.images == first.images and second.trunk.digest == first.trunk.digest
    assert (second.head_name, dict(second.head_options)["hidden"]) == ("mlp", 8)
    assert np.array_equal(second.head_weights["0.mean"], first.head_weights["0.mean"])
    assert (second.options["views"], second.options["patience"], second.options["batch_size"]) == (0, None, 8)
    rows = second.history.part("train")
    assert second.history.rows[: len(first.history.rows)] == first.history.rows
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5, 6, 7] and rows[3].loss < rows[0].loss
    assert second.history.best_epoch > 3
    assert regraft.load(tmp_path / "more").options["continue_"] == "first"


def test_going_on_from_a_model_with_a_new_photograph_holds_out_what_was_held_out(tmp_path):
    folder = write_photos(tmp_path / "photos")
    first = train(folder, tmp_path / "first", **TRAIN, head="mlp", epochs=1).model
    write_photo(folder / "red" / "new.png", (190, 50, 50), seed=99)
    more = make(TrainOptions, {**TRAIN, "epochs": 1, "continue_": tmp_path / "first"})
    second = train(folder, tmp_path / "second", options=more).model
    assert len(second.images) == 37 and first.images.items() <= second.images.items()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            {"backbone": "resnet18"},
            "--backbone is 'resnet18', and the model to continue from has 'mobilenetv3_small_050'",
        ),
        ({"size": 64}, "--size"),
        ({"head_options": {"hidden": 9}}, "--head-options"),
    ],
)
def test_going_on_from_a_model_with_another_network_or_head_is_refused(photos, tmp_path, changed, named):
    own = {**TRAIN, "head": "mlp", "head_options": {"hidden": 8}, "epochs": 1}
    train(photos, tmp_path / "first", **own)
    with pytest.raises(UsageError, match=named):
        train(photos, tmp_path / "second", **{**own, **changed}, continue_=tmp_path / "first")
    assert not (tmp_path / "second").exists()


def test_what_was_solved_can_not_be_gone_on_from_nor_what_held_nothing_out(photos, tmp_path):
    train(photos, tmp_path / "linear", **TRAIN)
    with pytest.raises(UsageError, match=r"linear head alone.*solved.*--cut and --tail"):
        train(photos, tmp_path / "again", **TRAIN, continue_=tmp_path / "linear")
    train(photos, tmp_path / "folds", **SMALL, head="mlp", epochs=1)
    with pytest.raises(DataError, match="was trained on all of its images"):
        train(photos, tmp_path / "again", **TRAIN, continue_=tmp_path / "folds")
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "red").rename(tmp_path / "photos" / "crimson")
    with pytest.raises(UsageError, match=r"The classes .* crimson.*Train a new model"):
        train(tmp_path / "photos", tmp_path / "again", **TRAIN, continue_=tmp_path / "folds")
