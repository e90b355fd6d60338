"""Mixed precision: products in bfloat16, weights, their gradients' sums and the loss in float32.

It pays where the processor multiplies bfloat16 faster; elsewhere it would
give the same, slower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


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
    with torch.autocast("cpu", torch.bfloat16), _WideDepthwise():
        outputs = module(inputs)
    return outputs.float()


class _WideDepthwise(TorchFunctionMode):
    """Leaves depthwise convolutions wider than 3 in float32: oneDNN's gradients of them are slower in bfloat16."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and args[1].shape[1] == 1 and args[1].shape[-1] > 3:
            with torch.autocast("cpu", enabled=False):
                return func(args[0].float(), *args[1:], **(kwargs or {}))
        return func(*args, **(kwargs or {}))
