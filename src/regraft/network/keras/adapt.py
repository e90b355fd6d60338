"""What makes a network of timm's exactly the one that `keras.applications` has under the same name.

The families' files write it down; `catalog` applies it where the model argument
"keras" asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

# The model argument that asks for the network exactly as Keras has it: "top" or "notop" (without Keras's top).
ARGUMENT = "keras"
TOPS = ("top", "notop")


@dataclass(frozen=True, kw_only=True)
class Keras:
    """What makes a network exactly the one that `keras.applications` has under the same name.

    adapt: changes, in place, what timm's network computes otherwise than Keras's (edges, strides, epsilons); "notop"
           also removes what Keras has only with `include_top`.
    mode:  how Keras's `preprocess_input` treats the pixels.
    size:  the side of the input that Keras's weights are for, in pixels.
    """

    adapt: Callable[[nn.Module, Literal["top", "notop"]], None]
    mode: Literal["tf", "caffe"]
    size: int = 224


def set_epsilon(network: nn.Module, epsilon: float) -> None:
    """Give every batch normalisation of a network the same epsilon."""
    for module in network.modules():
        if hasattr(module, "running_var"):
            module.eps = epsilon  # type: ignore[assignment]


def become(module: Any, kind: type) -> None:
    """Turn a module into one of a subclass of its class, which has the same tensors and computes otherwise."""
    module.__class__ = kind
