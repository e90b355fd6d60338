"""Heat maps: what on a photograph a model's answer rests on, in logits, laid over the upright photograph.

Preprocessed images enter, and for each the label that is asked for; grids leave, one for each trunk, over what that
trunk sees. Where the features are pooled and the head is linear, a cell is the logit that it alone would have, and
their mean is the image's logit: class activation maps. Otherwise a cell is what the last map of the network has to do
with the logit, by its gradient. Where no map has a gradient (a transformer that reads its class token), or PyTorch is
not installed, parts of the photograph are covered, and a cell is by how much the logit falls.

Sources: Zhou et al. 2016, arXiv:1512.04150 (class activation); Draelos and Carin 2020, arXiv:2011.08891 (the product
of map and gradient, which is the same where the head is linear); Zeiler and Fergus 2014, arXiv:1311.2901 (covering).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from regraft.features import worker

if TYPE_CHECKING:
    import torch
    from torch import nn

    from regraft.data.index import Row
    from regraft.model.model import Model
    from regraft.network.trunk import Trunk

ACTIVATION, GRADIENT, COVERING = "class activation", "gradient", "covering"  # how a map is made
EXACT = 1e-3  # of the logit's size, by which the mean of a class activation map may differ from it
COVERED = 8  # parts of each side that are covered one after the other
SIDE = 96  # cells of the longer side of a map over a photograph
SMALL = 480  # pixels of the longer side of the photograph that it is shown on


class HeatMap(NamedTuple):
    """What a label rests on.

    values: (h, w) float32 in logits, over the upright photograph: above 0 speaks for the label, below 0 against it; 0
            where the network does not look.
    method: "class activation", "gradient" or "covering".
    """

    values: np.ndarray
    label: str
    method: str


class Grids(NamedTuple):
    """Maps of one image: a grid (h, w) for each trunk, over what it sees; `bias` is spread evenly over them all."""

    grids: tuple[np.ndarray, ...]
    bias: float
    method: str


Window = tuple[float, float, float, float]  # top, left, bottom, right, as fractions of the photograph's sides


class Seen(NamedTuple):
    """What is kept of a photograph for its heat maps.

    small:   (h, w, 3) uint8, the upright photograph, at most `SMALL` a side.
    inputs:  as each trunk sees it, (1, S, S, 3) uint8.
    windows: what of it each trunk sees, see `Preprocess.window`.
    """

    small: np.ndarray
    inputs: tuple[np.ndarray, ...]
    windows: tuple[Window, ...]


def see(trunks: Sequence[Trunk], pixels: np.ndarray) -> Seen:
    """Return what is kept of an upright photograph (H, W, 3) uint8 for the heat maps of a model with these trunks."""
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((SMALL, SMALL), reducing_gap=2.0)
    rules = [trunk.preprocess for trunk in trunks]
    return Seen(
        np.asarray(image),
        tuple(rule(pixels)[None] for rule in rules),
        tuple(rule.window(*pixels.shape[:2]) for rule in rules),
    )


def see_rows(model: Model, rows: Sequence[Row]) -> Iterator[Seen | None]:
    """Yield what is kept of the photographs of an index's rows, in order; None of one that can't be read now."""
    sides = [trunk.preprocess.least_side for trunk in model.trunks]
    least = 0 if 0 in sides else max(*sides, SMALL)
    for seen in worker.of_pixels(rows, least, functools.partial(see, model.trunks)):
        yield None if isinstance(seen, worker.Failure) else seen


def heat_map(model: Model, seen: Seen, label: str) -> HeatMap:
    """Return the heat map of a photograph for a label of the model's."""
    made = quick_heat_map(model, seen, label)
    if made is not None:
        return made
    grid = covering_grid(model, seen.small, model.classes.index(label))
    return _over_photograph(Grids((grid,), 0, COVERING), [(0.0, 0.0, 1.0, 1.0)], seen, label)


def quick_heat_map(model: Model, seen: Seen, label: str) -> HeatMap | None:
    """Return the heat map of a photograph for a label, None where that takes a covering."""
    if importlib.util.find_spec("torch") is None:
        return None
    grids = gradient_grids(model, seen.inputs, model.classes.index(label))
    return None if grids is None else _over_photograph(grids, seen.windows, seen, label)


def _over_photograph(grids: Grids, windows: Sequence[Window], seen: Seen, label: str) -> HeatMap:
    shape = seen.small.shape[:2]
    sides = [max(1, round(side * min(1, SIDE / max(shape)))) for side in shape]
    bias = grids.bias / len(grids.grids)
    layers = [_laid_over(grid + bias, window, sides) for grid, window in zip(grids.grids, windows, strict=True)]
    return HeatMap(np.stack(layers).sum(axis=0).astype(np.float32), label, grids.method)


def _laid_over(grid: np.ndarray, window: Sequence[float], sides: Sequence[int]) -> np.ndarray:
    """Return a grid over a window of the photograph as values at `sides` points of it, bilinear, 0 outside of it."""
    top, left, bottom, right = window
    down, across = _weights(grid.shape[0], sides[0], top, bottom), _weights(grid.shape[1], sides[1], left, right)
    result: np.ndarray = down @ grid @ across.T
    return result


def _weights(cells: int, points: int, start: float, end: float) -> np.ndarray:
    """Return (points, cells): how much of each cell, spread from start to end, is at each point, spread from 0 to 1."""
    at = ((np.arange(points) + 0.5) / points - start) / (end - start) * cells - 0.5
    inside = (at >= -0.5) & (at <= cells - 0.5)
    near = 1 - np.abs(at.clip(0, cells - 1)[:, None] - np.arange(cells))
    weights: np.ndarray = np.maximum(0, near) * inside[:, None]
    return weights


def _signed(model: Model, code: int) -> tuple[int, int]:
    """Return which of the logits speaks for a class, and its sign: of two classes one logit speaks for the second."""
    return (code, 1) if model.loss.outputs(len(model.classes)) > 1 else (0, 2 * code - 1)


# By activation and gradient


def gradient_grids(model: Model, inputs: Sequence[np.ndarray], code: int) -> Grids | None:
    """Return the grids of an image for a class; None where some trunk has no map with a gradient.

    inputs: the image as each trunk sees it, (1, S, S, 3) uint8.
    """
    import torch
    from torch import nn

    from regraft.model.module import join

    stages = [trunk.module for trunk in model.trunks]
    if model.tail is not None:
        stages = [nn.Sequential(*stages, model.tail.module)]
    column, sign = _signed(model, code)
    with torch.enable_grad():
        images = [torch.from_numpy(image) for image in inputs]
        runs = [_last_map(stage, image) for stage, image in zip(stages, images, strict=True)]
        maps, features = [run[0] for run in runs if run], [run[1] for run in runs if run]
        if len(maps) < len(stages):
            return None
        if len(stages) > 1:
            features = [join(features, model.scales, roots=model.roots)]
        logit = sign * model.head(features[0])[0, column]
        gradients = torch.autograd.grad(logit, maps, allow_unused=True)
    times = 2 if model.roots else 1  # a root is twice the product of its number and its gradient there
    grids = [times * _grid(values, gradient) for values, gradient in zip(maps, gradients, strict=True)]
    if not all(grid.any() for grid in grids):
        return None
    bias, value = sign * _bias(model, column), logit.item()
    exact = abs(sum(grid.mean() for grid in grids) + bias - value) <= EXACT * max(1, abs(value))
    return Grids(tuple(grids), bias if exact else 0.0, ACTIVATION if exact else GRADIENT)


def _grid(values: torch.Tensor, gradient: torch.Tensor | None) -> np.ndarray:
    """Return the product of a map (1, C, h, w), (1, h, w, C) or (1, tokens, C) and its gradient: (h, w) in logits."""
    from regraft.network.frozen import spatial_axes

    positions = spatial_axes(tuple(values.shape), "NCHW")
    channels = next(axis for axis in range(1, values.ndim) if axis not in positions)
    if gradient is None:
        return np.zeros((1, 1), np.float32)
    product: np.ndarray = (values * gradient).sum(channels)[0].detach().numpy()
    if product.ndim == 1:  # tokens; those before the square are of no position
        side = math.isqrt(product.size)
        product = product[product.size - side**2 :].reshape(side, side)
    return product * product.size


def _bias(model: Model, column: int) -> float:
    """Return the bias of a linear head for a logit; of another head, which has no such sum, NaN."""
    return float(model.head_weights["1.bias"][column]) if model.head_name == "linear" else math.nan


def _last_map(module: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the last map that a module computes of images, and its output, which has a gradient by that map alone.

    None if it computes no map.
    """
    maps: list[torch.Tensor] = []
    own = threading.get_ident()  # others may run the same module meanwhile

    def begin(_: nn.Module, __: Any, output: Any) -> Any:
        if threading.get_ident() != own or not _is_map(output):
            return None
        maps[:] = [output.detach().requires_grad_()]
        return maps[0].clone()  # what follows may change it in place

    with contextlib.ExitStack() as hooks:
        for part in module.modules():
            hooks.callback(part.register_forward_hook(begin).remove)
        output = module(images)
    return (maps[0], output) if maps else None


def _is_map(output: Any) -> bool:
    """Whether a module's output has positions: (1, C, h, w), (1, h, w, C) or (1, tokens, C)."""
    import torch

    if not isinstance(output, torch.Tensor) or not output.is_floating_point() or len(output) != 1:
        return False
    if output.ndim == 4:
        return min(output.shape[2:]) > 1 or min(output.shape[1:3]) > 1
    return output.ndim == 3 and output.shape[1] >= 4


# By covering


def covering_grid(model: Model, pixels: np.ndarray, code: int) -> np.ndarray:
    """Return by how much the logit for a class falls when each part of a photograph is covered by its mean colour.

    pixels: (H, W, 3) uint8.
    """
    height, width = pixels.shape[:2]
    down, across = (np.linspace(0, side, min(side, COVERED) + 1).astype(int) for side in (height, width))
    boxes = [
        (slice(top, bottom), slice(left, right))
        for top, bottom in itertools.pairwise(down)
        for left, right in itertools.pairwise(across)
    ]
    images = list(_preprocessed(model, pixels, boxes))
    column, sign = _signed(model, code)
    inputs = [np.stack(of_trunk) for of_trunk in zip(*images, strict=True)]
    logits = sign * model.logits(model.runner(*inputs))[:, column]
    grid: np.ndarray = (logits[0] - logits[1:]).reshape(len(down) - 1, len(across) - 1)
    return grid


def _preprocessed(model: Model, pixels: np.ndarray, boxes: Sequence[tuple[slice, slice]]) -> Iterator[list[np.ndarray]]:
    """Yield what each trunk sees of a photograph, and then of it with one box after the other covered."""
    colour = pixels.mean(axis=(0, 1)).astype(np.uint8)
    yield [trunk.preprocess(pixels) for trunk in model.trunks]
    for box in boxes:
        covered = pixels.copy()
        covered[box] = colour
        yield [trunk.preprocess(covered) for trunk in model.trunks]
