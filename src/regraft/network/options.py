"""Options of the network; nothing heavy is imported: the command line answers at once."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Literal

from regraft.core.options import Options, option, require
from regraft.core.rng import seed_option

MAX_SIZE = 4096  # pixels; one image of this side is 200 MB as the network's input
_NAME = re.compile(r"[^@+]+(@[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class NetworkOptions(Options):
    """Which network, where it is cut, and how an image enters it."""

    GROUP = "Network"

    backbone: str = option(
        "efficientnet_lite0",
        "the pretrained network (`regraft backbones` lists them), or several, A+B, each NAME or NAME@SIZE",
        "Main options",
    )
    weights: str = option("builtin", "builtin, hub, random, or the PATH of a weights file (Keras too) or timm folder")
    size: int | None = option(None, "side of the network's input in pixels; none: as trained; NAME@SIZE goes first")
    resize: Literal["crop", "pad", "squash"] | None = option(None, "how a photograph becomes square; none: as trained")
    cut: str = option(
        "pooled",
        "where the frozen part ends: pooled, a layer's name (timm's or Keras's), a count of Keras's layers (249), "
        "top-2-stages, or input (nothing is frozen)",
        "Main options",
    )
    seed: int = seed_option()

    def check(self) -> None:
        """Raise UsageError for a size out of range, or several networks of which one has no name."""
        require(self.size is None or 0 < self.size <= MAX_SIZE, "size", self.size, f"1 to {MAX_SIZE} pixels")
        if type(self.backbone) is str:
            fit = all(_NAME.fullmatch(name) for name in self.backbone.split("+"))
            require(fit, "backbone", self.backbone, "NAME, NAME@SIZE in pixels, or several with + between")
        require(all(self.cut.split("+")), "cut", self.cut, "a name, or several with + between")
        of_one = len(self.networks) == 1 or self.weights in ("builtin", "hub", "random") or "+" not in self.backbone
        require(of_one, "weights", self.weights, "builtin, hub or random, as --backbone names several networks")

    @property
    def networks(self) -> tuple[NetworkOptions, ...]:
        """The options of each network: mostly of one, else of those whose features are joined."""
        if type(self.backbone) is not str or not {"+", "@"} & {*self.backbone, *self.cut}:
            return (self,)
        return tuple(self._network(name, cut) for name in self.backbone.split("+") for cut in self.cut.split("+"))

    def _network(self, text: str, cut: str) -> NetworkOptions:
        name, _, size = text.partition("@")
        return dataclasses.replace(self, backbone=name, cut=cut, size=int(size) if size else self.size)


@dataclass(frozen=True, kw_only=True)
class TailOptions(Options):
    """What becomes of the network above the cut, and of a feature map."""

    GROUP = "Network"

    pool: Literal["mean", "none"] = option(
        "mean",
        "what becomes of a feature map at the cut, or at the --end: its mean over height and width, or all of it",
    )
    tail: bool = option(False, "keep the network above the cut and train it together with the head", "Main options")
    end: str | None = option(
        None, "where the network ends, with --tail: a layer's name, as for --cut; none: at its own end", "Fine-tuning"
    )
