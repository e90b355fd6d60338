"""InceptionV3 (Szegedy et al. 2015, arXiv:1512.00567); Keras counts its blocks as mixed0 … mixed10."""

from __future__ import annotations

from typing import Any, Literal

from regraft.network.backbones import Backbone, Facts
from regraft.network.keras.adapt import Keras, become
from regraft.network.keras.layers import Layer, Layers

# The branches of each kind of block, in Keras's order: timm's names of the convolutions, from the block's input up;
# "mean" and "max" are pools, and a pair of names are two convolutions side by side.
_A = (
    ("branch1x1",),
    ("branch5x5_1", "branch5x5_2"),
    ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    ("mean", "branch_pool"),
)
_B = (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("max",))
_C = (
    ("branch1x1",),
    ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
    tuple(f"branch7x7dbl_{number}" for number in range(1, 6)),
    ("mean", "branch_pool"),
)
_D = (("branch3x3_1", "branch3x3_2"), tuple(f"branch7x7x3_{number}" for number in range(1, 5)), ("max",))
_E: tuple[tuple[str | tuple[str, str], ...], ...] = (
    ("branch1x1",),
    ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
    ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
    ("mean", "branch_pool"),
)
_BLOCKS = {
    **dict.fromkeys(("5b", "5c", "5d"), _A),
    "6a": _B,
    **dict.fromkeys(("6b", "6c", "6d", "6e"), _C),
    "7a": _D,
    **dict.fromkeys(("7b", "7c"), _E),
}


def _layers() -> tuple[Layer, ...]:
    keras = Layers()
    x = keras.input
    for path in ("1a_3x3", "2a_3x3", "2b_3x3", "Pool1", "3b_1x1", "4a_3x3", "Pool2"):
        is_pool = path.startswith("Pool")
        x = keras.add("MaxPooling2D", x, path=path) if is_pool else _convolution(keras, x, f"Conv2d_{path}")
    for number, (block, branches) in enumerate(_BLOCKS.items()):
        ends = [_branch(keras, x, f"Mixed_{block}", branch, number) for branch in branches]
        x = keras.add("Concatenate", *ends, name=f"mixed{number}", path=f"Mixed_{block}")
    return keras.finish(x, "fc", "avg_pool")


def _branch(keras: Layers, x: str, block: str, parts: tuple[str | tuple[str, str], ...], number: int) -> str:
    for part in parts:
        if isinstance(part, tuple):
            sides = [_convolution(keras, x, f"{block}.{side}") for side in part]
            name = f"mixed9_{number - 9}" if part[0] == "branch3x3_2a" else ""  # the other has no name in Keras
            x = keras.add("Concatenate", *sides, name=name)
        elif part in ("mean", "max"):
            x = keras.add("AveragePooling2D" if part == "mean" else "MaxPooling2D", x)
        else:
            x = _convolution(keras, x, f"{block}.{part}")
    return x


def _convolution(keras: Layers, x: str, path: str) -> str:
    x = keras.convolution(x, f"{path}.conv")
    x = keras.norm(x, f"{path}.bn", scale=False)
    return keras.add("Activation", x, path=path)


def _adapt(network: Any, top: Literal["top", "notop"]) -> None:  # noqa: ARG001 - one signature for all
    """Leave the padding out of the means of 3x3; the rest is as in Keras."""
    from regraft.network.keras.padding import EdgeConv2d

    for name, module in network.named_modules():
        if name.endswith("branch_pool.conv"):
            become(module, EdgeConv2d)


BACKBONES = (
    Backbone(
        name="inception_v3",
        architecture="inception_v3",
        layers=_layers(),
        keras=Keras(adapt=_adapt, mode="tf", size=299),
        facts=Facts(size=299, width=2048, parameters=21_785_568, licence="apache-2.0", hub="timm/inception_v3.tv_in1k"),
    ),
)
