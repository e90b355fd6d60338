"""Engines, one file each: what runs the frozen part of a network.

An engine's file has

    precisions()    those that it can run in on this machine, best first and int8 last; none if it can't run at all
    version()       of the library that computes
    build(load, size, precision, folder, calibration)
                    an Engine for the torch module that `load()` returns, (n, S, S, 3) uint8 → (n, …), in eval mode;
                    a network that it had to convert it may keep in `folder`, under CONVERTED with its FINGERPRINT, so
                    that the next time neither the module nor PyTorch is needed; `calibration` gives real images where
                    the precision needs them

and imports nothing heavy until it is called: `regraft --help` reads the folder's listing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

CONVERTED = "network"  # the folder of a converted network, and
FINGERPRINT = "sha256"  # the file in it that says what the others were when they were written

LoadModule = Callable[[], "nn.Module"]
Sample = Callable[[int], "np.ndarray"]  # gives up to so many real images, preprocessed: (n, S, S, 3) uint8


class Engine(Protocol):
    """Runs the frozen part; several threads may call it at once, each call uses one core (or the GPU)."""

    @property
    def batch(self) -> int:
        """How many images go through at once."""
        ...

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the features of exactly `batch` preprocessed images, (batch, S, S, 3) uint8 → (batch, …) float32."""
        ...
