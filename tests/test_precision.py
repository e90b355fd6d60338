"""A precision that "auto" chose and in which the features differ from float32's: that takes its place, everywhere."""

import copy
import functools
import json
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import regraft
from regraft import cli
from regraft.core.errors import UsageError
from regraft.data.decode import decode
from regraft.data.index import Index
from regraft.features.extract import extract, stream
from regraft.features.store.store import Store
from regraft.inference import agreement as engine
from regraft.inference.engines import openvino
from regraft.inference.options import EngineOptions
from regraft.inference.runner import Runner
from regraft.network import catalog
from regraft.network.build import build, build_with_tail
from regraft.network.options import NetworkOptions, TailOptions
from regraft.network.trunk import Choice
from regraft.network.workaround_torchvision_nms import import_timm
from tests.features.memory import cut_short, pictures, row

LOST = 1000.0  # between 512 and 1024 bfloat16 knows every fourth number, float32 every 16,384th part of one
SIZE = 64
FLOAT32 = Choice("torch", "float32")


@pytest.fixture(scope="session")
def lossy(tmp_path_factory):
    """A folder of weights whose MLPs add a large number and take it away again, on which bfloat16 loses the rest."""
    network = catalog.build("test_vit", seed=3)
    for block in network.blocks:
        first, second = block.mlp.fc1, block.mlp.fc2
        for weight in (first.weight, second.weight):
            weight.data *= 8  # else little of an MLP comes through
        first.bias.data += LOST
        second.bias.data -= (LOST * second.weight.data.double().sum(1)).float()
    return weights_folder(tmp_path_factory.mktemp("weights") / "lossy", "test_vit", network)


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A folder of weights whose features in bfloat16 agree with those in float32."""
    return weights_folder(
        tmp_path_factory.mktemp("weights") / "sound", "test_resnet", catalog.build("test_resnet", seed=3)
    )


def weights_folder(path, architecture, network):
    path.mkdir()
    save_file(network.state_dict(), path / "model.safetensors")
    config = import_timm().models.get_pretrained_cfg(architecture).to_dict()
    described = {"architecture": architecture, "num_classes": 0, "pretrained_cfg": config}
    (path / "config.json").write_text(json.dumps(described))
    return str(path)


@pytest.fixture
def fast(monkeypatch):
    """Say whether this machine multiplies bfloat16 fast."""

    def set_up(answer):
        monkeypatch.setattr("regraft.inference.engines.torch.fast_bfloat16", lambda: answer)

    set_up(True)
    return set_up


@pytest.fixture
def checks(monkeypatch):
    """The precisions in which an engine was checked."""
    made, check = [], engine._check
    monkeypatch.setattr(
        engine,
        "_check",
        lambda engine, trunk, *rest: made.append(trunk.choice.precision) or check(engine, trunk, *rest),
    )
    return made


@pytest.fixture(autouse=True)
def logged(caplog):
    caplog.set_level(logging.DEBUG, "regraft")
    return caplog


@functools.cache
def built_once(weights):
    return build(NetworkOptions(weights=weights, size=SIZE), FLOAT32)


def runner(weights, **choices):
    """Return a runner, as if its trunk were built with these choices."""
    return Runner(built_once(weights).on(engine.choose(EngineOptions(**{"engine": "torch", **choices}))))


def in_double_precision(trunk, rows):
    """The features of the rows' images, normalised by hand, in double precision."""
    preprocess, module = trunk.preprocess, trunk.module
    pixels = np.stack([preprocess(decode(each.location.read())) for each in rows])
    mean, std = (np.array(values) for values in (preprocess.mean, preprocess.std))
    images = torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2))
    with torch.no_grad():
        features = copy.deepcopy(module.body).double()(images)
    return features.mean(module.axes).numpy() if module.axes else features.numpy()


def is_right(features, trunk, rows):
    np.testing.assert_allclose(features, in_double_precision(trunk, rows), rtol=0.01, atol=0.01)


def refusals(logged):
    return [each.getMessage() for each in logged.records if "It is computed in float32." in each.getMessage()]


def computed(store):
    """Return for each shelf how many images it holds."""
    return sorted(shelf.images for shelf in store.info())


# Features


def test_where_bfloat16_says_something_else_auto_computes_in_float32_and_says_so_once(
    lossy, fast, checks, logged, tmp_path
):
    store, rows = Store(tmp_path), pictures(20)
    features = extract(Index(tuple(rows)), runner(lossy), store)
    is_right(features[:], features.trunk, rows)
    assert features.trunk.choice == FLOAT32
    (line,) = refusals(logged)
    assert "test_vit cut at 'pooled'" in line and "least cosine is" in line and "expected at least 0.98" in line
    assert checks == ["bfloat16"] and computed(store) == [0, 20]


def test_a_second_run_neither_checks_nor_computes_again(lossy, fast, checks, logged, tmp_path):
    first = extract(Index(tuple(pictures(20))), runner(lossy), Store(tmp_path))
    again = extract(Index(tuple(pictures(20))), runner(lossy), Store(tmp_path))
    more = extract(Index(tuple(pictures(22))), runner(lossy), Store(tmp_path))
    np.testing.assert_array_equal(again, first)
    assert checks == ["bfloat16"] and computed(Store(tmp_path)) == [0, 22]
    assert more.trunk.choice == FLOAT32 and len(set(refusals(logged))) == 1


def test_bfloat16_by_name_is_refused_before_and_after_auto_has_taken_float32(lossy, fast, tmp_path):
    index, store = Index(tuple(pictures(20))), Store(tmp_path)
    for _ in range(2):
        with pytest.raises(UsageError, match="--precision float32"):
            extract(index, runner(lossy, precision="bfloat16"), store)
        extract(index, runner(lossy), store)


def test_where_bfloat16_says_the_same_auto_stays_with_it(sound, fast, checks, logged, tmp_path):
    for precision in ("auto", "auto", "bfloat16"):
        features = extract(Index(tuple(pictures(20))), runner(sound, precision=precision), Store(tmp_path))
        assert features.trunk.choice[:2] == ("torch", "bfloat16")
    assert checks == ["bfloat16"] and refusals(logged) == [] and computed(Store(tmp_path)) == [20]


def test_openvino_converts_the_network_once_for_both_precisions(lossy, checks, tmp_path, monkeypatch):
    if "bfloat16" not in openvino.precisions():
        pytest.skip("OpenVINO has no bfloat16 on this machine")
    made, convert = [], openvino._convert
    monkeypatch.setattr(openvino, "_convert", lambda *arguments: made.append(1) or convert(*arguments))
    rows = pictures(20)
    for _ in range(2):
        features = extract(Index(tuple(rows)), runner(lossy, engine="openvino"), Store(tmp_path))
    is_right(features[:], features.trunk, rows)
    assert features.trunk.choice == Choice("openvino", "float32")
    assert made == [1] and checks == ["bfloat16", "float32"]


def test_broken_images_alone_settle_nothing(lossy, fast, checks, tmp_path):
    settling, store = runner(lossy), Store(tmp_path)
    broken, rows = [row(str(at), cut_short(at)) for at in range(3)], pictures(3)
    list(stream(Index(tuple(broken)), settling, store))
    assert (settling.trunk.choice.precision, checks) == ("bfloat16", [])
    ((_, features),) = stream(Index(tuple(rows)), settling, store)
    is_right(features, settling.trunk, rows)
    assert (settling.trunk.choice.precision, checks) == ("float32", ["bfloat16"])


def test_an_outcome_that_can_not_be_kept_is_found_again_by_each_process(lossy, fast, checks, tmp_path):
    (tmp_path / runner(lossy).trunk.digest / engine.PROOF).mkdir(parents=True)  # no file can take its place
    rows = pictures(20)
    for _ in range(2):
        one = runner(lossy)
        for _ in range(2):
            is_right(extract(Index(tuple(rows)), one, Store(tmp_path))[:], one.trunk, rows)
    assert checks == ["bfloat16", "bfloat16"]


def test_maps_that_have_no_room_are_settled_before_they_are_read(lossy, fast, tmp_path):
    options = NetworkOptions(weights=lossy, size=SIZE, cut="blocks.4")
    trunk, _ = build_with_tail(options, engine.choose(EngineOptions(engine="torch")), TailOptions(tail=True))
    rows = pictures(6)
    features = extract(Index(tuple(rows)), Runner(trunk), Store(tmp_path), limit=0)
    assert (features.stored, features.trunk.choice) == (False, FLOAT32)
    is_right(features[:], trunk, rows)


def test_several_threads_may_settle_at_once(lossy, fast, checks, tmp_path):
    shared, rows = runner(lossy), pictures(8)

    def features(each):
        return np.concatenate([features for _, features in stream(Index((each,)), shared, Store(tmp_path))])

    with ThreadPoolExecutor(4) as pool:
        is_right(np.concatenate(list(pool.map(features, rows))), shared.trunk, rows)
    assert checks == ["bfloat16"]


# Models


def test_a_model_that_gives_images_other_labels_settles_it_too(sound, fast, logged, tmp_path):
    rows = pictures(16)
    exact = in_double_precision(runner(sound).trunk, rows)

    def probabilities_of(features):
        same = np.isclose(features, exact, rtol=1e-4, atol=1e-5).all(axis=1)
        return np.stack([same, ~same], axis=1).astype(float)

    settling = Runner(runner(sound).trunk, probabilities_of)
    list(stream(Index(tuple(rows)), settling, Store(tmp_path)))
    assert settling.trunk.choice == FLOAT32 and "gives 16 of 16 images another label" in refusals(logged)[0]


TRAIN = {"engine": "torch", "size": SIZE, "views": 0, "split": "0.8/0.1/0.1"}


@pytest.mark.parametrize("network", [{}, {"cut": "blocks.4", "tail": True, "epochs": 1, "head": "mlp"}], ids=str)
def test_a_training_goes_the_whole_way_and_its_model_predicts_alike_on_other_machines(
    lossy, fast, photos, checks, tmp_path, network
):
    choices = {**TRAIN, **network, "weights": lossy, "store": tmp_path / "store"}
    report = regraft.train(photos, tmp_path / "model", **choices)
    assert report.model.trunk.choice == FLOAT32 and checks == ["bfloat16"]
    again = regraft.train(photos, tmp_path / "model", **choices)
    assert again.to_dict() == report.to_dict() and checks == ["bfloat16"]
    expected = None
    for fast_here in (False, True):
        fast(fast_here)
        loaded = regraft.load(tmp_path / "model", engine="torch")
        rows = regraft.predict(loaded, [photos / "red"], top=3, store=tmp_path / f"elsewhere {fast_here}")
        assert loaded.runner.trunk.choice.precision == "float32"
        ranked = [dict(each.ranked) for each in rows]
        assert (expected or ranked) == ranked
        expected = ranked
    assert checks == ["bfloat16", "bfloat16"]


def test_a_model_can_be_gone_on_from_where_auto_means_another_precision(lossy, fast, photos, tmp_path):
    choices = {**TRAIN, "weights": lossy, "cut": "blocks.4", "tail": True, "epochs": 1, "head": "mlp"}
    fast(False)
    regraft.train(photos, tmp_path / "first", **choices, store=tmp_path / "slow")
    fast(True)
    more = {**TRAIN, "epochs": 1, "continue_": tmp_path / "first", "store": tmp_path / "fast"}
    assert regraft.train(photos, tmp_path / "second", **more).model.trunk.choice == FLOAT32


@pytest.mark.slow
def test_int8_says_in_which_precision_its_model_predicts(lossy, photos, tmp_path):
    pytest.importorskip("nncf")
    if not {"bfloat16", "int8"} <= set(openvino.precisions()):
        pytest.skip("OpenVINO has no bfloat16 on this machine")
    choices = {**TRAIN, "engine": "openvino", "precision": "int8", "weights": lossy, "store": tmp_path / "store"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(engine.LEAST_COSINE, "int8", -1)  # the subject is what comes after
        report = regraft.train(photos, tmp_path / "model", **choices)
    (note,) = [note for note in report.notes if "int8" in note]
    assert "the model predicts in float32" in note


def test_of_several_backbones_one_takes_float32_and_the_others_do_not(lossy, sound, fast, photos, logged, tmp_path):
    comparison = regraft.compare(photos, backbones=f"{lossy},{sound}", engine="torch", size=SIZE, store=tmp_path)
    assert len(comparison.candidates) == 2
    assert {line.split()[3] for line in refusals(logged)} == {"test_vit"}
    assert computed(Store(tmp_path)) == [0, 36, 36]


def test_the_command_line_says_it_in_a_line_and_trains(lossy, fast, photos, tmp_path, capsys):
    words = ["--weights", lossy, "--size", str(SIZE), "--engine", "torch", "--views", "0"]
    command = ["train", str(photos), "-o", str(tmp_path / "model"), "--store", str(tmp_path / "store"), *words]
    for times in (1, 0):  # when it is found out
        assert cli.main(command) == 0
        printed = capsys.readouterr().err
        assert printed.count("is computed in float32: bfloat16 is faster and not precise enough for it.") == times
        assert "cosine" not in printed
    assert cli.main([*command, "-v"]) == 0
    assert "least cosine is" in capsys.readouterr().err
    assert cli.main([*command, "--precision", "bfloat16"]) == 2
    assert "Use --precision float32" in capsys.readouterr().err
