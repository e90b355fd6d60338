"""The choices of evaluation and prediction; imports nothing heavy, so that the command line can read them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.core.options import merged, option, require, require_choice
from regraft.data.index import PARTS
from regraft.data.read import ReadOptions
from regraft.network.options import StoreOptions


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """What is evaluated."""

    part: Literal["train", "validation", "test", "all"] | None = option(
        None, "which part; none: test if there is one, else validation, else all"
    )

    def __post_init__(self) -> None:
        if self.part is not None:
            require_choice("part", self.part, (*PARTS, "all"))


@merged
@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(StoreOptions, ReadOptions, PartOptions):
    """The choices of `regraft evaluate`."""


@dataclass(frozen=True, kw_only=True)
class TopOptions:
    """What is told of a prediction."""

    top: int = option(3, "how many labels to name for each image")

    def __post_init__(self) -> None:
        require(self.top >= 1, "top", self.top, "1 or more")


@merged
@dataclass(frozen=True, kw_only=True)
class PredictOptions(StoreOptions, TopOptions):
    """The choices of prediction."""
