"""VGG (Simonyan and Zisserman 2014, arXiv:1409.1556); Keras calls its layers block1_conv1 … block5_pool.

Keras counts the ReLU as part of a convolution, so `block1_conv1` is the
module of the ReLU that follows it in timm's `features`.
"""

from __future__ import annotations

from regraft.features.backbones import Backbone


def _layers(convolutions: tuple[int, ...]) -> dict[str, str]:
    """Return Keras's layer names → places in `features`, for so many convolutions a block, each with its ReLU."""
    layers, place = {}, 0
    for block, count in enumerate(convolutions, start=1):
        for number in range(1, count + 1):
            layers[f"block{block}_conv{number}"] = f"features.{place + 1}"
            place += 2
        layers[f"block{block}_pool"] = f"features.{place}"
        place += 1
    return layers


BACKBONES = (
    Backbone(name="vgg16", architecture="vgg16", layers=_layers((2, 2, 3, 3, 3))),
    Backbone(name="vgg19", architecture="vgg19", layers=_layers((2, 2, 4, 4, 4))),
)
