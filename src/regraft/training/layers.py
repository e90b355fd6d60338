"""Layers that PyTorch does not have."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


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


class Direction(nn.Module):
    """Flattens the inputs, centres them and gives them unit length; the mean is a buffer, never trained."""

    mean: torch.Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the directions (n, width) of inputs (n, …)."""
        return functional.normalize(inputs.flatten(1) - self.mean)


class Neighbours(nn.Module):
    """Logits by the votes of the rows that are nearest to an input, see `heads/knn`; the state brings the rows.

    Nothing of it is trained: its parameters have no gradient.
    """

    mean: torch.Tensor
    rows: torch.Tensor
    votes: torch.Tensor
    prior: torch.Tensor
    scale: torch.Tensor
    neighbours: torch.Tensor

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        shapes = {
            "mean": (width,),
            "rows": (1, width),
            "votes": (1, 2 * n_outputs),
            "prior": (2 * n_outputs,),
            "scale": (),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.ones(shape), requires_grad=False))
        self.register_buffer("neighbours", torch.tensor(1))
        self.count = 1  # the same as a number
        self.register_load_state_dict_pre_hook(self._take_rows)  # type: ignore[no-untyped-call]  # PyTorch has no types

    @staticmethod
    def _take_rows(module: Neighbours, state: dict[str, torch.Tensor], prefix: str, *_: object) -> None:
        """Make room for as many rows as there are."""
        for name in ("rows", "votes"):
            parameter = module.get_parameter(name)
            parameter.data = parameter.new_empty((len(state[prefix + name]), parameter.shape[1]))
        module.count = int(state[prefix + "neighbours"])

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, n_outputs) of inputs (n, …)."""
        cosines = functional.normalize(inputs.flatten(1) - self.mean) @ self.rows.T
        nearest = cosines.topk(self.count, dim=1).values
        closeness = (self.scale * (cosines - nearest[:, :1])).exp() * (cosines >= nearest[:, -1:])
        pro, against = (closeness @ self.votes + self.prior).log().chunk(2, dim=1)
        logits: torch.Tensor = pro - against
        return logits
