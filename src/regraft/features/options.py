"""Options of features: where they are stored, and how training images are augmented."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regraft.core import plugins
from regraft.core.options import Options, option, require, require_choice, step
from regraft.features import executors
from regraft.features.augmentation import find
from regraft.inference.options import EngineOptions
from regraft.network.options import NetworkOptions, TailOptions

MAX_VIEWS = 1000
MAX_UNIT = 100_000  # images, whose features are in memory at once


@dataclass(frozen=True, kw_only=True)
class StoreOptions(Options):
    """Where features are kept."""

    GROUP = "Engine and store"

    store: Path | None = option(None, "folder of the feature store; none: the user's cache, or $REGRAFT_CACHE")


@dataclass(frozen=True, kw_only=True)
class StoreLimitOptions(Options):
    """How much the store may take."""

    GROUP = "Engine and store"

    store_limit: float | None = option(
        None, "maximum size of the feature store in gigabytes; none: as much as the disk has free"
    )

    def check(self) -> None:
        """Raise UsageError for a size below 0."""
        require(self.store_limit is None or self.store_limit >= 0, "store_limit", self.store_limit, "0 or more, in GB")


@dataclass(frozen=True, kw_only=True)
class ExecutorOptions(Options):
    """What computes, unit by unit."""

    GROUP = "Many machines"

    on: str | None = option(
        None, "what computes, unit by unit: local, ray or spark; none: this machine, where a folder is written"
    )
    address: str | None = option(
        None, "the cluster's address, such as ray://head:10001 or spark://head:7077; none: one on this machine"
    )
    unit_rows: int = option(10_000, "images in a unit, about; a tar shard is one unit")

    def check(self) -> None:
        """Raise UsageError for an executor that there is not, or a number out of range."""
        require_choice("on", self.executor, plugins.names(executors))
        require(1 <= self.unit_rows <= MAX_UNIT, "unit_rows", self.unit_rows, f"1 to {MAX_UNIT:,}")
        require(self.address is None or self.executor != "local", "address", self.address, "none with --on local")

    @property
    def executor(self) -> str:
        """The name of what computes."""
        return self.on or "local"


@dataclass(frozen=True, kw_only=True)
class FeatureOptions(Options):
    """Which features: the network, what computes it, and where they are kept."""

    network: NetworkOptions = step(NetworkOptions)
    tail: TailOptions = step(TailOptions)
    engine: EngineOptions = step(EngineOptions)
    store: StoreOptions = step(StoreOptions)
    limit: StoreLimitOptions = step(StoreLimitOptions)

    def check(self) -> None:
        """Raise UsageError for a tail or an end that does not go with the cut."""
        tail, end, cut = self.tail.tail, self.tail.end, self.network.cut
        require(not (tail and cut == "pooled"), "tail", tail, "a --cut below pooled: nothing is above it")
        expected = "none without --tail: where nothing is trained, the network ends at the --cut"
        require(end is None or self.trains_tail, "end", end, expected)
        if len(self.network.networks) > 1:
            self._check_joined()

    def _check_joined(self) -> None:
        """Raise UsageError for what only one network can have: a trained tail, and maps as features."""
        tail, pool, cut = self.tail.tail, self.tail.pool, self.network.cut
        require(not tail, "tail", tail, "off where several backbones or cuts are joined")
        require(pool == "mean", "pool", pool, "mean where several backbones or cuts are joined: maps are not")
        require("input" not in cut.split("+"), "cut", cut, "cuts above the input, as several networks are joined")

    @property
    def trains_tail(self) -> bool:
        """Whether the network above the cut is kept and trained: asked for, or because nothing is frozen."""
        return self.tail.tail or self.network.cut == "input"


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions(Options):
    """Augmentation of the training images; what is held out is never augmented."""

    GROUP = "Augmentation"

    views: int | Literal["auto"] = option(
        "auto",
        "augmented views that are stored of each training image; auto: many where images are few, else none",
        "Main options",
    )
    augmentation: str = option(
        "standard", "how views differ from the image: light, standard, strong, or your own such as strong,rotation=40"
    )
    augment: Literal["stored", "fresh"] = option(
        "stored", "fresh: new views in every epoch, for which the frozen part is run every time"
    )

    def check(self) -> None:
        """Raise UsageError for a number of views out of range, or an augmentation that does not exist."""
        require(self.views == "auto" or 0 <= self.views <= MAX_VIEWS, "views", self.views, f"auto, or 0 to {MAX_VIEWS}")
        find(self.augmentation)

    @property
    def number(self) -> int | str:
        """How many views are wanted: fresh ones are all drawn like one, also where images are many."""
        return 1 if self.augment == "fresh" and self.views == "auto" else self.views
