"""The whole model as one torch module: images in, probabilities out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from regraft.training.losses import Loss


class Joined(nn.Module):
    """Trunks side by side: the same images, preprocessed for each → their features, scaled, in one row (n, width)."""

    def __init__(self, trunks: Sequence[nn.Module], scales: Sequence[float]) -> None:
        super().__init__()
        self.trunks, self.scales = nn.ModuleList(trunks), tuple(scales)

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        """Return the joined features."""
        each = zip(self.trunks, images, self.scales, strict=True)
        return torch.cat([trunk(inputs).flatten(1) / scale for trunk, inputs, scale in each], dim=1)


class WholeModel(nn.Module):
    """Preprocessed images (n, S, S, 3) uint8, one argument for each trunk → probabilities (n, n_classes) float32.

    trunks:  images → features, the normalisation its first step; mostly one.
    scales:  by which the features of each are divided where several are joined.
    trained: features → logits: the tail, if there is one, and the head.
    temperature: by which the logits are divided.
    """

    def __init__(
        self,
        trunks: Sequence[nn.Module],
        scales: Sequence[float],
        trained: nn.Module,
        loss: Loss,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.trunk = trunks[0] if len(trunks) == 1 else Joined(trunks, scales)
        self.trained, self.temperature = trained, temperature
        self.softmax = loss.name == "softmax"
        self.two_classes = loss.name == "sigmoid" and not loss.multilabel  # of which the one logit is the second's
        self.eval()

    def forward(self, *images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities; rows sum to 1 unless an image may have several labels."""
        logits: torch.Tensor = self.trained(self.trunk(*images)) / self.temperature
        if self.softmax:
            return logits.softmax(1)
        return (torch.cat([-logits, logits], dim=1) if self.two_classes else logits).sigmoid()
