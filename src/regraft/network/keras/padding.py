"""Convolutions and pools that treat the image's edges as Keras does; made of torch's own by `become`.

Where a 3x3 window moves by two, TensorFlow's "same" pads an even side only
after its last pixel, an odd side on both ends; torch always pads both.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, conv2d, max_pool2d, pad


class SameConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2 with TensorFlow's padding "same"."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) → (n, channels, ⌈h / 2⌉, ⌈w / 2⌉)."""
        height, width = image.shape[2:]
        return _unpadded(self, pad(image, (width % 2, 1, height % 2, 1)))


class EndConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2 after Keras's ZeroPadding2D(((0, 1), (0, 1))), whatever the size."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) → (n, channels, ⌊h / 2⌋, ⌊w / 2⌋)."""
        return _unpadded(self, pad(image, (0, 1, 0, 1)))


class SameMaxPool2d(nn.MaxPool2d):
    """A 3x3 pool of stride 2 with TensorFlow's padding "same"; the padding never is the maximum."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) → (n, c, ⌈h / 2⌉, ⌈w / 2⌉)."""
        height, width = image.shape[2:]
        return max_pool2d(image, 3, 2, (height % 2, width % 2), ceil_mode=True)


class EdgeConv2d(nn.Conv2d):
    """A 1x1 convolution of 3x3 means that count the padding as pixels; its output is as if they did not."""

    def forward(self, means: torch.Tensor) -> torch.Tensor:
        """(n, c, h, w) → (n, channels, h, w)."""
        # 4/9, 6/9 or 1: how many of a window's pixels lie in the image
        inside = avg_pool2d(means.new_ones(1, 1, *means.shape[2:]), 3, 1, 1)
        return super().forward(means) / inside


def _unpadded(convolution: nn.Conv2d, image: torch.Tensor) -> torch.Tensor:
    return conv2d(image, convolution.weight, convolution.bias, convolution.stride, 0, 1, convolution.groups)
