"""Optimizers by name, each with torch's own defaults; SGD has the momentum that everyone gives it, 0.9.

Where torch has one pass over the weights for a whole step ("fused"), it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "adagrad": ("Adagrad", {"fused": True}),
    "adam": ("Adam", {"fused": True}),
    "adamw": ("AdamW", {"fused": True}),
    "rmsprop": ("RMSprop", {}),
    "sgd": ("SGD", {"momentum": 0.9, "fused": True}),
}
NAMES = tuple(_KINDS)


def build(name: str, parameters: Iterable[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer `name`, one of NAMES, over `parameters`."""
    import torch

    kind, settings = _KINDS[name]
    optimizer: torch.optim.Optimizer = getattr(torch.optim, kind)(parameters, lr=learning_rate, **settings)
    return optimizer
