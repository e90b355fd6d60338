"""oneDNN has no fast kernels for two gradients of depthwise convolutions.

The limit: https://github.com/uxlfoundation/oneDNN, in
src/cpu/x64/jit_uni_dw_conv_kernel_utils.cpp, refuses the gradient of the
weights of kernels wider than 3 columns ("kw > 3"); and in bfloat16 the gradient
of the inputs goes past the depthwise kernel where the stride is not 1. General
kernels take over, which pad each channel to a block of 16 and take ten to two
hundred times as long. No issue is known; a depthwise convolution that is slow
on a CPU is https://github.com/pytorch/pytorch/issues/13716.

Here the first is put together from gradients of kernels of 3 columns, and the
second is computed in float32. Needed up to oneDNN 3.12 (torch 2.13) at least;
the tests fail when oneDNN takes its depthwise kernels for both.
"""

from __future__ import annotations

from typing import Any

import torch

_Pair = tuple[int, int]
_INPUTS, _WEIGHT = 0, 1  # positions in what convolution_backward returns


def suits(weight: torch.Tensor, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether `convolve` can do it: a square kernel of odd width, one to a channel, with padding in numbers."""
    _, channels, height, width = weight.shape
    depthwise = channels == 1 and len(weight) == groups
    return depthwise and height == width >= 3 and width % 2 == 1 and isinstance(padding, tuple) and set(dilation) == {1}


def convolve(maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair) -> torch.Tensor:
    """Return conv2d of maps (n, C, H, W) with weights (C, 1, k, k), all bfloat16."""
    result: torch.Tensor = _Depthwise.apply(maps, weight, stride, padding)  # type: ignore[no-untyped-call]
    return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair) -> torch.Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return torch.conv2d(maps, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        arguments = (*gradients, *ctx.saved_tensors, ctx.stride, ctx.padding)
        inputs, weight = ctx.needs_input_grad[:2]
        return _of_inputs(*arguments) if inputs else None, _of_weight(*arguments) if weight else None, None, None


def _of_inputs(
    gradient: torch.Tensor, maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair
) -> torch.Tensor:
    if stride != (1, 1):  # of the inputs only the shape counts
        gradient, maps, weight = gradient.float(), torch.empty_like(maps, dtype=torch.float32), weight.float()
    return _gradient(_INPUTS, gradient, maps, weight, stride, padding).bfloat16()


def _of_weight(
    gradient: torch.Tensor, maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair
) -> torch.Tensor:
    """Return the gradient of each three columns of the kernels, as if they were kernels of their own."""
    width = weight.shape[-1]
    if width == 3:
        return _gradient(_WEIGHT, gradient, maps, weight, stride, padding)
    padded = torch.nn.functional.pad(maps, (padding[1], padding[1], padding[0], padding[0]))
    seen = (gradient.shape[-1] - 1) * stride[1] + 3
    result, columns = torch.empty_like(weight), weight[..., :3].contiguous()
    for left in sorted({*range(0, width - 2, 3), width - 3}):
        window = padded[..., left : left + seen].contiguous(memory_format=torch.channels_last)
        result[..., left : left + 3] = _gradient(_WEIGHT, gradient, window, columns, stride, (0, 0))
    return result


def _gradient(
    which: int, gradient: torch.Tensor, maps: torch.Tensor, weight: torch.Tensor, stride: _Pair, padding: _Pair
) -> torch.Tensor:
    wanted = [which == _INPUTS, which == _WEIGHT, False]
    return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
        gradient, maps, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )[which]
