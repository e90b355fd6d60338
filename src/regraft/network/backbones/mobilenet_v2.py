"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381); Keras counts its blocks as expanded_conv, block_1 … block_16."""

from __future__ import annotations

from typing import Any, Literal

from regraft.network.backbones import Backbone, Facts
from regraft.network.keras.adapt import Keras, become, set_epsilon
from regraft.network.keras.layers import Layer, Layers

_STAGES = (1, 2, 3, 4, 3, 3, 1)
_SHRINKING = (1, 2, 3, 5)  # stages that begin with a stride of 2


def _layers() -> tuple[Layer, ...]:
    keras = Layers()
    x = keras.convolution(keras.input, "conv_stem", "Conv1")
    x = keras.norm(x, "bn1", "bn_Conv1")
    x = keras.add("ReLU", x, name="Conv1_relu", path="bn1")
    blocks = [(stage, block) for stage, count in enumerate(_STAGES) for block in range(count)]
    for number, (stage, block) in enumerate(blocks):
        x = _block(keras, x, number, stage, block)
    x = keras.convolution(x, "conv_head", "Conv_1")
    x = keras.norm(x, "bn2", "Conv_1_bn")
    x = keras.add("ReLU", x, name="out_relu", path="bn2")
    return keras.finish(x, "classifier")


def _block(keras: Layers, x: str, number: int, stage: int, block: int) -> str:
    name = f"block_{number}" if number else "expanded_conv"
    path = f"blocks.{stage}.{block}"
    first, entered = 1, x
    if number:  # the first block does not expand, and has one convolution fewer
        x = keras.convolution(x, f"{path}.conv_pw", f"{name}_expand")
        x = keras.norm(x, f"{path}.bn1", f"{name}_expand_BN")
        x = keras.add("ReLU", x, name=f"{name}_expand_relu", path=f"{path}.bn1")
        first = 2
    if block == 0 and stage in _SHRINKING:
        x = keras.add("ZeroPadding2D", x, name=f"{name}_pad")
    x = keras.depthwise(x, f"{path}.conv_dw", f"{name}_depthwise")
    x = keras.norm(x, f"{path}.bn{first}", f"{name}_depthwise_BN")
    x = keras.add("ReLU", x, name=f"{name}_depthwise_relu", path=f"{path}.bn{first}")
    x = keras.convolution(x, f"{path}.conv_pwl" if number else f"{path}.conv_pw", f"{name}_project")
    x = keras.norm(x, f"{path}.bn{first + 1}", f"{name}_project_BN", path=f"{path}.bn{first + 1}")
    return keras.add("Add", entered, x, name=f"{name}_add", path=path) if block else x


def _adapt(network: Any, top: Literal["top", "notop"]) -> None:  # noqa: ARG001 - one signature for all
    """Pad as TensorFlow does where the stride is 2, and take Keras's own epsilon."""
    from regraft.network.keras.padding import SameConv2d

    become(network.conv_stem, SameConv2d)
    for stage in _SHRINKING:
        become(network.blocks[stage][0].conv_dw, SameConv2d)
    set_epsilon(network, 1e-3)


BACKBONES = (
    Backbone(
        name="mobilenet_v2",
        architecture="mobilenetv2_100",
        layers=_layers(),
        keras=Keras(adapt=_adapt, mode="tf"),
        facts=Facts(
            size=224, width=1280, parameters=2_223_872, licence="apache-2.0", hub="timm/mobilenetv2_100.ra_in1k"
        ),
    ),
)
