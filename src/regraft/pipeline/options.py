"""The options of each command: those of its steps, each default written at its step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regraft.core.options import GROUPS, Options, option, require, step
from regraft.data.read import InputOptions, SourceOptions
from regraft.data.split import SplitOptions
from regraft.data.usable import BrokenOptions
from regraft.features.options import AugmentationOptions, ExecutorOptions, FeatureOptions, StoreOptions
from regraft.features.poses import MOST
from regraft.inference.options import EngineOptions
from regraft.network.options import NetworkOptions
from regraft.training.options import FitOptions

COMMAS = "a name, or several with commas between"


def names(text: str) -> list[str]:
    """Return the names in a list with commas between, each once."""
    return list(dict.fromkeys(name for word in text.split(",") if (name := word.strip())))


@dataclass(frozen=True, kw_only=True)
class AuditOptions(Options):
    """The options of `regraft inspect`; all but the first two are for --deep."""

    source: SourceOptions = step(SourceOptions)
    executor: ExecutorOptions = step(ExecutorOptions)
    network: NetworkOptions = step(NetworkOptions)
    engine: EngineOptions = step(EngineOptions)
    store: StoreOptions = step(StoreOptions)


@dataclass(frozen=True, kw_only=True)
class SplitSourceOptions(Options):
    """The options of `regraft.split`."""

    split: SplitOptions = step(SplitOptions)
    store: StoreOptions = step(StoreOptions)


@dataclass(frozen=True, kw_only=True)
class ExtractOptions(Options):
    """The options of `regraft extract`."""

    source: SourceOptions = step(SourceOptions)
    broken: BrokenOptions = step(BrokenOptions)
    features: FeatureOptions = step(FeatureOptions)
    executor: ExecutorOptions = step(ExecutorOptions)


@dataclass(frozen=True, kw_only=True)
class TrainingFeatureOptions(Options):
    """The options of `regraft.extract`, whose features may be trained on."""

    features: FeatureOptions = step(FeatureOptions)
    augmentation: AugmentationOptions = step(AugmentationOptions)
    executor: ExecutorOptions = step(ExecutorOptions)


@dataclass(frozen=True, kw_only=True)
class ContinueOptions(Options):
    """Where training begins."""

    GROUP = "Fine-tuning"

    continue_: Path | None = option(
        None, "a model to continue training from: its network, head and parts are taken over"
    )


@dataclass(frozen=True, kw_only=True)
class OverwriteOptions(Options):
    """What may be replaced."""

    overwrite: bool = option(False, "replace the model of another run")


@dataclass(frozen=True, kw_only=True)
class PresetOptions(Options):
    """A recipe of other options."""

    preset: Literal["fast", "balanced", "best"] = option(
        "balanced",
        "which network, where none is named: fast: a small one; balanced: two, joined; best: what cross-validation of "
        "the training part likes most",
    )


@dataclass(frozen=True, kw_only=True)
class UnknownOptions(Options):
    """What teaches a model what is of none of its classes."""

    unknown_class: str | None = option(
        None,
        "a class of pictures of nothing in particular: it is none of the model's, but teaches what is unknown",
        "Images",
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """The options of `regraft train`."""

    preset: PresetOptions = step(PresetOptions)
    features: FeatureOptions = step(FeatureOptions)
    fit: FitOptions = step(FitOptions)
    augmentation: AugmentationOptions = step(AugmentationOptions)
    split: SplitOptions = step(SplitOptions)
    source: SourceOptions = step(SourceOptions)
    unknown: UnknownOptions = step(UnknownOptions)
    broken: BrokenOptions = step(BrokenOptions)
    start: ContinueOptions = step(ContinueOptions)
    output: OverwriteOptions = step(OverwriteOptions)


@dataclass(frozen=True, kw_only=True)
class PartOptions(Options):
    """What is evaluated."""

    part: Literal["train", "validation", "test", "all"] | None = option(
        None, "which part; none: test if there is one, else validation, else all", "Main options"
    )


@dataclass(frozen=True, kw_only=True)
class TtaOptions(Options):
    """In how many ways an image is seen when a model answers."""

    tta: int = option(
        1,
        "test-time augmentation: probabilities are the mean over so many views of an image, 2: with its mirror image, "
        "to 10: and with its corners; so many times slower",
        "Main options",
    )

    def check(self) -> None:
        """Raise UsageError for a number of views that there is not."""
        require(1 <= self.tta <= MOST, "tta", self.tta, f"1 to {MOST}")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """The options of `regraft evaluate`."""

    part: PartOptions = step(PartOptions)
    tta: TtaOptions = step(TtaOptions)
    source: SourceOptions = step(SourceOptions)
    broken: BrokenOptions = step(BrokenOptions)
    store: StoreOptions = step(StoreOptions)


@dataclass(frozen=True, kw_only=True)
class TopOptions(Options):
    """How much of a prediction is shown, and when it is unknown."""

    top: int = option(3, "how many labels to name for each image", "Main options")
    false_alarms: float = option(
        0.05, "the fraction of images of the classes that may be called unknown; 0: none is", "Main options"
    )
    coverage: float | None = option(
        None,
        "give the set of labels that holds the true one at least so often, such as 0.95; none: no sets",
        "Main options",
    )

    def check(self) -> None:
        """Raise UsageError for less than one label, or a fraction out of range."""
        require(self.top >= 1, "top", self.top, "1 or more")
        require(0 <= self.false_alarms < 1, "false_alarms", self.false_alarms, "a number from 0 to below 1")
        valid = self.coverage is None or 0 < self.coverage < 1
        require(valid, "coverage", self.coverage, "a number above 0 and below 1, such as 0.95")


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """The options of `regraft predict`."""

    top: TopOptions = step(TopOptions)
    tta: TtaOptions = step(TtaOptions)
    source: InputOptions = step(InputOptions)
    store: StoreOptions = step(StoreOptions)


@dataclass(frozen=True, kw_only=True)
class SuggestOptions(Options):
    """The options of `regraft suggest`."""

    source: InputOptions = step(InputOptions)
    store: StoreOptions = step(StoreOptions)


@dataclass(frozen=True, kw_only=True)
class PredictUnitsOptions(Options):
    """The options of `regraft predict` into a folder, besides the engine's."""

    top: TopOptions = step(TopOptions)
    store: StoreOptions = step(StoreOptions)
    executor: ExecutorOptions = step(ExecutorOptions)
    broken: BrokenOptions = step(BrokenOptions)


@dataclass(frozen=True, kw_only=True)
class SortOptions(Options):
    """Which photographs are sorted apart."""

    unsure: float = option(
        0.8, "with --sort-into: photographs whose label is less probable than this go to the folder _unsure", GROUPS[0]
    )

    def check(self) -> None:
        """Raise UsageError for a probability out of range."""
        require(0 <= self.unsure <= 1, "unsure", self.unsure, "a number from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class TableOptions(Options):
    """How a CSV is written."""

    formulas: bool = option(
        False,
        "leave text in a CSV that a spreadsheet takes for a formula (=, +, -, @); else ' is put before it",
        GROUPS[0],
    )


@dataclass(frozen=True, kw_only=True)
class CandidateOptions(Options):
    """What is compared."""

    GROUP = "Network"

    backbones: str | None = option(
        None,
        "names with commas between, or folders of weights; none: those whose weights are installed",
        "Main options",
    )
    cuts: str = option("pooled", "where each is cut: names as for --cut of train, with commas between", "Main options")
    weights: str = option("builtin", "of the backbones that are names: builtin, hub or random")
    size: int | None = option(None, "side of the networks' input in pixels; none: as each was trained")

    def check(self) -> None:
        """Raise UsageError for a list without a name."""
        for name in ("backbones", "cuts"):
            value = getattr(self, name)
            require(value is None or bool(names(value)), name, value, COMMAS)


@dataclass(frozen=True, kw_only=True)
class CompareOptions(Options):
    """The options of `regraft compare`."""

    candidates: CandidateOptions = step(CandidateOptions)
    source: SourceOptions = step(SourceOptions)
    broken: BrokenOptions = step(BrokenOptions)
    split: SplitOptions = step(SplitOptions)
    engine: EngineOptions = step(EngineOptions)
    store: StoreOptions = step(StoreOptions)


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Options):
    """How much is tried, and what of the features."""

    GROUP = "Search"

    trials: int = option(40, "how many combinations are tried", "Main options")
    minutes: float | None = option(
        None, "stop trying after so many minutes, those of earlier runs counted; none: all trials", "Main options"
    )
    cuts: str | None = option(None, "cuts to try, with commas between; none: that of --cut alone")
    views: str = option(
        "auto", "numbers of stored views to try, such as 0,2,6; auto: none, and as many as train would store"
    )

    def check(self) -> None:
        """Raise UsageError for a number out of range, or a list without a name or a number."""
        require(self.trials >= 1, "trials", self.trials, "1 or more")
        require(self.minutes is None or self.minutes > 0, "minutes", self.minutes, "a number above 0, or none")
        require(self.cuts is None or bool(names(self.cuts)), "cuts", self.cuts, COMMAS)
        numbers = names(self.views)
        valid = self.views == "auto" or (bool(numbers) and all(number.isdecimal() for number in numbers))
        require(valid, "views", self.views, "auto, or numbers with commas between")


@dataclass(frozen=True, kw_only=True)
class TuneOptions(Options):
    """The options of `regraft tune`."""

    output: OverwriteOptions = step(OverwriteOptions)
    search: SearchOptions = step(SearchOptions)
    source: SourceOptions = step(SourceOptions)
    broken: BrokenOptions = step(BrokenOptions)
    split: SplitOptions = step(SplitOptions)
    features: FeatureOptions = step(FeatureOptions)
