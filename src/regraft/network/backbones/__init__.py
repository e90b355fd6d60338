"""Backbones, one file a family with its `BACKBONES`; `catalog` finds them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.network.keras.adapt import Keras
from regraft.network.keras.layers import Layer


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the list of backbones says of one, written down so that nothing has to be built or imported for it.

    size:       side of the input that timm's pretrained weights are for, in pixels.
    width:      of the pooled features.
    parameters: their count, without the classifier.
    licence:    of timm's pretrained weights.
    hub:        the repository of these on the Hugging Face hub; "" if timm has them from `url`.
    """

    size: int
    width: int
    parameters: int
    licence: str
    hub: str = ""
    url: str = ""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A catalogue entry: which network, and what Keras calls its layers.

    name:         the common name, or timm's where there is no other.
    architecture: timm's name, without a tag.
    tag:          timm's tag of the pretrained weights that "hub" means; "" for timm's default.
    model_args:   what timm.create_model takes beside the name.
    layers:       the layers that Keras has for it, in Keras's order (`model.layers`).
    keras:        what makes it Keras's network; None if Keras has none.
    package:      the importable package that holds its built-in weights; "" if there are none.
    facts:        what the list says of it; None where timm has to be asked.
    """

    name: str
    architecture: str
    tag: str = ""
    model_args: Mapping[str, Any] = field(default_factory=dict)
    layers: tuple[Layer, ...] = field(default=(), repr=False)
    keras: Keras | None = None
    package: str = ""
    facts: Facts | None = field(default=None, repr=False)

    @property
    def timm_name(self) -> str:
        """Timm's name of the architecture with these weights."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture
