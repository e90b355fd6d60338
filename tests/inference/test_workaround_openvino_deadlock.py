"""OpenVINO's first inference in several threads at once, with an interpreter that switches threads at every turn."""

import subprocess
import sys

import pytest

from regraft.inference import workaround_openvino_deadlock

pytest.importorskip("openvino")

FIRST_INFERENCE = """
import sys, threading
sys.setswitchinterval(1e-6)
sys.modules.setdefault("openvino_telemetry", None)
import numpy as np
import openvino
from openvino import opset13 as operations
from regraft.inference.workaround_openvino_deadlock import make_table_of_types

images = operations.parameter([4, 8, 8, 3], np.uint8)
network = openvino.Model([operations.convert(images, "f32")], [images])
settings = {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2"}
if sys.argv[1] == "prepared":
    make_table_of_types(openvino)
compiled = openvino.Core().compile_model(network, "CPU", settings)
together = threading.Barrier(3)

def infer():
    request = compiled.create_infer_request()
    together.wait()
    request.infer([np.ones((4, 8, 8, 3), np.uint8)], share_inputs=True, share_outputs=True)

threads = [threading.Thread(target=infer, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
"""


@pytest.mark.parametrize("attempt", range(3))
def test_with_its_table_of_types_made_before_the_first_inference_ends(attempt):
    command = [sys.executable, "-c", FIRST_INFERENCE, "prepared"]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "done\n"


@pytest.mark.slow
def test_the_workaround_is_still_needed():
    command = [sys.executable, "-c", FIRST_INFERENCE, "as it is"]
    for _ in range(12):
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=10)
        except subprocess.TimeoutExpired:
            return
    pytest.fail(f"The first inference ends by itself: {workaround_openvino_deadlock.__name__} can be deleted.")
