"""ONNX, opset 18: one file, `model.onnx`, for onnxruntime on any system, OpenVINO, and whatever else reads it.

float16 keeps the weights in half of the room and computes in float32. int8 quantises convolutions, with their
activations, and the head alone: resizing in whole numbers would not be resizing.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.data.decode import decode
from regraft.exports.formats import Plan, Run
from regraft.exports.whole import INPUT, OUTPUT, traced

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto

    from regraft.data.index import Row

PRECISIONS = ("float32", "float16", "int8")
MODULES = ("onnx", "onnxscript", "onnxruntime")
EXTRA = "onnx"
VERSIONS = ("onnx", "onnxscript", "onnxruntime")

FILE = "model.onnx"
OPSET = 18
ACTIVATIONS = ("Clip", "Relu")


def write(plan: Plan, folder: Path) -> None:
    """Write `model.onnx`, which passes ONNX's full check."""
    import onnx

    model = _converted(plan)
    if plan.precision == "float16":
        _halve(model)
    if plan.precision == "int8":
        model = _quantised(model, plan.calibration)
    onnx.helper.set_model_props(model, {name: json.dumps(value) for name, value in plan.about.items()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / FILE)


def load(folder: Path) -> Run:
    """Return what runs the model in onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / FILE, options, providers=["CPUExecutionProvider"])

    def run(pixels: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = session.run([OUTPUT], {INPUT: pixels[None]})[0][0]
        return probabilities

    return run


def _converted(plan: Plan) -> ModelProto:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the converter about itself
        program = torch.onnx.export(
            traced(plan.whole), opset_version=OPSET, input_names=[INPUT], output_names=[OUTPUT], verbose=False
        )
    model: ModelProto = program.model_proto  # type: ignore[union-attr]
    _forget_source(model)
    return model


def _forget_source(model: ModelProto) -> None:
    """Drop what the converter notes of the Python code, its paths on this machine too; name the free sides."""
    graph: Any = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.value_info[:]
    for dimension, name in zip(graph.input[0].type.tensor_type.shape.dim[1:3], ("height", "width"), strict=True):
        dimension.dim_param = name


def _halve(model: ModelProto) -> None:
    """Store kernels and matrices as float16, each with a Cast to float32 after it, which runtimes fold."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2:
            name = tensor.name
            with np.errstate(over="ignore"):  # infinity, which no certificate passes
                values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_float16"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _quantised(model: ModelProto, calibration: Sequence[Row]) -> ModelProto:
    """Return the model in int8, its ranges taken from images."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    # what the quantiser asks for in a warning; it is made for networks whose shapes are not known, which is not so here
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        before, after = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, before)
        quantize_static(
            before,
            after,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", *ACTIVATIONS],
            nodes_to_quantize=_integer(model),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibStridedMinMax": 1},  # images whose activations are in memory at once
        )
        return onnx.load(after)


def _integer(model: ModelProto) -> list[str]:
    """Return the names of the convolutions, of the activations that follow one, and of the head.

    An activation is computed with its convolution, so that all 256 levels are of what it lets through.
    """
    nodes = model.graph.node
    convolved = {output for node in nodes if node.op_type == "Conv" for output in node.output}
    return [
        node.name
        for node in nodes
        if node.op_type in ("Conv", "Gemm") or (node.op_type in ACTIVATIONS and node.input[0] in convolved)
    ]


class _Reader:
    """Gives the quantiser an image at a time; onnxruntime's CalibrationDataReader by its methods."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows, self._range = rows, iter(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these images."""
        self._range = iter(self._rows[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next image as the model's input, None after the last."""
        row = next(self._range, None)
        return None if row is None else {INPUT: decode(row.location.read())[None]}
