"""The two halves of a cut network as torch modules: the frozen one, `Frozen`, and a copy of the other to be trained.

A `Cut` enters. No gradient reaches the frozen half, and nothing puts it into training mode.
"""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from regraft.network import input_size
from regraft.network.cut import Cut, take_mean
from regraft.network.preprocess import Preprocess


class Frozen(nn.Module):
    """Normalises images, and runs a body that stays in eval mode and has no gradient; a map becomes its mean.

    body: normalised images (n, 3, S, S) float32 → features (n, …).
    axes: of the body's output, over which the mean is taken.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, body: nn.Module, preprocess: Preprocess, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.body, self.axes = body, axes
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Frozen:  # noqa: ARG002
        """Stay in eval mode: frozen is frozen."""
        return super().train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of preprocessed images: (n, S, S, 3) uint8 → (n, …)."""
        normalised = images.permute(0, 3, 1, 2).float() * self.scale + self.shift  # channels-last in memory
        features: torch.Tensor = self.body(normalised)
        return features.mean(self.axes) if self.axes else features


def frozen_half(cut: Cut, preprocess: Preprocess, *, mean: bool, layout: str) -> tuple[Frozen, tuple[int, ...]]:
    """Return the network below the cut, and the shape of one image's features.

    mean:   whether a map becomes its mean over height and width, or over tokens.
    layout: timm's name for the layout of the network's maps, "NCHW" or "NHWC".
    Raises UsageError if the network does not take images of the preprocessing's size.
    """
    features = input_size.forward(cut.trunk, preprocess.size)
    axes = spatial_axes(features.shape, layout) if mean else ()
    shape = (features.mean(axes) if axes else features).shape[1:]
    return Frozen(cut.trunk, preprocess, axes), tuple(shape)


def trainable_half(cut: Cut, shape: tuple[int, ...], *, mean: bool, layout: str) -> tuple[nn.Module, tuple[int, ...]]:
    """Return a copy of the network above the cut, to be trained, and the shape that it gives for one image.

    shape: of one image's features at the cut.
    mean:  whether a map that it ends with becomes its mean.
    """
    tail = copy.deepcopy(cut.tail).requires_grad_(True)
    with torch.no_grad():
        outputs = tail(torch.zeros(1, *shape))
    if mean and isinstance(tail, fx.GraphModule) and (axes := spatial_axes(outputs.shape, layout)):
        take_mean(tail, axes)
        outputs = outputs.mean(axes)
    return tail, tuple(outputs.shape[1:])


def spatial_axes(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Return the axes of features that are not channels: (n, C, H, W) → 2, 3; (n, tokens, C) → 1; (n, H, W, C) → 1, 2.

    The image is square, so height and width are equal; where all three are, timm's name for the layout decides.
    """
    if len(shape) == 4 and shape[2] == shape[3] and not (shape[1] == shape[2] and layout == "NHWC"):
        return (2, 3)
    return tuple(range(1, len(shape) - 1))
