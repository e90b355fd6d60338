"""The whole model as one torch module: images in, probabilities out."""

from __future__ import annotations

import torch
from torch import nn

from regraft.training.losses import Loss


class WholeModel(nn.Module):
    """Preprocessed images (n, S, S, 3) uint8 → probabilities (n, n_classes) float32.

    trunk:   images → features, the normalisation its first step.
    trained: features → logits: the tail, if there is one, and the head.
    """

    def __init__(self, trunk: nn.Module, trained: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.trunk, self.trained = trunk, trained
        self.softmax = loss.name == "softmax"
        self.two_classes = loss.name == "sigmoid" and not loss.multilabel  # of which the one logit is the second's
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the probabilities; rows sum to 1 unless an image may have several labels."""
        logits: torch.Tensor = self.trained(self.trunk(images))
        if self.softmax:
            return logits.softmax(1)
        return (torch.cat([-logits, logits], dim=1) if self.two_classes else logits).sigmoid()
