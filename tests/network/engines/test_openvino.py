"""What OpenVINO alone has to hold: what it converted is kept, and it reports to nobody."""

import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from regraft.core.errors import StoreError, UsageError
from regraft.network import catalog
from regraft.network.engines import openvino as plugin
from regraft.network.preprocess import Preprocess
from regraft.network.trunk import Frozen

pytest.importorskip("openvino")

SIZE = 64


def module(seed=3):
    return Frozen(catalog.build("test_resnet", seed=seed), Preprocess(size=SIZE), ())


def squares(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def build(folder, precision="float32", calibration=squares, seed=3):
    return plugin.build(module(seed), SIZE, precision, folder, calibration)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with the network, converted once, and what it said then of some squares."""
    folder = tmp_path_factory.mktemp("first")
    return folder, build(folder)(squares(plugin.BATCH))


@pytest.fixture
def conversions(monkeypatch):
    """The networks that are converted."""
    made = []
    convert = plugin._convert
    monkeypatch.setattr(plugin, "_convert", lambda *arguments: made.append(1) or convert(*arguments))
    return made


def test_a_second_start_converts_nothing_and_says_the_same(first, conversions):
    folder, said = first
    np.testing.assert_array_equal(build(folder)(squares(plugin.BATCH)), said)
    assert conversions == []


@pytest.mark.parametrize("name", ["network.xml", "network.bin"])
@pytest.mark.parametrize("how", ["cut short", "empty", "missing"])
def test_a_kept_network_that_is_damaged_is_converted_anew_and_kept_again(first, tmp_path, conversions, name, how):
    folder, said = first
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / plugin.CONVERTED / name
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else whole[: len(whole) // 2])
    np.testing.assert_array_equal(build(tmp_path)(squares(plugin.BATCH)), said)
    np.testing.assert_array_equal(build(tmp_path)(squares(plugin.BATCH)), said)
    assert len(conversions) == 1


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that refuses what is written."""

    def refuse(network, path, **choices):
        raise RuntimeError("Exception from src/core:\nCan't open file for writing: No space left on device")

    monkeypatch.setattr("openvino.save_model", refuse)


def test_a_network_that_can_not_be_kept_is_used_all_the_same(tmp_path, full_disk, conversions):
    assert np.isfinite(build(tmp_path)(squares(plugin.BATCH))).all()
    assert list(tmp_path.iterdir()) == []  # nothing half written
    assert len(conversions) == 1


def test_a_network_that_can_not_be_converted_is_refused_with_what_works(tmp_path, monkeypatch):
    def fail(*arguments, **choices):
        raise RuntimeError("Summary:\nNo conversion rule found for operations: aten::strange")

    monkeypatch.setattr("openvino.convert_model", fail)
    with pytest.raises(UsageError, match=r"aten::strange.*--engine torch"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


# int8


def test_int8_is_calibrated_once_on_the_images_given_and_is_the_same_ever_after(tmp_path):
    pytest.importorskip("nncf")
    asked = []

    def calibration(count):
        asked.append(count)
        return squares(12)

    first = build(tmp_path, "int8", calibration)(squares(plugin.BATCH))
    again = build(tmp_path, "int8", calibration)(squares(plugin.BATCH))
    assert asked == [plugin.CALIBRATION] and plugin.CALIBRATION >= 100
    np.testing.assert_array_equal(again, first)


def test_int8_must_be_kept_as_another_calibration_would_give_other_features(tmp_path, full_disk):
    pytest.importorskip("nncf")
    with pytest.raises(StoreError, match="No space left on device"):
        build(tmp_path, "int8", lambda count: squares(12))


def test_int8_without_images_to_calibrate_on_is_refused(tmp_path):
    pytest.importorskip("nncf")
    with pytest.raises(UsageError, match="real images"):
        build(tmp_path, "int8", lambda count: squares(0))


def test_int8_without_nncf_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"pip install 'regraft\[int8\]'"):
        build(tmp_path, "int8")


def test_without_openvino_there_is_nothing_that_it_can_do(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert plugin.precisions() == []


# It reports to nobody

SILENT = """
import socket, sys, threading

def refuse(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        print("asked for", event, arguments, flush=True)
    if event == "socket.__new__" and arguments[1] != socket.AF_UNIX:
        print("opened", arguments[1], flush=True)

sys.addaudithook(refuse)
from pathlib import Path
import numpy as np
from regraft.network.agreement import choose
from regraft.network.options import EngineOptions
from regraft.features.options import FeatureOptions
from regraft.core.options import make
from regraft.pipeline.extract import build_trunk as build

options = make(FeatureOptions, dict(
    backbone="test_resnet", weights="random", size=64, engine="openvino", precision=sys.argv[2]
))
squares = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
trunk = build(options)
trunk.start(Path(sys.argv[1]), lambda count: squares[:count])
trunk(squares)
assert sys.modules.get("openvino") is not None
assert (sys.modules.get("nncf") is not None) == (sys.argv[2] == "int8")
found = [name for name in sys.modules if "telemetry" in name and name.partition(".")[0] == "openvino_telemetry"]
assert [name for name in found if sys.modules[name] is not None] == [], found
assert sys.modules.get("openvino_telemetry") is None
print("threads", sorted(thread.name for thread in threading.enumerate() if "elemetry" in thread.name))
"""


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_conversion_loads_no_telemetry_opens_no_socket_and_writes_nothing_of_the_users(tmp_path, precision):
    if precision == "int8":
        pytest.importorskip("nncf")
    home = tmp_path / "home"
    home.mkdir()
    surroundings = {**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-c", textwrap.dedent(SILENT), str(tmp_path / "kept"), precision]
    done = subprocess.run(command, env=surroundings, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "threads []\n"  # nor does a library's progress stand among the results
    assert [path.name for path in home.rglob("*intel*")] == []
