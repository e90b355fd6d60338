"""A process that was forked after networks had run: it runs them too, and ends."""

import os
import subprocess
import sys

import pytest

from regraft.inference import workaround_openmp_fork, workaround_openvino_fork

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

# What the parent and the child say must be equal. Two cores, as one has no threads to wait for; the child ends as
# processes do, with all that it deletes then.
RUNNERS = """
import importlib.util, os, sys
import numpy as np
import torch
from tests.features.runners import small_runner

def train():
    torch.nn.Conv2d(8, 8, 3)(torch.ones(8, 8, 64, 64)).sum().backward()

engines = ["torch", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
images = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), np.uint8)
networks = [small_runner(engine=engine) for engine in engines]
features = [network(images) for network in networks]
train()
child = os.fork()
if not child:
    train()
    for network, expected in zip(networks, features):
        np.testing.assert_allclose(network(images), expected, rtol=1e-4, atol=1e-5)
    sys.exit()
print(os.waitpid(child, 0)[1], [np.array_equal(network(images), values) for network, values in zip(networks, features)])
"""

OPENVINO = """
import os, sys
sys.modules.setdefault("openvino_telemetry", None)
import numpy as np
import openvino
from openvino import opset13 as operations
from regraft.inference.workaround_openvino_fork import never_delete

images = operations.parameter([4, 8, 8, 3], np.uint8)
network = openvino.Model([operations.convert(images, "f32")], [images])
compiled = openvino.Core().compile_model(network, "CPU", {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2"})
compiled.create_infer_request().infer([np.ones((4, 8, 8, 3), np.uint8)])
child = os.fork()
if not child:
    if sys.argv[1] == "kept":
        never_delete(compiled)
    del compiled
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""

OPENMP = """
import os, sys
import torch
from regraft.inference.workaround_openmp_fork import use_one_thread

compute = lambda: torch.ones(1 << 20).mul(2).sum()
compute()
child = os.fork()
if not child:
    if sys.argv[1] == "one thread":
        use_one_thread()
    compute()
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


def run(script, argument="", timeout=120):
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", script, argument]
    # a group of its own: what hangs of it is ended with it
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True) as ran:
        try:
            return ran.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            os.killpg(ran.pid, 9)
            return None


def test_a_forked_process_computes_the_same_features_and_ends():
    assert run(RUNNERS).replace(", True", "") == "0 [True]\n"


@pytest.mark.slow
def test_openvinos_workaround_works_and_is_still_needed():
    pytest.importorskip("openvino")
    assert run(OPENVINO, "kept") == "0\n"
    assert run(OPENVINO, "", timeout=20) is None, f"{workaround_openvino_fork.__name__} can be deleted"


@pytest.mark.slow
def test_openmps_workaround_works_and_is_still_needed():
    assert run(OPENMP, "one thread") == "0\n"
    assert run(OPENMP, "", timeout=20) is None, f"{workaround_openmp_fork.__name__} can be deleted"
