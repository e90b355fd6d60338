"""The choices of each command that joins several steps; each default stands at its step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regraft.core.options import merged, option
from regraft.data.read import ReadOptions
from regraft.data.split import SplitOptions
from regraft.features.options import ViewOptions
from regraft.network.options import FeatureOptions
from regraft.training.options import FitOptions


@merged
@dataclass(frozen=True, kw_only=True)
class ExtractOptions(FeatureOptions, ReadOptions):
    """The choices of `regraft extract`."""


@merged
@dataclass(frozen=True, kw_only=True)
class LearnOptions(ViewOptions, FeatureOptions):
    """The choices of `regraft.extract`, whose features may be trained on."""


@dataclass(frozen=True, kw_only=True)
class ContinueOptions:
    """Where training begins."""

    continue_: Path | None = option(
        None, "a model to go on from: its network, head and parts are taken over, and trained further"
    )


@merged
@dataclass(frozen=True, kw_only=True)
class TrainOptions(ContinueOptions, FitOptions, ViewOptions, FeatureOptions, SplitOptions, ReadOptions):
    """All choices of a training run: those of each step, each default written at its step."""
