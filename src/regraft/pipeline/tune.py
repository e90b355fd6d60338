"""`regraft tune`: read → split → search on stored features → train with what was found → measure, once.

The search (see `search`) has the training part alone. The test part is read when
the model is there, and not before.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError, UsageError
from regraft.core.options import merged, option, require
from regraft.core.progress import log
from regraft.data import read as reading
from regraft.data import split as splitting
from regraft.data.index import Index
from regraft.data.read import ReadOptions
from regraft.data.split import SplitOptions
from regraft.network.options import FeatureOptions
from regraft.pipeline.compare import names, reported
from regraft.pipeline.extract import checked, extract
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.tune_search import Search, Trial, fit_choices, load_optuna

if TYPE_CHECKING:
    from regraft.pipeline.report import Report

HELD = "0.8/0.2"  # of a source without parts where cross-validation would be the rule: a test part is needed


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How much is tried, and what of the features."""

    trials: int = option(40, "how many combinations are tried")
    minutes: float | None = option(None, "stop trying after so many minutes, those of earlier runs counted; none: all")
    cuts: str | None = option(None, "cuts to try, with commas between; none: that of --cut alone")
    views: str = option(
        "auto", "numbers of stored views to try, such as 0,2,6; auto: none, and as many as train would store"
    )

    def __post_init__(self) -> None:
        require(self.trials >= 1, "trials", self.trials, "1 or more")
        require(self.minutes is None or self.minutes > 0, "minutes", self.minutes, "a number above 0, or none")
        require(
            self.cuts is None or bool(names(self.cuts)), "cuts", self.cuts, "a name, or several with commas between"
        )
        numbers = names(self.views)
        fit = self.views == "auto" or (bool(numbers) and all(number.isdecimal() for number in numbers))
        require(fit, "views", self.views, "auto, or numbers with commas between")


@merged
@dataclass(frozen=True, kw_only=True)
class TuneOptions(SearchOptions, FeatureOptions, SplitOptions, ReadOptions):
    """The choices of `regraft tune`."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Tuned:
    """What a search came to.

    report: of the model that was trained with the best combination; its part had no say in the search.
    trials: in order; the first ones are the heads as they are without a search.
    best:   the one with the lowest log loss of those that were judged on all folds.
    images: of the training part, in so many folds.
    """

    report: Report
    trials: tuple[Trial, ...]
    best: Trial
    images: int
    folds: int

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Tuned: {len(self.trials)} trials, {self.best.text()}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the trials and the report as JSON-able data."""
        trials = [dataclasses.asdict(trial) for trial in self.trials]
        best = trials[self.trials.index(self.best)]
        return {
            "images": self.images,
            "folds": self.folds,
            "trials": trials,
            "best": best,
            "report": self.report.to_dict(),
        }

    def text(self) -> str:
        """Return the best combination and the report as lines for the terminal."""
        early = sum(len(trial.losses) < self.folds for trial in self.trials)
        return "\n".join(
            [
                f"{len(self.trials)} combinations tried by {self.folds}-fold cross-validation of the {self.images:,} "
                f"training images, {early} of them given up early.",
                f"Best:  {self.best.text()}",
                f"First: {self.trials[0].text()}",
                "",
                self.report.text(),
            ]
        )


def tune(source: Any, output: str | Path, options: TuneOptions) -> Tuned:
    """Search for head, rate, regularisation, views and cut; train with what was found into the folder `output`.

    source: as for `read`; without a test or validation part, one is drawn before the search.
    The same command goes on where it was stopped; with more trials or minutes it goes on from the end.
    Raises UsageError if Optuna is not installed or there is nothing to search; else what `train` raises.
    """
    from regraft.model.model import check_target
    from regraft.pipeline.train import train

    output = Path(output).absolute()
    check_target(output)
    load_optuna()
    if options.trains_tail:
        raise UsageError("tune searches on stored features; leave --tail out, and cut above the input.")
    options, index = _split(source, options)
    cuts = names(options.cuts) if options.cuts else [options.cut]
    features = checked(extract(index.train, dataclasses.replace(options, cut=cuts[0])), options)
    kept = output.with_name(f"{output.name}.trials.jsonl")
    search = Search(features.index, options, cuts, _numbers_of_views(features.index, options), kept)
    trials = search.run(options.trials, options.minutes)
    best = min((trial for trial in trials if len(trial.losses) == search.folds), key=lambda trial: trial.loss)
    log.info("Best of %d: %s", len(trials), best.text())
    report = train(source, output, _found(best, options))
    return Tuned(report=report, trials=tuple(trials), best=best, images=len(features), folds=search.folds)


def _split(source: Any, options: TuneOptions) -> tuple[TuneOptions, Index]:
    """Return the split index, and the options by which `train` splits it alike."""
    index = reading.read(source, options=options)
    if options.split == "auto" and splitting.folds(index, options):
        log.info("There are few images of a class: a fifth of them is held out, to measure what the search has found.")
        options = dataclasses.replace(options, split=HELD)
    index = splitting.split(index, options=options)
    if not reported(index):
        raise DataError(
            f"{index.name} has a training part only; add a test part, to measure what the search has found."
        )
    return options, index


def _found(best: Trial, options: TuneOptions) -> TrainOptions:
    """Return the options of the run that the best trial stands for."""
    own = {field.name for field in dataclasses.fields(TrainOptions)}
    searched = {field.name for field in dataclasses.fields(SearchOptions)}
    shared = {name: value for name, value in vars(options).items() if name in own - searched}
    chosen = {name: best.parameters[name] for name in ("cut", "views")}
    return TrainOptions(**{**shared, **fit_choices(best.parameters), **chosen})


def _numbers_of_views(index: Index, options: TuneOptions) -> list[int]:
    from regraft.features import augmentation as views

    if options.views != "auto":
        return sorted(int(number) for number in names(options.views))
    return sorted({0, views.count(list(index.class_counts.values()))})
