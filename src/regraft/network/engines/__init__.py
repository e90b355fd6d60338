"""Engines, one file each: what runs the frozen part of a network.

An engine's file has

    precisions()    those that it can run in on this machine, best first and int8 last; none if it can't run at all
    version()       of the library that computes
    build(module, size, precision, folder, calibration)
                    an Engine for `module` ((n, S, S, 3) uint8 → (n, …)); what it had to convert it may keep in
                    `folder`; `calibration` gives real images where the precision wants them

and imports nothing heavy until it is called: `regraft --help` reads the folder's listing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class Engine(Protocol):
    """Runs the frozen part; several threads may call it at once, each call uses one core (or the GPU)."""

    @property
    def batch(self) -> int:
        """How many images go through at once."""
        ...

    def __call__(self, squares: np.ndarray) -> np.ndarray:
        """Return the features of exactly `batch` squares, (batch, S, S, 3) uint8 → (batch, …) float32."""
        ...
