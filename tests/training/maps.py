"""Maps as a trunk gives them, of two classes, and a tail that they fit into."""

import numpy as np
from torch import nn

from regraft.training import loop
from regraft.training.examples import Examples


def maps(n=48, seed=0, **more):
    """Maps whose class is the half that is bright: (n, 2, 6, 6)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    inputs = rng.normal(0, 0.3, (n, 2, 6, 6)).astype(np.float32)
    inputs[labels == 0, :, :, :3] += 1
    inputs[labels == 1, :, :, 3:] += 1
    return Examples(inputs, labels, **more)


def above():
    """Two stages, "0" and "3", each a convolution with its normalisation."""
    with loop.seeded(3, "tail"):
        return nn.Sequential(
            *(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten()),
        ).eval()
