"""Mixed precision: products in bfloat16, weights, their gradients' sums and the loss in float32.

It pays where the processor multiplies bfloat16 faster; elsewhere it would
give the same, slower. Some convolutions are taken another way than PyTorch's,
to the same numbers but for rounding: see `_Quick`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from regraft.graft import depthwise

SMALL = 12  # places to a side of a map, up to which a product of matrices is sooner done than a convolution of width 1


def forward(module: nn.Module, inputs: torch.Tensor, *, bfloat16: bool) -> torch.Tensor:
    """Return what `module` makes of float inputs (n, …), in the precision of its weights, or of float32 for bfloat16.

    Maps, (n, C, H, W), enter with their channels last, and for bfloat16 in it.
    """
    if inputs.ndim == 4:
        kind = torch.bfloat16 if bfloat16 else inputs.dtype
        inputs = inputs.to(kind, memory_format=torch.channels_last)
    if not bfloat16:
        outputs: torch.Tensor = module(inputs)
        return outputs
    with torch.autocast("cpu", torch.bfloat16), _Quick():
        outputs = module(inputs)
    return outputs.float()


class _Quick(TorchFunctionMode):
    """Takes depthwise convolutions by the gradients of `depthwise`, and those of width 1 on small maps as products.

    Of the latter, oneDNN (3.x, through torch 2.13) takes up to twice as long for the weights' gradient.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and len(args) == 7:
            maps, weight, bias, stride, padding, dilation, groups = args
            if depthwise.suits(weight, padding, dilation, groups):
                found = depthwise.convolve(maps.bfloat16(), weight.bfloat16(), stride, padding)
                return found if bias is None else found + bias.bfloat16()[:, None, None]
            if weight.shape[2:] == (1, 1) and padding == (0, 0) and groups == 1:
                kept = maps[..., :: stride[0], :: stride[1]]
                if max(kept.shape[2:]) <= SMALL:
                    return functional.linear(kept.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)
        return func(*args, **(kwargs or {}))
