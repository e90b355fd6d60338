"""The choices of feature extraction; imports nothing heavy, so that the command line can read them at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regraft.core.options import option, require, require_choice
from regraft.core.rng import SeedOptions

MAX_SIZE = 4096  # pixels; one image of this side is 200 MB as the network's input


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Where features are kept."""

    store: Path | None = option(None, "folder of the feature store; none: the user's cache, or $REGRAFT_CACHE")


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(StoreOptions, SeedOptions):
    """Which network, cut where, and how an image enters it."""

    backbone: str = option("efficientnet_lite0", "the pretrained network; `regraft backbones` lists them")
    weights: str = option("builtin", "builtin, hub, random, or the PATH of a weights file or timm folder")
    size: int | None = option(None, "side of the network's input in pixels; none: as trained")
    resize: Literal["crop", "pad", "squash"] | None = option(None, "how a photograph becomes square; none: as trained")
    cut: str = option("pooled", "where the frozen part ends: pooled, a layer's name, or input (nothing is frozen)")
    pool: Literal["mean", "none"] = option(
        "mean", "what becomes of a map at the cut: its mean over places, or all of it"
    )
    tail: bool = option(False, "keep the network above the cut and train it together with the head")

    def __post_init__(self) -> None:
        """Check each choice and that they go together."""
        require(self.size is None or 0 < self.size <= MAX_SIZE, "size", self.size, f"1 to {MAX_SIZE} pixels")
        if self.resize is not None:
            require_choice("resize", self.resize, ("crop", "pad", "squash"))
        require_choice("pool", self.pool, ("mean", "none"))
        require(
            not (self.tail and self.cut == "pooled"), "tail", self.tail, "a --cut below pooled: nothing is above it"
        )

    @property
    def trains_tail(self) -> bool:
        """Whether the network above the cut is kept and trained: asked for, or because nothing is frozen."""
        return self.tail or self.cut == "input"
