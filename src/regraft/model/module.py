"""The whole model as one torch module: images in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from regraft.training.losses import Loss


class Joined(nn.Module):
    """Trunks side by side: the same images, preprocessed for each → their features as `join` gives them, (n, width)."""

    def __init__(self, trunks: Sequence[nn.Module], scales: Sequence[float], *, roots: bool) -> None:
        super().__init__()
        self.trunks, self.scales, self.roots = nn.ModuleList(trunks), tuple(scales), roots

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        """Return the joined features."""
        features = [trunk(inputs) for trunk, inputs in zip(self.trunks, images, strict=True)]
        return join(features, self.scales, roots=self.roots)


def join(features: Sequence[torch.Tensor], scales: Sequence[float], *, roots: bool) -> torch.Tensor:
    """Return the features of the same images by each trunk, (n, …) each, as one row for each, as `Runner.join` does.

    Of a feature that is 0 the gradient of the root is 0.
    """
    flat = [rows.flatten(1) for rows in features]
    rooted = [rows.sign() * rows.abs().clamp(min=1e-20).sqrt() for rows in flat] if roots else flat
    return torch.cat([rows / scale for rows, scale in zip(rooted, scales, strict=True)], dim=1)


def side_by_side(trunks: Sequence[nn.Module], scales: Sequence[float], *, roots: bool) -> nn.Module:
    """Return what takes the images as each trunk sees them: the trunk, or several `Joined`."""
    return trunks[0] if len(trunks) == 1 else Joined(trunks, scales, roots=roots)


class WholeModel(nn.Module):
    """Preprocessed images (n, S, S, 3) uint8, one argument for each trunk → probabilities (n, n_classes) float32.

    trunk:   images → features, the normalisation its first step; see `side_by_side`.
    trained: features → logits: the tail, if there is one, and the head.
    temperature: by which the logits are divided.
    """

    def __init__(self, trunk: nn.Module, trained: nn.Module, loss: Loss, temperature: float = 1.0) -> None:
        super().__init__()
        self.trunk, self.trained, self.temperature = trunk, trained, temperature
        self.softmax = loss.name == "softmax"
        self.two_classes = loss.name == "sigmoid" and not loss.multilabel  # of which the one logit is the second's
        self.eval()

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities; rows sum to 1 unless an image may have several labels."""
        logits: torch.Tensor = self.trained(self.trunk(*images)) / self.temperature
        if self.softmax:
            return logits.softmax(1)
        return (torch.cat([-logits, logits], dim=1) if self.two_classes else logits).sigmoid()
