"""The trunk: the frozen part of a network below the cut, by its description; and the tail, which is what is above.

Both are described in words and numbers that JSON can hold, beside their
tensors; the torch modules are built when they are first needed (see
`LazyModule`). How they come from options or from a model folder is left to
`build`, what runs a trunk to `runner`, and what keeps its features to the store.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from regraft.core.errors import UsageError
from regraft.data.decode import DECODE_RULES
from regraft.network.lazy_module import LazyModule, Tensors
from regraft.network.preprocess import Preprocess
from regraft.network.tensors import hash_tensors

if TYPE_CHECKING:
    from torch import nn

Stored = Literal["float32", "bfloat16"]

OWN = "own:"


def only(trunks: Sequence[Trunk]) -> Trunk:
    """Return the trunk of a model that has one; raise UsageError if it joins several."""
    if len(trunks) > 1:
        names = " and ".join(trunk.recipe.architecture for trunk in trunks)
        raise UsageError(f"The features of {names} are joined here; expected those of one backbone.")
    return trunks[0]


class Choice(NamedTuple):
    """An engine's name, and the precision that it runs in.

    tentative: "auto" chose the precision: where the features differ from those in float32, float32 takes its place.
    """

    engine: str
    precision: str
    tentative: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a trunk is made, beside its tensors."""

    architecture: str  # timm's name, or OWN and the name of a module of the user's own
    model_args: Mapping[str, Any]
    cut: str  # a layer's path, "pooled" or "input"
    pool: str  # what becomes of a map at the cut: "mean" or "none"
    preprocess: Preprocess
    weights: Mapping[str, Any]  # where they came from: source, name, licence, pretrained; decides no feature
    own: nn.Module | None = field(default=None, repr=False, compare=False)  # the user's own, to build it again

    @property
    def is_own(self) -> bool:
        """Whether the network is a module of the user's own, which no name can build."""
        return self.architecture.startswith(OWN)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trunk:
    """The frozen part below the cut: preprocessed images (n, S, S, 3) uint8 → features (n, …) float32.

    choice:       the engine that runs it here, and in which precision.
    output_shape: the shape of one image's features.
    stored:       the type in which a store keeps them: float32, or bfloat16 for the maps that a tail is trained on.
    frozen:       its tensors, and its torch module `Frozen`.
    """

    recipe: Recipe
    choice: Choice
    output_shape: tuple[int, ...]
    frozen: LazyModule
    stored: Stored = "float32"

    @property
    def name(self) -> str:
        """What it is, for messages."""
        return f"{self.recipe.architecture} cut at {self.recipe.cut!r}"

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes what the network sees; its mean and std are the module's first step."""
        return self.recipe.preprocess

    @property
    def module(self) -> nn.Module:
        """The torch module, built at its first use: preprocessed images (n, S, S, 3) uint8 → features (n, …)."""
        return self.frozen.module

    @cached_property
    def digest(self) -> str:
        """The sha256 of everything that decides the features, but the image; it names their place in a store."""
        decides = {
            **{name: value for name, value in self.describe().items() if name not in ("weights", "output_shape")},
            "decode_rules": DECODE_RULES,
            "engine": self.choice.engine,
            "precision": self.choice.precision,
            "stored": self.stored,
        }
        text = json.dumps([decides, self.frozen.digest], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def on(self, choice: Choice) -> Trunk:
        """Return the same trunk, run by another engine or in another precision."""
        return dataclasses.replace(self, choice=choice)

    def hash_tensors(self) -> str:
        """Return the sha256 of the torch module's parameters and buffers as they are now."""
        return hash_tensors(dict([*self.module.named_parameters(), *self.module.named_buffers()]))

    def describe(self) -> dict[str, Any]:
        """Return as JSON-able values what `build.restore` needs beside the tensors."""
        return {
            "architecture": self.recipe.architecture,
            "model_args": dict(self.recipe.model_args),
            "cut": self.recipe.cut,
            "pool": self.recipe.pool,
            "preprocess": self.preprocess.to_dict(),
            "weights": dict(self.recipe.weights),
            "output_shape": list(self.output_shape),
        }

    def tensors(self) -> Tensors:
        """Return the frozen tensors under the network's own names."""
        return self.frozen.tensors()


@dataclass(frozen=True, kw_only=True, eq=False)
class Tail:
    """The network above the cut, to be trained: a trunk's features (n, …) → (n, …).

    end:          the path of the layer that it ends with; None: where the network does.
    pool:         what becomes of a map that it ends with, where that is not the network's own end: "mean" or "none".
    output_shape: the shape that it gives for one image.
    network:      its tensors, and its torch module.
    """

    end: str | None
    pool: str
    output_shape: tuple[int, ...]
    network: LazyModule

    @property
    def module(self) -> nn.Module:
        """The torch module, built at its first use."""
        return self.network.module

    def copy(self) -> Tail:
        """Return a copy, so that training it leaves this one as it is."""
        return dataclasses.replace(self, network=LazyModule.of(copy.deepcopy(self.module)))
