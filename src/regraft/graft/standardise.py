"""Standardisation: each input number less its mean over the training rows, by a scale that is learnt there."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from regraft.graft.examples import Examples

if TYPE_CHECKING:
    from sklearn.preprocessing import StandardScaler


def learn(train: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the scale of each number of the flattened inputs, (width,) float64, a batch at a time.

    The scale is the standard deviation, or 1 where a number never changes.
    """
    scaler = _scaler(train)
    return scaler.mean_, scaler.scale_


def learn_common(train: Examples) -> tuple[np.ndarray, float]:
    """Return the mean of each number, (width,) float64, and one scale for all: the root of their mean variance."""
    scaler = _scaler(train)
    return scaler.mean_, math.sqrt(scaler.var_.mean()) or 1.0


def _scaler(train: Examples) -> StandardScaler:
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for inputs, _ in train.batches():
        scaler.partial_fit(inputs.reshape(len(inputs), -1).astype(np.float64))
    return scaler


class Standardise(nn.Module):
    """Flattens the inputs and standardises them; mean and scale are buffers, never trained."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(math.prod(shape)))
        self.register_buffer("scale", torch.ones(math.prod(shape)))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return (n, width) standardised numbers of inputs (n, …)."""
        return (inputs.flatten(1) - self.mean) / self.scale
