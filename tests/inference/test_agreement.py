"""Which engine runs, and the check that its features agree with PyTorch's in float32."""

import ctypes
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from regraft.core.errors import RefusedFile, UnknownName, UsageError
from regraft.inference import agreement, engines
from regraft.inference.agreement import choose
from regraft.inference.engines import openvino
from regraft.inference.engines import torch as plain
from regraft.inference.options import EngineOptions
from regraft.network import catalog
from regraft.network.frozen import Frozen
from regraft.network.lazy_module import LazyModule
from regraft.network.preprocess import Preprocess
from regraft.network.trunk import Choice, Recipe, Trunk

SIZE = 32


def trunk_of(body):
    """A trunk on the engine and in the precision that the tests choose."""
    frozen = Frozen(body, Preprocess(size=SIZE), ())
    recipe = Recipe(
        architecture="test_resnet",
        model_args={},
        cut="layer3",
        pool="mean",
        preprocess=Preprocess(size=SIZE),
        weights={},
    )
    return Trunk(recipe=recipe, choice=None, output_shape=(96,), frozen=LazyModule.of(frozen, "body"))


@pytest.fixture(scope="module")
def trunk():
    return trunk_of(catalog.build("test_resnet", seed=3))


@pytest.fixture(scope="module")
def module(trunk):
    return trunk.module


def images(count=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


# Which


@pytest.fixture
def machine(monkeypatch):
    """Set what the engines can do here, and whether there is a GPU."""

    def set_up(gpu=False, **able):
        monkeypatch.setattr(plain, "has_gpu", lambda: gpu)
        for name, precisions in able.items():
            monkeypatch.setattr(getattr(engines, name), "precisions", lambda precisions=precisions: precisions)

    return set_up


@pytest.mark.parametrize(
    ("gpu", "able_openvino", "asked", "answer"),
    [
        (False, ["bfloat16", "float32", "int8"], {}, ("openvino", "bfloat16")),
        (False, ["float32", "int8"], {}, ("openvino", "float32")),  # never int8 by itself
        (False, [], {}, ("torch", "float32")),  # OpenVINO is not installed
        (True, ["bfloat16", "float32", "int8"], {}, ("torch", "float32")),
        (False, ["bfloat16", "float32", "int8"], {"engine": "torch"}, ("torch", "float32")),
        (False, ["bfloat16", "float32", "int8"], {"precision": "float32"}, ("openvino", "float32")),
        (False, ["bfloat16", "float32", "int8"], {"precision": "int8"}, ("openvino", "int8")),
        (True, ["bfloat16", "float32", "int8"], {"precision": "int8"}, ("openvino", "int8")),  # who can, does
        (True, ["float32", "int8"], {"engine": "openvino"}, ("openvino", "float32")),
    ],
)
def test_auto_is_the_engine_that_suits_the_machine_in_its_best_precision(machine, gpu, able_openvino, asked, answer):
    machine(gpu, openvino=able_openvino, torch=["float32"])
    assert choose(EngineOptions(**asked))[:2] == answer


def test_only_what_auto_chose_is_tentative_and_float32_needs_no_substitute(machine):
    machine(openvino=["bfloat16", "float32", "int8"], torch=["float32"])
    asked = [{}, *({"precision": precision} for precision in ("bfloat16", "float32", "int8")), {"engine": "torch"}]
    assert [choose(EngineOptions(**each)).tentative for each in asked] == [True, False, False, False, False]


def test_without_a_driver_of_a_gpu_pytorch_is_not_imported_to_look_for_one():
    if not openvino.precisions() or plain.has_gpu():
        pytest.skip("needs OpenVINO, and no GPU")
    script = (
        "import sys; from regraft.inference.agreement import choose;"
        "from regraft.inference.options import EngineOptions;"
        "print(choose(EngineOptions()).engine, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "openvino False\n"


def test_where_there_is_a_driver_pytorch_says_whether_there_is_a_gpu(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    for answer in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda answer=answer: answer)
        assert plain.has_gpu() is answer or sys.platform == "darwin"


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"engine": "torch", "precision": "int8"}, "--engine torch"),
        ({"engine": "openvino"}, "openvino: not installed"),
        ({"precision": "bfloat16"}, "No engine here"),
    ],
)
def test_what_this_machine_can_not_do_is_refused_with_what_it_can(machine, asked, named):
    machine(openvino=[], torch=["float32"])
    with pytest.raises(UsageError, match=named) as refused:
        choose(EngineOptions(**asked))
    assert "torch: float32." in str(refused.value)


def test_names_that_there_are_not_are_refused_with_near_ones():
    with pytest.raises(UnknownName, match=r"--engine.*openvino"):
        EngineOptions(engine="openvivo")
    with pytest.raises(UnknownName, match=r"--precision.*bfloat16"):
        EngineOptions(precision="bfloat")


def test_bfloat16_is_only_where_the_processor_has_its_products(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for capabilities, fast in [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx512_f": True, "avx2": True}, False),
        ({}, False),
    ]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda present=capabilities: present, raising=False)
        assert plain.precisions() == (["bfloat16", "float32"] if fast else ["float32"])


# The proof


class Wrong:
    """An engine that is off: its features are those of PyTorch, turned round where `wrong` says so."""

    batch = 3

    def __init__(self, module, wrong):
        self.module, self.wrong = module, wrong

    def __call__(self, images):
        assert len(images) == self.batch
        features = plain.run(self.module, torch.from_numpy(images))
        return self.wrong(features)


@pytest.fixture
def off(monkeypatch):
    """Have the engine `torch` give wrong features."""

    def set_up(wrong):
        monkeypatch.setattr(plain, "build", lambda load, *others: Wrong(load(), wrong))

    return set_up


def started(trunk, folder, precision="bfloat16", pixels=None, engine="torch"):
    """Start the engine, and return how many images it asked for, each time."""
    asked = []

    def sample(count):
        asked.append(count)
        return (images() if pixels is None else pixels)[:count]

    agreement.start(trunk.on(Choice(engine, precision)), folder, sample)
    return asked


def one_is_off(features):
    turned = features.copy()
    turned[-1] = np.roll(turned[-1], 1)
    return turned


def not_numbers(features):
    return np.full_like(features, np.nan)


@pytest.mark.parametrize("wrong", [lambda features: -features, np.zeros_like, one_is_off, not_numbers])
def test_an_engine_that_disagrees_is_refused_by_the_cut_the_precision_and_the_way_out(trunk, tmp_path, off, wrong):
    off(wrong)
    with pytest.raises(UsageError, match=r"cut at 'layer3' .*bfloat16 on torch.*--precision float32") as refused:
        started(trunk, tmp_path)
    assert str(agreement.LEAST_COSINE["bfloat16"]) in str(refused.value)
    assert list(tmp_path.iterdir()) == []  # and is asked again the next time
    off(lambda features: features)
    assert started(trunk, tmp_path) == [agreement.CHECKED]


def test_the_bound_of_each_precision_is_its_own(trunk, tmp_path, off, monkeypatch):
    noise = np.random.default_rng(0)
    off(lambda features: features + 0.1 * np.linalg.norm(features, axis=1, keepdims=True) * unit(noise, features.shape))
    started(trunk, tmp_path)  # cosines about 0.995
    monkeypatch.setitem(agreement.LEAST_COSINE, "bfloat16", 0.9999)
    with pytest.raises(UsageError, match=r"expected at least 0\.9999"):
        started(trunk, tmp_path / "again")


def unit(generator, shape):
    drawn = generator.normal(size=shape).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_a_proof_is_asked_for_once_and_again_for_another_version(trunk, tmp_path, monkeypatch):
    assert started(trunk, tmp_path) == [agreement.CHECKED]
    assert started(trunk, tmp_path) == []
    monkeypatch.setattr(plain, "version", lambda: "99")
    assert started(trunk, tmp_path) == [agreement.CHECKED]
    assert started(trunk, tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"yes"', json.dumps({"precision": "bfloat16"}).encode()])
def test_a_proof_that_is_damaged_proves_nothing(trunk, tmp_path, content):
    (tmp_path / agreement.PROOF).write_bytes(content)
    assert started(trunk, tmp_path) == [agreement.CHECKED]
    assert started(trunk, tmp_path) == []


def test_what_pytorch_says_in_float32_needs_no_proof(trunk, tmp_path):
    assert started(trunk, tmp_path, "float32") == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing refuses this user")
def test_a_proof_that_can_not_be_kept_is_made_each_time(trunk, tmp_path):
    tmp_path.chmod(0o500)
    assert started(trunk, tmp_path) == [agreement.CHECKED]
    assert started(trunk, tmp_path) == [agreement.CHECKED]


def test_a_proof_on_few_images_is_not_kept(trunk, tmp_path):
    assert started(trunk, tmp_path, pixels=images(1)) == [agreement.CHECKED]
    assert started(trunk, tmp_path) == [agreement.CHECKED]
    assert started(trunk, tmp_path) == []


def test_no_image_proves_nothing_and_refuses_nothing_either(trunk, tmp_path):
    assert started(trunk, tmp_path, pixels=images(0)) == [agreement.CHECKED]
    assert started(trunk, tmp_path) == [agreement.CHECKED]


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_weights_that_give_no_numbers_are_refused_by_an_engine_that_hides_it_too(tmp_path, name):
    body = catalog.build("test_resnet", seed=3)
    body.get_parameter("layer2.0.conv1.weight").data.fill_(np.nan)
    if name == "openvino" and not openvino.precisions():
        pytest.skip("OpenVINO is not installed")
    broken = trunk_of(body)
    with pytest.raises(RefusedFile, match="NaN or infinity"):
        started(broken, tmp_path, "float32" if name == "openvino" else "bfloat16", engine=name)


def test_the_last_outcome_is_kept_for_this_engine_precision_version_and_bound_alone(trunk, tmp_path, monkeypatch):
    choice = Choice("torch", "bfloat16", tentative=True)
    assert agreement.outcome(tmp_path, choice) is None
    agreement.refuse(tmp_path, choice, "It says something else.")
    assert agreement.outcome(tmp_path, choice) == "It says something else."
    assert agreement.outcome(tmp_path, Choice("torch", "float32")) is None
    with monkeypatch.context() as patch:
        patch.setattr(plain, "version", lambda: "99")
        assert agreement.outcome(tmp_path, choice) is None
    with monkeypatch.context() as patch:
        patch.setitem(agreement.LEAST_COSINE, "bfloat16", 0.9)
        assert agreement.outcome(tmp_path, choice) is None
    assert started(trunk, tmp_path) == [agreement.CHECKED]
    assert agreement.outcome(tmp_path, choice) == ""
    (tmp_path / agreement.PROOF).write_bytes(b"[]")
    assert agreement.outcome(tmp_path, choice) is None


def test_a_network_is_handed_over_once_and_never_over_another(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    agreement.hand_over(first, second)
    assert not second.exists()
    for content in ("one", "two"):
        (first / "network").mkdir(parents=True)
        (first / "network" / "network.xml").write_text(content)
        agreement.hand_over(first, second)
        assert list(first.iterdir()) == []
    assert (second / "network" / "network.xml").read_text() == "one"


def test_a_model_must_give_the_images_that_it_is_confident_of_the_same_labels(trunk, tmp_path, off):
    longest = np.linalg.norm(plain.run(trunk.module, torch.from_numpy(images())), axis=1).max()

    def start(confidence):
        def probabilities_of(features):
            first = np.where(np.linalg.norm(features, axis=1) > 2 * longest, confidence, 1 - confidence)
            return np.stack([first, 1 - first], axis=1)

        choice = Choice("torch", "bfloat16")
        agreement.start(trunk.on(choice), tmp_path, lambda count: images()[:count], probabilities_of)

    off(lambda features: 100 * features)  # every cosine is 1
    with pytest.raises(
        UsageError, match=r"gives 16 of 16 images another label in bfloat16 on torch.*--precision float32"
    ):
        start(confidence=0.9)
    start(confidence=0.55)  # it is of two minds itself


def test_a_kept_network_that_was_changed_is_converted_and_proven_again(trunk, tmp_path):
    if not openvino.precisions():
        pytest.skip("OpenVINO is not installed")
    assert started(trunk, tmp_path, "float32", engine="openvino") == [agreement.CHECKED]
    assert started(trunk, tmp_path, "float32", engine="openvino") == []
    weights = tmp_path / "network" / "network.bin"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # a lower bit of some number's exponent
    assert started(trunk, tmp_path, "float32", engine="openvino") == [agreement.CHECKED]
    assert weights.read_bytes() == content


# Any number of images


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 9])
def test_any_number_of_images_is_run_in_full_batches_in_order(module, count):
    inputs = images(9)[:count]
    features = agreement.run(Wrong(module, lambda features: features), inputs, (96,))
    assert (features.shape, features.dtype) == ((count, 96), np.float32)
    if count:
        np.testing.assert_allclose(features, plain.run(module, torch.from_numpy(inputs)), rtol=1e-4, atol=1e-5)


def test_a_row_is_the_same_bit_for_bit_whatever_goes_with_it(module):
    inputs = images(9)
    whole = agreement.run(Wrong(module, lambda features: features), inputs, (96,))
    for rows in ([0], [5, 1], [8, 7, 6, 5], [2, 2, 2]):
        again = agreement.run(Wrong(module, lambda features: features), inputs[rows], (96,))
        np.testing.assert_array_equal(again, whole[rows])


def test_features_of_another_shape_than_expected_are_refused(module):
    with pytest.raises(RefusedFile, match=r"shape \(96,\); expected \(95,\)"):
        agreement.run(Wrong(module, lambda features: features), images(9), (95,))


def test_cosines_are_those_of_the_angle():
    first = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 0], [-2, 0]], np.float32)
    second = np.array([[3, 0], [0, 5], [1, 0], [0, 0], [1, 0], [1, 0]], np.float32)
    answer = [1, 0, np.cos(np.pi / 4), 1, 0, -1]
    np.testing.assert_allclose(agreement.cosines(first, second), answer, atol=1e-12)
    maps = np.random.default_rng(0).normal(size=(4, 2, 3, 5))
    flat = [float(np.corrcoef(row.ravel(), row.ravel())[0, 1]) for row in maps]
    np.testing.assert_allclose(agreement.cosines(maps, 2 * maps), flat)
