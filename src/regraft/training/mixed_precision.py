"""Mixed precision: products in bfloat16; weights, the sums of gradients and the loss in float32.

It is faster where the processor multiplies bfloat16 faster than float32; elsewhere
it would give the same results more slowly. On a CPU some convolutions are computed
otherwise than by PyTorch, with the same results within rounding: see `_Workarounds`.
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
    """Return the outputs of `module` for float inputs (n, …), in the precision of its weights; float32 for bfloat16.

    Feature maps, (n, C, H, W), enter channels-last, and with `bfloat16` in it. Inputs go to the device of the module,
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
    return _Workarounds() if device.type == "cpu" else contextlib.nullcontext()


class _Workarounds(TorchFunctionMode):
    """Computes depthwise convolutions by `depthwise`, and those on small maps by `small_maps`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d and len(args) == 7:
            maps, weight, bias, stride, padding, dilation, groups = args
            convolve = None
            if depthwise.suits(weight, padding, dilation, groups):
                convolve = depthwise.convolve
            elif small_maps.suits(maps, weight, stride, padding, dilation, groups):
                convolve = small_maps.convolve
            if convolve:
                outputs = convolve(maps.bfloat16(), weight.bfloat16(), stride, padding)
                return outputs if bias is None else outputs + bias.bfloat16()[:, None, None]
        return func(*args, **(kwargs or {}))
