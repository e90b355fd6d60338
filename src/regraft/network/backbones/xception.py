"""Xception (Chollet 2016, arXiv:1610.02357), timm's legacy_xception; what Keras calls block2 is timm's block1."""

from __future__ import annotations

from typing import Any, Literal

from regraft.network.backbones import Backbone, Facts
from regraft.network.keras.adapt import Keras, become, set_epsilon
from regraft.network.keras.layers import Layer, Layers

_URL = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth"


def _layers() -> tuple[Layer, ...]:
    keras = Layers()
    x = keras.input
    for number in (1, 2):
        x = keras.convolution(x, f"conv{number}", f"block1_conv{number}")
        x = keras.norm(x, f"bn{number}", f"block1_conv{number}_bn", path=f"bn{number}")
        x = keras.add("Activation", x, name=f"block1_conv{number}_act", path=f"act{number}")
    for block in range(1, 13):
        x = _block(keras, x, f"block{block + 1}", f"block{block}", shrinks=block in (1, 2, 3, 12))
    for number in (1, 2):
        name = f"block14_sepconv{number}"
        x = _separable(keras, x, name, f"conv{number + 2}", f"bn{number + 2}")
        x = keras.add("Activation", x, name=f"{name}_act", path=f"act{number + 2}")
    return keras.finish(x, "fc", "avg_pool")


def _block(keras: Layers, x: str, name: str, path: str, *, shrinks: bool) -> str:
    shortcut = x
    if shrinks:
        shortcut = keras.norm(keras.convolution(x, f"{path}.skip"), f"{path}.skipbn", path=f"{path}.skipbn")
    position = 0
    for number in (1, 2) if shrinks else (1, 2, 3):
        if (number, name) != (1, "block2"):  # which starts without an activation
            x = keras.add("Activation", x, name=f"{name}_sepconv{number}_act", path=f"{path}.rep.{position}")
            position += 1
        x = _separable(keras, x, f"{name}_sepconv{number}", f"{path}.rep.{position}", f"{path}.rep.{position + 1}")
        position += 2
    if shrinks:
        x = keras.add("MaxPooling2D", x, name=f"{name}_pool", path=f"{path}.rep.{position}")
    return keras.add("Add", x, shortcut, path=path)


def _separable(keras: Layers, x: str, name: str, path: str, norm: str) -> str:
    tensors = (f"{path}.conv1.weight", f"{path}.pointwise.weight")
    x = keras.add("SeparableConv2D", x, name=name, tensors=tensors, path=path)
    return keras.norm(x, norm, f"{name}_bn", path=norm)


def _adapt(network: Any, top: Literal["top", "notop"]) -> None:  # noqa: ARG001 - one signature for all
    """Pad the pools as TensorFlow does, and take Keras's own epsilon."""
    from torch import nn

    from regraft.network.keras.padding import SameMaxPool2d

    for module in network.modules():
        if isinstance(module, nn.MaxPool2d):
            become(module, SameMaxPool2d)
    set_epsilon(network, 1e-3)


BACKBONES = (
    Backbone(
        name="xception",
        architecture="legacy_xception",
        layers=_layers(),
        keras=Keras(adapt=_adapt, mode="tf", size=299),
        facts=Facts(size=299, width=2048, parameters=20_806_952, licence="apache-2.0", url=_URL),
    ),
)
