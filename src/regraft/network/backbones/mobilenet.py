"""MobileNet (Howard et al. 2017, arXiv:1704.04861); Keras counts its blocks as conv_dw_1, conv_pw_1 … conv_pw_13."""

from __future__ import annotations

from typing import Any, Literal

from regraft.network import POOLED
from regraft.network.backbones import Backbone, Facts
from regraft.network.keras.adapt import Keras, become, set_epsilon
from regraft.network.keras.layers import Layer, Layers

_STAGES = (1, 2, 2, 6, 2)


def _layers() -> tuple[Layer, ...]:
    keras = Layers()
    x = keras.convolution(keras.input, "conv_stem", "conv1")
    x = keras.norm(x, "bn1", "conv1_bn")
    x = keras.add("ReLU", x, name="conv1_relu", path="bn1")
    paths = [f"blocks.{stage}.{block}" for stage, count in enumerate(_STAGES) for block in range(count)]
    for number, path in enumerate(paths, start=1):
        x = _block(keras, x, number, path)
    keras.top = True
    x = keras.add("GlobalAveragePooling2D", x, path=POOLED)
    x = keras.add("Dropout", x, name="dropout")
    x = keras.convolution(x, "classifier", "conv_preds", bias=True, path="")
    x = keras.add("Reshape", x, name="reshape_2")
    keras.add("Activation", x, name="predictions")
    return keras.in_order()


def _block(keras: Layers, x: str, number: int, path: str) -> str:
    if path.endswith(".0") and number > 1:
        x = keras.add("ZeroPadding2D", x, name=f"conv_pad_{number}")
    x = keras.depthwise(x, f"{path}.conv_dw", f"conv_dw_{number}")
    x = keras.norm(x, f"{path}.bn1", f"conv_dw_{number}_bn")
    x = keras.add("ReLU", x, name=f"conv_dw_{number}_relu", path=f"{path}.bn1")
    x = keras.convolution(x, f"{path}.conv_pw", f"conv_pw_{number}")
    x = keras.norm(x, f"{path}.bn2", f"conv_pw_{number}_bn")
    return keras.add("ReLU", x, name=f"conv_pw_{number}_relu", path=path)


def _adapt(network: Any, top: Literal["top", "notop"]) -> None:  # noqa: ARG001 - one signature for all
    """Pad as Keras does where the stride is 2, and take Keras's own epsilon."""
    from regraft.network.keras.padding import EndConv2d, SameConv2d

    become(network.conv_stem, SameConv2d)
    for stage in network.blocks[1:]:
        become(stage[0].conv_dw, EndConv2d)
    set_epsilon(network, 1e-3)


BACKBONES = (
    Backbone(
        name="mobilenet",
        architecture="mobilenetv1_100",
        layers=_layers(),
        keras=Keras(adapt=_adapt, mode="tf"),
        facts=Facts(
            size=224,
            width=1024,
            parameters=3_206_976,
            licence="apache-2.0",
            hub="timm/mobilenetv1_100.ra4_e3600_r224_in1k",
        ),
    ),
)
