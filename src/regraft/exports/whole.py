"""The whole as one module: the pixels of an upright image of any size in, the probabilities of the classes out.

    (1, H, W, 3) uint8 → resized, cropped or padded, for each backbone → `Model.module` → (1, n_classes) float32

All formats are made from it. Resizing is two products with matrices that are computed from H and W inside the
module, so that no operator for resizing is needed, which every runtime has in its own way. The positions are
whole numbers throughout: as exact as those of `network/preprocess`, which this repeats.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from regraft.core.errors import UsageError
from regraft.network.preprocess import Preprocess

if TYPE_CHECKING:
    import numpy as np

    from regraft.model.model import Model
    from regraft.model.module import WholeModel

INTERPOLATIONS = ("bilinear", "bicubic")
INPUT, OUTPUT = "image", "probabilities"  # their names in the formats that have names


class Whole(nn.Module):
    """Pixels (1, H, W, 3) uint8 of an upright RGB image → probabilities (1, n_classes) float32."""

    def __init__(self, model: WholeModel, rules: Sequence[Preprocess]) -> None:
        super().__init__()
        self.rules = tuple(rules)
        self.resizes, self.model = nn.ModuleList(map(Resize, rules)), model
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of one image."""
        probabilities: torch.Tensor = self.model(*(resize(image) for resize in self.resizes))
        return probabilities


class Resize(nn.Module):
    """An image (1, H, W, 3) uint8 → the network's input (1, S, S, 3) float32, whole numbers from 0 to 255."""

    background: torch.Tensor

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.rule = preprocess
        colour = preprocess.background if preprocess.resize == "pad" else (0, 0, 0)
        self.register_buffer("background", torch.tensor(colour, dtype=torch.float32), persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Filter all rows to their width, then all columns to their height, each rounded and clipped."""
        height, width = (torch.scalar_tensor(side, dtype=torch.int64) for side in image.shape[1:3])
        new_height, new_width = _resized_sides(self.rule, height, width)
        columns, inside_columns = self._matrix(image.shape[2], width, new_width)  # (W, S)
        rows, inside_rows = self._matrix(image.shape[1], height, new_height)  # (H, S)
        planes = image[0].permute(2, 0, 1).float()  # (3, H, W)
        planes = _whole_levels(planes @ columns)
        planes = _whole_levels(rows.T @ planes)
        inside = (inside_rows[:, None] & inside_columns[None, :])[None, :, :, None]
        return torch.where(inside, planes.permute(1, 2, 0)[None], self.background)

    def _matrix(self, count: int, side: torch.Tensor, new_side: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the filter (side, S) of the middle S of the resized pixels, and which of those S are in the image.

        Its weights have the bits of `data/resize`, whose source is torch.
        """
        kernel, support = (_linear, 1) if self.rule.interpolation == "bilinear" else (_cubic, 2)
        middle = torch.arange(self.rule.size) + _start(new_side, self.rule.size)
        positions = torch.cat([torch.zeros(1, dtype=torch.int64), middle])  # at the edge the weights are the largest
        scale = side.double() / new_side.double()
        width = scale.clamp(min=1.0)
        centers = scale * (positions.double() + 0.5)
        source = torch.arange(count)[:, None]
        first = (centers - support * width + 0.5).clamp(min=0).long()
        last = torch.minimum((centers + support * width + 0.5).clamp(min=0).long(), side)
        weights = kernel((source.double() - centers + 0.5) / width) * ((source >= first) & (source < last))
        inside = (positions >= 0) & (positions < new_side)
        weights = torch.where(inside, weights / torch.where(inside, weights.sum(0), 1.0), 0.0)
        return _fewer_bits(weights)[:, 1:].float(), inside[1:]


def _fewer_bits(weights: torch.Tensor) -> torch.Tensor:
    """Return weights rounded to whole multiples of the power of 1/2 that torch chooses for the largest of them."""
    powers = 2.0 ** torch.arange(1, 23, dtype=torch.float64)
    fitting = torch.floor(weights.max() * powers + 0.5) < 2**15
    unit = torch.where(fitting, powers, 1.0).max()
    return torch.floor(weights.abs() * unit + 0.5) * weights.sign() / unit


def _resized_sides(rule: Preprocess, height: torch.Tensor, width: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the sides that the image is resized to before its middle is taken, as `Preprocess` has them."""
    target = torch.scalar_tensor(rule.target, dtype=torch.int64)
    if rule.resize == "squash":
        return target, target
    short, long = torch.minimum(height, width), torch.maximum(height, width)
    if rule.resize == "crop":
        return tuple(torch.div(target * side, short, rounding_mode="trunc") for side in (height, width))  # type: ignore[return-value]
    return tuple(_rounded(target * side, long).clamp(min=1) for side in (height, width))  # type: ignore[return-value]


def _rounded(dividend: torch.Tensor, divisor: torch.Tensor) -> torch.Tensor:
    """Return a quotient of whole numbers above 0, rounded as Python does: a half to the even number."""
    quotient = torch.div(dividend, divisor, rounding_mode="trunc")
    twice = 2 * (dividend - quotient * divisor)
    up = (twice > divisor) | ((twice == divisor) & (quotient % 2 == 1))
    return quotient + up.long()


def _start(side: torch.Tensor, size: int) -> torch.Tensor:
    """Return where the middle `size` of `side` pixels starts, as `Preprocess` has it; below 0 if it is larger."""
    beyond = (side - size).clamp(min=0)
    half = torch.div(beyond, 2, rounding_mode="trunc")
    missing = (size - side).clamp(min=0)
    return half + (beyond % 2) * (half % 2) - torch.div(missing, 2, rounding_mode="trunc")


def _whole_levels(values: torch.Tensor) -> torch.Tensor:
    return torch.floor(values + 0.5).clamp(0, 255)


def _linear(distance: torch.Tensor) -> torch.Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Return Keys's cubic with a = -0.5."""
    x, a = distance.abs(), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def whole(model: Model) -> Whole:
    """Return the whole of a model; raise UsageError for a filter that it can't compute in matrices."""
    rules = [trunk.preprocess for trunk in model.trunks]
    for rule in rules:
        if rule.interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"The model's images are resized with the filter {rule.interpolation!r}; an export can have "
                f"{' or '.join(INTERPOLATIONS)}."
            )
    return Whole(model.module, rules)


def reference(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """Return what gives the model's own answer in float32: pixels (H, W, 3) uint8 → probabilities (n_classes,)."""
    module = model.module

    def probabilities(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            inputs = (torch.from_numpy(trunk.preprocess(pixels))[None] for trunk in model.trunks)
            answer: np.ndarray = module(*inputs)[0].numpy()
            return answer

    return probabilities


def traced(module: Whole) -> torch.export.ExportedProgram:
    """Return the module as a graph of PyTorch's own operations, its height and width free."""
    free = {INPUT: {1: torch.export.Dim("height", min=1), 2: torch.export.Dim("width", min=1)}}
    example = torch.zeros(1, 48, 80, 3, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of PyTorch about itself
        program = torch.export.export(module, (example,), dynamic_shapes=free)
    for node in program.graph.nodes:  # what it notes of the Python code, its paths on this machine too
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack"):
            node.meta.pop(name, None)
    return program
