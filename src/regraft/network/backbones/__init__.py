"""Backbones, one file a family with its `BACKBONES`; `catalog` finds them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

POOLED, INPUT = "pooled", "input"  # the two cuts that every network has: all of it is frozen, or nothing


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer as Keras has it, and what stands for it in the network.

    name:    Keras's, as a fresh session counts those that have none of their own.
    kind:    Keras's class of it.
    inputs:  the names of the layers that it takes.
    tensors: the network's tensors that Keras's weights of it are, in Keras's order.
    path:    the path of the module whose output is the layer's; "" if no module ends there.
    top:     whether it is only there with `include_top`.
    """

    name: str
    kind: str = ""
    inputs: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()
    path: str = ""
    top: bool = False


@dataclass(frozen=True, kw_only=True)
class Keras:
    """What makes a network exactly the one that `keras.applications` has under the same name.

    adapt:    changes, in place, what the architecture does otherwise than Keras (edges, strides, epsilons); "notop"
              also takes off what Keras has only with `include_top`.
    mode:     how Keras's `preprocess_input` treats the pixels.
    size:     the side of the input that Keras's weights are for.
    """

    adapt: Callable[[nn.Module, Literal["top", "notop"]], None]
    mode: Literal["tf", "caffe"]
    size: int = 224


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A catalogue entry: which network, and what its readers call its parts.

    name:         the common name, or timm's where there is no other.
    architecture: timm's name, without a tag.
    tag:          timm's tag of the pretrained weights that "hub" means; "" for timm's default.
    model_args:   what timm.create_model takes beside the name.
    layers:       the layers that Keras has for it, in Keras's order (`model.layers`).
    keras:        what makes it Keras's network; None if Keras has none.
    package:      the importable package that brings its built-in weights; "" if there are none.
    """

    name: str
    architecture: str
    tag: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[Layer, ...] = field(default=(), repr=False)
    keras: Keras | None = None
    package: str = ""

    @property
    def timm_name(self) -> str:
        """What timm calls the architecture with these weights."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture
