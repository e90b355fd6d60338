"""Where a module computes: the CPU, or a CUDA device for as long as it is trained."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

CPU = torch.device("cpu")


def device_of(module: nn.Module) -> torch.device:
    """Return the device of a module's parameters; the CPU if it has none."""
    return next((parameter.device for parameter in module.parameters()), CPU)


@contextlib.contextmanager
def on(module: nn.Module, device: str) -> Iterator[None]:
    """Keep a module on a device, such as "cuda", for as long as the block lasts; it returns to where it was."""
    before = device_of(module)
    module.to(device)
    try:
        yield
    finally:
        module.to(before)
