"""Optimizers by name, each with torch's own defaults; SGD has the momentum that everyone gives it, 0.9."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "adagrad": ("Adagrad", {}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "rmsprop": ("RMSprop", {}),
    "sgd": ("SGD", {"momentum": 0.9}),
}
NAMES = tuple(_KINDS)


def build(name: str, parameters: Iterable[torch.nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer `name`, one of NAMES, over `parameters`."""
    import torch

    kind, settings = _KINDS[name]
    optimizer: torch.optim.Optimizer = getattr(torch.optim, kind)(parameters, lr=learning_rate, **settings)
    return optimizer
