"""PyTorch on the processor: float32, channels-last, no gradient; the engine that the others are checked against."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def run(module: nn.Module, batch: np.ndarray) -> np.ndarray:
    """Return what a frozen module makes of a batch.

    module: in eval mode; (n, 3, S, S) → (n, …).
    batch:  (n, 3, S, S) float32, preprocessed; it is not changed.

    Returns a float32 array of its own, (n, …), in C order. NaN and infinity pass through: `extract` judges them.
    """
    images = torch.tensor(batch, dtype=torch.float32).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        features: torch.Tensor = module(images)
    return np.ascontiguousarray(features.numpy())
