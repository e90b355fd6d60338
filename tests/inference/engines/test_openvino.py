"""What OpenVINO alone has to hold: what it converted is kept, and it reports to nobody."""

import os
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from regraft.core.errors import StoreError, UsageError
from regraft.inference.engines import CONVERTED
from regraft.inference.engines import openvino as plugin
from regraft.network.frozen import Frozen
from regraft.network.preprocess import Preprocess

pytest.importorskip("openvino")

SIZE = 64


def module(seed=3):
    """A small network: what is kept of a conversion is the subject, and it is made some twenty times."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return Frozen(nn.Sequential(*layers).eval(), Preprocess(size=SIZE), ())


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def build(folder, precision="float32", calibration=images, seed=3):
    return plugin.build(lambda: module(seed), SIZE, precision, folder, calibration)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A folder with the network, converted once, and the features that it gave then."""
    folder = tmp_path_factory.mktemp("first")
    return folder, build(folder)(images(plugin.BATCH))


@pytest.fixture
def conversions(monkeypatch):
    """The networks that are converted."""
    made = []
    convert = plugin._convert
    monkeypatch.setattr(plugin, "_convert", lambda *arguments: made.append(1) or convert(*arguments))
    return made


def test_a_second_start_converts_nothing_builds_nothing_and_gives_the_same(first, conversions, monkeypatch):
    folder, features = first
    monkeypatch.setitem(globals(), "module", None)
    np.testing.assert_array_equal(build(folder)(images(plugin.BATCH)), features)
    assert conversions == []


@pytest.mark.parametrize("name", ["network.xml", "network.bin"])
@pytest.mark.parametrize("how", ["cut short", "empty", "missing", "one bit", "2,000 bytes"])
def test_a_kept_network_that_is_damaged_is_converted_and_kept_again(first, tmp_path, conversions, caplog, name, how):
    folder, features = first
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / CONVERTED / name
    path.write_bytes(damaged(path.read_bytes(), how))
    if how == "missing":
        path.unlink()
    np.testing.assert_array_equal(build(tmp_path)(images(plugin.BATCH)), features)
    np.testing.assert_array_equal(build(tmp_path)(images(plugin.BATCH)), features)
    assert len(conversions) == 1
    assert [record.getMessage() for record in caplog.records if record.name == "regraft"] == [
        f"The network in {tmp_path / CONVERTED} is not as it was converted; it is converted again."
    ]


def damaged(data, how):
    changed = bytearray(data)
    if how == "one bit":
        changed[-1] ^= 1  # of some number's exponent, in the tensors
    elif how == "2,000 bytes":
        changed[1000:3000] = bytes(byte ^ 0xFF for byte in changed[1000:3000])
    return {"cut short": data[: len(data) // 2], "empty": b""}.get(how, bytes(changed))


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that refuses what is written."""

    def refuse(network, path, **choices):
        raise RuntimeError("Exception from src/core:\nCan't open file for writing: No space left on device")

    monkeypatch.setattr("openvino.save_model", refuse)


def test_a_network_that_can_not_be_kept_is_used_all_the_same(tmp_path, full_disk, conversions):
    assert np.isfinite(build(tmp_path)(images(plugin.BATCH))).all()
    assert list(tmp_path.iterdir()) == []  # nothing half written
    assert len(conversions) == 1


def test_a_network_that_can_not_be_converted_is_refused_with_what_works(tmp_path, monkeypatch):
    def fail(*arguments, **choices):
        raise RuntimeError("Summary:\nNo conversion rule found for operations: aten::strange")

    monkeypatch.setattr("openvino.convert_model", fail)
    with pytest.raises(UsageError, match=r"aten::strange.*--engine torch"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


FIRST_INFERENCE = """
import sys, threading
sys.setswitchinterval(1e-6)
from pathlib import Path
import numpy as np
from regraft.inference.engines import openvino as plugin

engine = plugin.build(None, 64, "float32", Path(sys.argv[1]), None)
together = threading.Barrier(3)

def infer():
    together.wait()
    engine(np.ones((plugin.BATCH, 64, 64, 3), np.uint8))

threads = [threading.Thread(target=infer, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done", "torch" in sys.modules)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_infer_first_at_the_same_time_do_not_wait_for_each_other_for_ever(first, attempt):
    command = [sys.executable, "-c", FIRST_INFERENCE, str(first[0])]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "done False\n"


# int8


def test_int8_is_calibrated_once_on_the_images_given_and_is_the_same_ever_after(tmp_path):
    pytest.importorskip("nncf")
    asked = []

    def calibration(count):
        asked.append(count)
        return images(12)

    first = build(tmp_path, "int8", calibration)(images(plugin.BATCH))
    again = build(tmp_path, "int8", calibration)(images(plugin.BATCH))
    assert asked == [plugin.CALIBRATION] and plugin.CALIBRATION >= 100
    np.testing.assert_array_equal(again, first)


def test_int8_must_be_kept_as_another_calibration_would_give_other_features(tmp_path, full_disk):
    pytest.importorskip("nncf")
    with pytest.raises(StoreError, match="No space left on device"):
        build(tmp_path, "int8", lambda count: images(12))


def test_int8_without_images_to_calibrate_on_is_refused(tmp_path):
    pytest.importorskip("nncf")
    with pytest.raises(UsageError, match="real images"):
        build(tmp_path, "int8", lambda count: images(0))


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
from regraft.network.build import build
from regraft.network.trunk import Choice
from regraft.network.options import NetworkOptions
from regraft.inference.runner import Runner

options = NetworkOptions(backbone="test_resnet", weights="random", size=64)
images = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
runner = Runner(build(options, Choice("openvino", sys.argv[2])))
runner.each[0].start(Path(sys.argv[1]), lambda count: images[:count])
runner(images)
assert sys.modules.get("openvino") is not None
assert (sys.modules.get("nncf") is not None) == (sys.argv[2] == "int8")
found = [name for name in sys.modules if "telemetry" in name and name.partition(".")[0] == "openvino_telemetry"]
assert [name for name in found if sys.modules[name] is not None] == [], found
assert sys.modules.get("openvino_telemetry") is None
print("threads", sorted(thread.name for thread in threading.enumerate() if "elemetry" in thread.name))
"""


@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
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
