"""The whole for runtimes whose apps resize by themselves: the networks' inputs in, probabilities of the classes out.

    (1, S, S, 3) uint8 for each way of preprocessing, of `network/preprocess` → `Model.module` → (1, n_classes)

Backbones that are joined and preprocess alike share one input.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from regraft.exports.whole import INPUT
from regraft.network.preprocess import Preprocess

if TYPE_CHECKING:
    import numpy as np

    from regraft.exports.whole import Whole


class Fixed(nn.Module):
    """Inputs (1, S, S, 3) uint8, one for each of `rules`, by name → probabilities (1, n_classes) float32."""

    def __init__(self, whole: Whole) -> None:
        super().__init__()
        self.rules = tuple(dict.fromkeys(whole.rules))
        self.model, self._which = whole.model, [self.rules.index(rule) for rule in whole.rules]
        self.eval()

    def forward(self, **images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of one image."""
        each = list(images.values())
        probabilities: torch.Tensor = self.model(*(each[which] for which in self._which))
        return probabilities

    def examples(self) -> dict[str, torch.Tensor]:
        """Return inputs of the right names and shapes."""
        shapes = [(1, rule.size, rule.size, 3) for rule in self.rules]
        return {
            name: torch.zeros(shape, dtype=torch.uint8) for name, shape in zip(names(self.rules), shapes, strict=True)
        }


class OfPlanes(nn.Module):
    """The same from planes (1, 3, S, S) float32, levels too."""

    def __init__(self, module: Fixed) -> None:
        super().__init__()
        self.module = module
        self.eval()

    def forward(self, **planes: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of one image."""
        probabilities: torch.Tensor = self.module(**{name: each.permute(0, 2, 3, 1) for name, each in planes.items()})
        return probabilities


def names(rules: Sequence[Preprocess]) -> list[str]:
    """Return the names of the inputs."""
    return [INPUT, *(f"{INPUT}_{number}" for number in range(2, len(rules) + 1))]


def text(rules: Sequence[Preprocess]) -> str:
    """Return the rules by their inputs' names as JSON, for `run` to read again."""
    return json.dumps({name: rule.to_dict() for name, rule in zip(names(rules), rules, strict=True)})


def inputs(text: str, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the inputs (1, S, S, 3) uint8 of an image (H, W, 3) uint8 by name."""
    return {name: Preprocess.from_dict(rule)(pixels)[None] for name, rule in json.loads(text).items()}
