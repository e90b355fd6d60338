"""oneDNN's convolutions on small maps take longer in bfloat16 than the same products of matrices.

Up to nine times as long for the gradient of the weights where maps are a few
positions wide, and longer for the values (oneDNN 3.12, torch 2.13). No issue is
known at https://github.com/uxlfoundation/oneDNN/issues. oneDNN takes the kernels
that it takes for large maps (`jit_bf16`, `brgconv`), no fallback, so that only a
clock shows it, and no test here does: benchmarks/finetune.py is where to see
whether a later version ends it.

Here such a convolution is a product of matrices. Of maps this small the columns
(for each output position all inputs that its kernel covers) are quickly laid
out. Of wider kernels the gradient of the inputs is oneDNN's own: to add columns
up again takes longer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_Pair = tuple[int, int]

LARGEST_1X1 = 12  # positions to a side of the output, up to which a product is faster, for kernels of width 1
LARGEST_WIDE = 3  # the same for wider kernels, times the stride: more is copied


def suits(maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether `convolve` can do it, and faster than torch: small maps, padding in numbers, no groups, no dilation."""
    if groups > 1 or set(dilation) != {1} or not isinstance(padding, tuple):
        return False
    width = weight.shape[2:]
    sides: list[int] = [
        (side + 2 * around - wide) // step + 1
        for side, around, wide, step in zip(maps.shape[2:], padding, width, stride, strict=True)
    ]
    return max(sides) <= (LARGEST_1X1 if max(width) == 1 else LARGEST_WIDE * max(stride))


def convolve(maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair) -> torch.Tensor:
    """Return conv2d of maps (n, C, H, W) with weights (D, C, h, w), all bfloat16; channels last."""
    if weight.shape[2:] == (1, 1) and padding == (0, 0):
        seen = maps[..., :: stride[0], :: stride[1]].permute(0, 2, 3, 1)
        return functional.linear(seen, weight.flatten(1)).permute(0, 3, 1, 2)
    result: torch.Tensor = _Products.apply(maps, weight, stride, padding)  # type: ignore[no-untyped-call]
    return result


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
        of_inputs = of_weight = None
        if ctx.needs_input_grad[0]:
            arguments = (gradient, maps, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1)
            of_inputs, *_ = torch.ops.aten.convolution_backward(*arguments, [True, False, False])
        if ctx.needs_input_grad[1]:
            columns = _columns(maps, weight, ctx.stride, ctx.padding).flatten(0, 2)
            product = gradient.permute(0, 2, 3, 1).flatten(0, 2).t() @ columns
            of_weight = product.reshape(len(product), *weight.shape[2:], -1).permute(0, 3, 1, 2)
        return of_inputs, of_weight, None, None


def _columns(maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair) -> torch.Tensor:
    """Return what each kernel sees: (n, H', W', h · w · C)."""
    height, width = weight.shape[2:]
    padded = functional.pad(maps, (padding[1], padding[1], padding[0], padding[0])).permute(0, 2, 3, 1)
    return padded.unfold(1, height, stride[0]).unfold(2, width, stride[1]).permute(0, 1, 2, 4, 5, 3).flatten(3)
