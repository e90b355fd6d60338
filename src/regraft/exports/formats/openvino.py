"""OpenVINO: `model.xml` and `model.bin`, for processors and graphics of Intel and for Arm.

float16 keeps the weights in half of the room and computes in float32.

Whoever runs it must ask for float32: where OpenVINO chooses, it may resize in bfloat16, with other results.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regraft.exports.formats import Plan, Run
from regraft.exports.whole import INPUT, OUTPUT, traced
from regraft.inference.engines.openvino import import_openvino, quiet
from regraft.inference.workaround_openvino_deadlock import make_table_of_types

if TYPE_CHECKING:
    import numpy as np

PRECISIONS = ("float32", "float16")
MODULES = ("openvino",)
EXTRA = ""
VERSIONS = ("openvino",)

FILE = "model.xml"


def write(plan: Plan, folder: Path) -> None:
    """Write `model.xml` and `model.bin`."""
    openvino = import_openvino()
    with quiet():
        model = openvino.convert_model(traced(plan.whole))
    model.inputs[0].tensor.set_names({INPUT})
    model.outputs[0].tensor.set_names({OUTPUT})
    model.reshape({INPUT: openvino.PartialShape([1, -1, -1, 3])})
    openvino.save_model(model, folder / FILE, compress_to_fp16=plan.precision == "float16")


def load(folder: Path) -> Run:
    """Return what runs the model on the processor."""
    openvino = import_openvino()
    make_table_of_types(openvino)
    compiled = openvino.Core().compile_model(folder / FILE, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(pixels: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = compiled([pixels[None]])[0][0]
        return probabilities

    return run
