"""LiteRT (before: TensorFlow Lite): `model.tflite`, for Android, and small computers.

It takes the network's input, not an image of any size: Android's tools bring images to a fixed size themselves. Labels,
and what the input is, are inside as they expect it. int8 computes the convolutional part in whole numbers.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.text import printable
from regraft.data.decode import decode
from regraft.exports import fixed
from regraft.exports.formats import Plan, Run
from regraft.exports.litert_metadata import LABELS, described
from regraft.exports.quiet import quiet
from regraft.exports.whole import OUTPUT

if TYPE_CHECKING:
    import numpy as np

    from regraft.data.index import Row
    from regraft.exports.fixed import Fixed

PRECISIONS = ("float32", "int8")
MODULES = ("litert_torch", "ai_edge_litert", "ai_edge_quantizer")
EXTRA = "litert"
VERSIONS = ("litert-torch", "ai-edge-litert", "ai-edge-quantizer")

FILE, RULES, SIGNATURE = "model.tflite", "preprocess.json", "serving_default"
INTEGER = ("CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "PAD", "AVERAGE_POOL_2D", "MAX_POOL_2D")  # not the head: 256 logits


def write(plan: Plan, folder: Path) -> None:
    """Write `model.tflite`."""
    module = fixed.Fixed(plan.whole)
    model, rules = _converted(module), fixed.text(module.rules)
    plan.about["inputs"] = json.loads(rules)
    if plan.precision == "int8":
        model = _quantised(model, rules, plan.calibration)
    labels = "".join(f"{printable(name)}\n" for name in plan.about["classes"])
    files = {LABELS: labels, RULES: rules}
    (folder / FILE).write_bytes(described(model, fixed.names(module.rules), OUTPUT, files))


def load(folder: Path) -> Run:
    """Return what runs the model in LiteRT's interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    with zipfile.ZipFile(folder / FILE) as archive:
        rules = archive.read(RULES).decode()
    with quiet():
        runner = Interpreter(str(folder / FILE)).get_signature_runner()

    def run(pixels: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = runner(**fixed.inputs(rules, pixels))[OUTPUT][0]
        return probabilities

    return run


def _converted(module: Fixed) -> bytes:
    with quiet():
        import litert_torch

        model: bytes = litert_torch.convert(module, sample_kwargs=module.examples()).model_content()
    return model


def _quantised(model: bytes, rules: str, calibration: Sequence[Row]) -> bytes:
    """Return the model with weights in int8, and what is INTEGER computed in it too, by ranges from images."""
    mixed = sorted(calibration, key=lambda row: row.id)  # not class by class: the quantiser forgets the first ones
    images = [fixed.inputs(rules, decode(row.location.read())) for row in mixed]
    with quiet():
        from ai_edge_quantizer.qtyping import TFLOperationName
        from ai_edge_quantizer.quantizer import Quantizer

        quantizer = Quantizer(bytearray(model))
        for operation in INTEGER:
            quantizer.add_static_config(".*", TFLOperationName(operation), activation_num_bits=8, weight_num_bits=8)
        quantizer.add_dynamic_config(".*", TFLOperationName.FULLY_CONNECTED, num_bits=8)
        ranges = quantizer.calibrate({SIGNATURE: images}, num_threads=1)
        return bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)
