"""Convolutions on small maps in bfloat16 as products of matrices.

oneDNN (3.x, through torch 2.13) takes up to nine times as long as a product
for the gradient of the weights where maps are a few places wide, and longer
for the values. Of maps this small the columns (for each new place all that
its kernel sees) are quickly laid out. Of wider kernels the maps' gradient is
oneDNN's own: to add columns up again takes longer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_Pair = tuple[int, int]

ALONE = 12  # places to a side of the new maps, up to which a product is sooner done, for kernels of width 1
WIDE = 3  # the same for wider kernels, times the stride: more places are copied


def suits(maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether `convolve` can do it, and sooner than torch: small maps, padding in numbers, neither groups nor gaps."""
    if groups > 1 or set(dilation) != {1} or not isinstance(padding, tuple):
        return False
    width = weight.shape[2:]
    sides: list[int] = [
        (side + 2 * around - wide) // step + 1
        for side, around, wide, step in zip(maps.shape[2:], padding, width, stride, strict=True)
    ]
    return max(sides) <= (ALONE if max(width) == 1 else WIDE * max(stride))


def convolve(maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair) -> torch.Tensor:
    """Return conv2d of maps (n, C, H, W) with weights (D, C, h, w), all bfloat16; channels last."""
    if weight.shape[2:] == (1, 1) and padding == (0, 0):
        seen = maps[..., :: stride[0], :: stride[1]].permute(0, 2, 3, 1)
        return functional.linear(seen, weight.flatten(1)).permute(0, 3, 1, 2)
    found: torch.Tensor = _Products.apply(maps, weight, stride, padding)  # type: ignore[no-untyped-call]
    return found


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair) -> torch.Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        columns = _columns(maps, weight, stride, padding)
        return functional.linear(columns, weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,), (maps, weight) = gradients, ctx.saved_tensors
        of_maps = of_weight = None
        if ctx.needs_input_grad[0]:
            given = (gradient, maps, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1)
            of_maps, *_ = torch.ops.aten.convolution_backward(*given, [True, False, False])
        if ctx.needs_input_grad[1]:
            columns = _columns(maps, weight, ctx.stride, ctx.padding).flatten(0, 2)
            product = gradient.permute(0, 2, 3, 1).flatten(0, 2).t() @ columns
            of_weight = product.reshape(len(product), *weight.shape[2:], -1).permute(0, 3, 1, 2)
        return of_maps, of_weight, None, None


def _columns(maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair) -> torch.Tensor:
    """Return what each kernel sees: (n, H', W', h · w · C)."""
    height, width = weight.shape[2:]
    padded = functional.pad(maps, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1)
    return padded.unfold(1, height, stride[0]).unfold(2, width, stride[1]).permute(0, 1, 2, 4, 5, 3).flatten(3)
