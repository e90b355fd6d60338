"""VGG (Simonyan and Zisserman 2014, arXiv:1409.1556); Keras calls its layers block1_conv1 … block5_pool.

Keras counts the ReLU as part of a convolution, so `block1_conv1` ends where
the ReLU after it does in timm's `features`.
"""

from __future__ import annotations

from typing import Any, Literal

from regraft.network import POOLED
from regraft.network.backbones import Backbone, Facts
from regraft.network.keras.adapt import Keras
from regraft.network.keras.layers import Layer, Layers


def _layers(convolutions: tuple[int, ...]) -> tuple[Layer, ...]:
    """Return Keras's layers, for so many convolutions a block, each with its ReLU."""
    keras, position = Layers(), 0
    x = keras.input
    for block, count in enumerate(convolutions, start=1):
        for number in range(1, count + 1):
            name = f"block{block}_conv{number}"
            x = keras.convolution(x, f"features.{position}", name, bias=True, path=f"features.{position + 1}")
            position += 2
        x = keras.add("MaxPooling2D", x, name=f"block{block}_pool", path=f"features.{position}")
        position += 1
    keras.top = True
    x = keras.add("Flatten", x, name="flatten")
    x = keras.dense(x, "pre_logits.fc1", "fc1")
    x = keras.dense(x, "pre_logits.fc2", "fc2", path=POOLED)
    keras.dense(x, "head.fc", "predictions")
    return keras.in_order()


def _adapt(network: Any, top: Literal["top", "notop"]) -> None:
    """Without its top, Keras's network ends in block5_pool: 512 channels; with it, before the classes, in fc2."""
    if top == "notop":
        from torch import nn

        network.pre_logits = nn.Identity()


BACKBONES = tuple(
    Backbone(
        name=name,
        architecture=name,
        layers=_layers(convolutions),
        keras=Keras(adapt=_adapt, mode="caffe"),
        facts=Facts(size=224, width=4096, parameters=parameters, licence="bsd-3-clause", hub=f"timm/{name}.tv_in1k"),
    )
    for name, convolutions, parameters in (
        ("vgg16", (2, 2, 3, 3, 3), 134_260_544),
        ("vgg19", (2, 2, 4, 4, 4), 139_570_240),
    )
)
