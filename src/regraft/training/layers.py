"""Layers that PyTorch does not have."""

from __future__ import annotations

import math

import torch
from torch import nn


class Standardise(nn.Module):
    """Flattens the inputs and standardises them; mean and scale are buffers, never trained."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(math.prod(shape)))
        self.register_buffer("scale", torch.ones(math.prod(shape)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the standardised features (n, width) of inputs (n, …)."""
        return (inputs.flatten(1) - self.mean) / self.scale
