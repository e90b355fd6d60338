"""Bottlenecks of InceptionV3 on a small set, a middle layer of VGG19 as a file, and PyTorch's way to the same.

    python examples/bottlenecks_and_middle_layers.py pokemon.zip
    python examples/bottlenecks_and_middle_layers.py pokemon.zip --weights hub

A bottleneck is the output of the frozen network for an image, its last layer before the classes; regraft calls it the
features at the cut `pooled`, and keeps them. The output of any layer is to be had in the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _recipe
import numpy as np

import regraft


def main(source: Any, weights: str | None = None, only: Any = None, **changes: Any) -> _recipe.Reports:
    """Show a middle layer's output, then train a softmax on bottlenecks in both ways."""
    maps = middle_layer(source, weights or "random", store=changes.get("store"))
    print(f"block4_pool of VGG19: {maps.shape}, {np.count_nonzero(maps) / maps.size:.0%} of it above zero")
    return _recipe.run(__file__, source, weights, only, **changes)


def middle_layer(source: Any, weights: str, images: int = 8, store: Path | None = None) -> np.ndarray:
    """Return what VGG19 has at block4_pool for the first images, (n, 512, 14, 14): Keras's, channels first.

    `regraft extract SOURCE -o maps.npz --backbone vgg19 --cut block4_pool --pool none` writes it for all of them.
    """
    index = regraft.read(source)
    few = index.with_rows(index.used.rows[:images])
    features = regraft.extract(few, backbone="vgg19", cut="block4_pool", pool="none", weights=weights, store=store)
    return np.asarray(features)


if __name__ == "__main__":
    _recipe.start(__file__, __doc__, main)
