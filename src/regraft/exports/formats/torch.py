"""PyTorch: `model.pt2`, a graph of PyTorch's own operations, which loads without regraft and timm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from regraft.exports.formats import Plan, Run
from regraft.exports.whole import traced

if TYPE_CHECKING:
    import numpy as np

PRECISIONS = ("float32",)
MODULES = ()
EXTRA = ""
VERSIONS = ()  # PyTorch's is in every certificate

FILE = "model.pt2"


def write(plan: Plan, folder: Path) -> None:
    """Write `model.pt2`."""
    import torch

    torch.export.save(traced(plan.whole), folder / FILE)


def load(folder: Path) -> Run:
    """Return what runs the graph in PyTorch."""
    import torch

    module = torch.export.load(folder / FILE).module()

    def run(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            probabilities: np.ndarray = module(torch.from_numpy(pixels[None]))[0].numpy()
        return probabilities

    return run
