"""ResNet (He et al. 2015, arXiv:1512.03385); Keras calls its blocks conv2_block1 … conv5_block3."""

from __future__ import annotations

from typing import Any, Literal

from regraft.network.backbones import Backbone, Facts
from regraft.network.keras.adapt import Keras, set_epsilon
from regraft.network.keras.layers import Layer, Layers

_BLOCKS = (3, 4, 6, 3)


def _layers() -> tuple[Layer, ...]:
    keras = Layers()
    x = keras.add("ZeroPadding2D", keras.input, name="conv1_pad")
    x = _convolution(keras, x, "conv1", "conv1", "bn1")
    x = keras.add("Activation", x, name="conv1_relu", path="act1")
    x = keras.add("ZeroPadding2D", x, name="pool1_pad")
    x = keras.add("MaxPooling2D", x, name="pool1_pool", path="maxpool")
    for stage, count in enumerate(_BLOCKS, start=1):
        for number in range(count):
            name, path = f"conv{stage + 1}_block{number + 1}", f"layer{stage}.{number}"
            x = _block(keras, x, name, path, projects=number == 0)
    return keras.finish(x, "fc", "avg_pool")


def _block(keras: Layers, x: str, name: str, path: str, *, projects: bool) -> str:
    shortcut = x
    if projects:
        shortcut = _convolution(keras, x, f"{name}_0", f"{path}.downsample.0", f"{path}.downsample.1")
    for number in (1, 2, 3):
        x = _convolution(keras, x, f"{name}_{number}", f"{path}.conv{number}", f"{path}.bn{number}")
        if number < 3:
            x = keras.add("Activation", x, name=f"{name}_{number}_relu", path=f"{path}.act{number}")
    x = keras.add("Add", shortcut, x, name=f"{name}_add")
    return keras.add("Activation", x, name=f"{name}_out", path=path)


def _convolution(keras: Layers, x: str, name: str, path: str, norm: str) -> str:
    x = keras.convolution(x, path, f"{name}_conv", bias=True)
    return keras.norm(x, norm, f"{name}_bn", path=norm)


def _adapt(network: Any, top: Literal["top", "notop"]) -> None:  # noqa: ARG001 - one signature for all
    """Give the convolutions a bias, and move each block's stride from its second convolution to its first."""
    import torch

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.bias = torch.nn.Parameter(torch.zeros(module.out_channels, device=module.weight.device))
    for stage in (network.layer2, network.layer3, network.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    set_epsilon(network, 1.001e-5)


BACKBONES = (
    Backbone(
        name="resnet50",
        architecture="resnet50",
        layers=_layers(),
        keras=Keras(adapt=_adapt, mode="caffe"),
        facts=Facts(size=224, width=2048, parameters=23_508_032, licence="apache-2.0", hub="timm/resnet50.a1_in1k"),
    ),
)
