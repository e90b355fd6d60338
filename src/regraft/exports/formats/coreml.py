"""Core ML: `model.mlpackage`, for the apps of Apple's systems, with images as its inputs and the classes inside.

It takes the network's input, not an image of any size, and is checked on any system by running its program an operation
at a time in PyTorch. float16 computes in float16, which Apple's Neural Engine needs; float32 does not run there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.exports import core_ml_program, fixed
from regraft.exports.formats import Plan, Run
from regraft.exports.quiet import quiet

if TYPE_CHECKING:
    import torch

    from regraft.exports.fixed import Fixed

PRECISIONS = ("float32", "float16")
MODULES = ("coremltools",)
EXTRA = "coreml"
VERSIONS = ("coremltools",)

FILE, RULES = "model.mlpackage", "preprocess"
DEBUGGING = "executorch_debug_handle_mapping.json"  # for ExecuTorch, which is not in use here


def write(plan: Plan, folder: Path) -> None:
    """Write `model.mlpackage`."""
    module = fixed.Fixed(plan.whole)
    rules = fixed.text(module.rules)
    plan.about["inputs"] = json.loads(rules)
    model = _converted(module, plan)
    model.user_defined_metadata[RULES] = rules
    with quiet():
        model.save(str(folder / FILE))
    (folder / FILE / DEBUGGING).unlink(missing_ok=True)


def load(folder: Path) -> Run:
    """Return what runs the written program in PyTorch."""
    import torch

    with quiet():
        import coremltools
        from coremltools.converters.mil.frontend.milproto.load import load

        model = coremltools.models.MLModel(str(folder / FILE), skip_model_load=True)
        program = load(model.get_spec(), model.get_spec().specificationVersion, model.weights_dir)
    function, rules = program.functions["main"], model.user_defined_metadata[RULES]

    def run(pixels: np.ndarray) -> np.ndarray:
        inputs = {name: _planes(torch.from_numpy(image)) for name, image in fixed.inputs(rules, pixels).items()}
        with torch.no_grad():
            return core_ml_program.run(function, inputs)

    run(np.zeros((1, 1, 3), np.uint8))  # now, for a program that can't be run
    return run


def _planes(image: torch.Tensor) -> torch.Tensor:
    """Return (1, S, S, 3) uint8 as the planes (1, 3, S, S) float32 that Core ML makes of an image."""
    return image.permute(0, 3, 1, 2).float().contiguous()


def _converted(module: Fixed, plan: Plan) -> Any:
    import torch

    examples = {name: _planes(image) for name, image in module.examples().items()}
    with quiet(), torch.no_grad():
        import coremltools as ct

        program = torch.export.export(fixed.OfPlanes(module), (), examples).run_decompositions({})
        return ct.convert(
            program,
            inputs=[
                ct.ImageType(name, tuple(image.shape), color_layout=ct.colorlayout.RGB)
                for name, image in examples.items()
            ],
            classifier_config=ct.ClassifierConfig(plan.about["classes"]),
            minimum_deployment_target=ct.target.iOS15,
            compute_precision=getattr(ct.precision, plan.precision.upper()),
            skip_model_load=True,
        )
