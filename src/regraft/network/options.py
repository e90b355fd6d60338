"""Options of the network and of what computes it; nothing heavy is imported: the command line answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regraft.core import plugins
from regraft.core.options import option, require, require_choice
from regraft.core.rng import SeedOptions
from regraft.network import engines

PRECISIONS = ("auto", "float32", "bfloat16", "int8")

MAX_SIZE = 4096  # pixels; one image of this side is 200 MB as the network's input


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """Where features are kept."""

    store: Path | None = option(None, "folder of the feature store; none: the user's cache, or $REGRAFT_CACHE")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """What computes the frozen part, and how finely."""

    engine: str = option("auto", "auto, openvino or torch")
    precision: Literal["auto", "float32", "bfloat16", "int8"] = option(
        "auto",
        "auto is bfloat16 where the processor is built for it and the network says the same in it, else float32; int8 "
        "loses some accuracy",
    )

    def __post_init__(self) -> None:
        require_choice("engine", self.engine, ("auto", *plugins.names(engines)))
        require_choice("precision", self.precision, PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(EngineOptions, StoreOptions, SeedOptions):
    """Which network, cut where, and how an image enters it."""

    backbone: str = option("efficientnet_lite0", "the pretrained network; `regraft backbones` lists them")
    weights: str = option("builtin", "builtin, hub, random, or the PATH of a weights file (Keras too) or timm folder")
    size: int | None = option(None, "side of the network's input in pixels; none: as trained")
    resize: Literal["crop", "pad", "squash"] | None = option(None, "how a photograph becomes square; none: as trained")
    cut: str = option(
        "pooled",
        "where the frozen part ends: pooled, a layer's name (timm's or Keras's), a count of Keras's layers (249), "
        "top-2-stages, or input (nothing is frozen)",
    )
    pool: Literal["mean", "none"] = option(
        "mean", "what becomes of a map at the cut, or at the --end: its mean over places, or all of it"
    )
    tail: bool = option(False, "keep the network above the cut and train it together with the head")
    end: str | None = option(
        None, "where the network ends, with --tail: a layer's name, as for --cut; none: at its own end"
    )
    store_limit: float | None = option(None, "most gigabytes that the feature store may take; none: the disk's room")

    def __post_init__(self) -> None:
        """Check each choice and that they go together."""
        super().__post_init__()
        require(self.store_limit is None or self.store_limit >= 0, "store_limit", self.store_limit, "0 or more, in GB")
        require(self.size is None or 0 < self.size <= MAX_SIZE, "size", self.size, f"1 to {MAX_SIZE} pixels")
        if self.resize is not None:
            require_choice("resize", self.resize, ("crop", "pad", "squash"))
        require_choice("pool", self.pool, ("mean", "none"))
        require(
            not (self.tail and self.cut == "pooled"), "tail", self.tail, "a --cut below pooled: nothing is above it"
        )
        require(
            self.end is None or self.trains_tail,
            "end",
            self.end,
            "none without --tail: where nothing is trained, the network ends at the --cut",
        )

    @property
    def trains_tail(self) -> bool:
        """Whether the network above the cut is kept and trained: asked for, or because nothing is frozen."""
        return self.tail or self.cut == "input"
