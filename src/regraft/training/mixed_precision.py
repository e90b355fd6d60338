"""Mixed precision: products in bfloat16, weights, their gradients' sums and the loss in float32.

It pays where the processor multiplies bfloat16 faster; elsewhere it would
give the same, slower. Some convolutions are taken another way than PyTorch's,
to the same numbers but for rounding: see `_Quick`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from regraft.training import workaround_onednn_depthwise as depthwise
from regraft.training import workaround_onednn_small_maps as small_maps
from regraft.training.devices import device_of


def forward(module: nn.Module, inputs: torch.Tensor, *, bfloat16: bool) -> torch.Tensor:
    """Return what `module` makes of float inputs (n, …), in the precision of its weights, or of float32 for bfloat16.

    Maps, (n, C, H, W), enter with their channels last, and for bfloat16 in it. Inputs go to the device of the module,
    and outputs stay there.
    """
    inputs = inputs.to(device_of(module))
    if inputs.ndim == 4:
        kind = torch.bfloat16 if bfloat16 else inputs.dtype
        inputs = inputs.to(kind, memory_format=torch.channels_last)
    if not bfloat16:
        outputs: torch.Tensor = module(inputs)
        return outputs
    with torch.autocast(inputs.device.type, torch.bfloat16), _workarounds(inputs.device):
        outputs = module(inputs)
    return outputs.float()


def _workarounds(device: torch.device) -> contextlib.AbstractContextManager[object]:
    return _Quick() if device.type == "cpu" else contextlib.nullcontext()


class _Quick(TorchFunctionMode):
    """Takes depthwise convolutions by `depthwise`, and those on small maps as products of matrices."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and len(args) == 7:
            maps, weight, bias, stride, padding, dilation, groups = args
            quick = None
            if depthwise.suits(weight, padding, dilation, groups):
                quick = depthwise.convolve
            elif small_maps.suits(maps, weight, stride, padding, dilation, groups):
                quick = small_maps.convolve
            if quick:
                outputs = quick(maps.bfloat16(), weight.bfloat16(), stride, padding)
                return outputs if bias is None else outputs + bias.bfloat16()[:, None, None]
        return func(*args, **(kwargs or {}))
