"""`regraft.tune`: read → split → search on stored features → train with the best → evaluate, once.

The search (see `tune_search`) uses the training part alone. The test part is
read when the model is trained, and not before.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError, UsageError
from regraft.core.options import change, fields, flat, make, takes_options
from regraft.core.progress import log
from regraft.core.results import Result
from regraft.data import split as splitting
from regraft.data.index import Index
from regraft.pipeline import presets
from regraft.pipeline.compare import reported
from regraft.pipeline.extract import build_network, check_broken, compute
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import SearchOptions, TrainOptions, TuneOptions, names
from regraft.pipeline.read import read_source
from regraft.pipeline.train import train
from regraft.pipeline.tune_search import Search, Trial, fit_choices, load_optuna

if TYPE_CHECKING:
    from regraft.pipeline.report import Report

HELD_OUT = "0.8/0.2"  # of a source without parts where cross-validation would be the rule: a test part is needed


@dataclass(frozen=True, kw_only=True, repr=False)
class Tuned(Result):
    """What a search came to.

    report: of the model that was trained with the best combination; its part had no say in the search.
    trials: in order; the first is the usual recipe, what `train` does without a search.
    best:   the one with the lowest log loss of those that were evaluated on all folds.
    kept:   what the model was trained with: the best, or the usual recipe where the best is not better beyond chance.
    images: of the training part, in so many folds.
    """

    report: Report
    trials: tuple[Trial, ...]
    best: Trial
    kept: Trial
    images: int
    folds: int

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Tuned: {len(self.trials)} trials, {self.best.text()}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the trials and the report as JSON-able data."""
        trials = [dataclasses.asdict(trial) for trial in self.trials]
        best, kept = (trials[self.trials.index(trial)] for trial in (self.best, self.kept))
        return {
            "images": self.images,
            "folds": self.folds,
            "trials": trials,
            "best": best,
            "kept": kept,
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
                f"Usual: {self.trials[0].text()}",
                self._outcome(),
                "",
                self.report.text(),
            ]
        )

    def _outcome(self) -> str:
        """Return in words what the model was trained with, and why."""
        usual = self.trials[0]
        if self.best is usual:
            return "Nothing that was tried beats the usual recipe: the model is trained by it."
        if self.kept is usual:
            return "The best does not beat the usual recipe beyond chance, by the same folds: the usual one is kept."
        return "The best beats the usual recipe beyond chance, by the same folds: the model is trained by it."


@takes_options(TuneOptions)
def tune(source: Any, output: str | Path, *, options: TuneOptions) -> Tuned:
    """Search for head, rate, views and cut on stored features; train the best into a folder.

    Where the best is not better than the usual recipe beyond chance, that is trained: of many combinations the luckiest
    one looks better than it is. Without a named network, features are those of the preset "balanced".

    The same command goes on where it was stopped; with more trials or minutes it goes on from the end.

    source: as for `read`, or an Index; without a test or validation part, one is drawn before the search.
    output: folder for the model; the trials are kept beside it.
    Raises UsageError if Optuna is not installed or nothing can be searched; else what `train` raises.
    """
    from regraft.model.folder import check_target

    output = Path(output).absolute()
    check_target(output)
    load_optuna()
    options = change(options, backbone=presets.resolved(source, _shared(options))[1].features.network.backbone)
    features = options.features
    if features.trains_tail:
        raise UsageError("tune searches on stored features; leave --tail out, and cut above the input.")
    cuts = names(options.search.cuts) if options.search.cuts else [features.network.cut]
    networks = {cut: build_network(change(features, cut=cut)) for cut in cuts}
    options, index = _split(source, options)
    train_features = check_broken(
        compute(index.train, features, network=networks[cuts[0]], broken=options.broken), options.broken
    )
    trials_file = output.with_name(f"{output.name}.trials.jsonl")
    views = _numbers_of_views(train_features.index, options.search.views)
    search = Search(train_features.index, features, networks, views, trials_file)
    trials = search.run(options.search.trials, options.search.minutes)
    best = min((trial for trial in trials if len(trial.losses) == search.folds), key=lambda trial: trial.loss)
    log.info("Best of %d: %s", len(trials), best.text())
    kept = best if _is_better(best, trials[0]) else trials[0]
    report = train(index, output, options=_train_options(kept, options))
    images, folds = len(train_features), search.folds
    return Tuned(report=report, trials=tuple(trials), best=best, kept=kept, images=images, folds=folds)


def _is_better(trial: Trial, usual: Trial) -> bool:
    """Return whether a trial's log loss is lower on the same folds, by a paired test at 5 %."""
    from regraft.evaluation.significance import corrected_t_test

    return corrected_t_test(trial.losses, usual.losses, 1 / len(usual.losses)).outcome == "better"  # of the higher


def _split(source: Any, options: TuneOptions) -> tuple[TuneOptions, Index]:
    """Return the options, with the split that is used, and the index with its parts."""
    index = tied(read_source(source, options.source, options.broken), options.features.store, options.split)
    if options.split.split == "auto" and splitting.folds(index, options.split):
        log.info("A class has few images: a fifth of all is held out, to measure the model that the search leads to.")
        options = change(options, split=HELD_OUT)
    index = splitting.split(index, options=options.split)
    if not reported(index):
        raise DataError(
            f"{index.name} has a training part only; add a test part, to measure the model that the search leads to."
        )
    return options, index


def _train_options(best: Trial, options: TuneOptions) -> TrainOptions:
    """Return the options of the training run that the best trial stands for."""
    return change(
        _shared(options), **fit_choices(best.parameters), cut=best.parameters["cut"], views=best.parameters["views"]
    )


def _shared(options: TuneOptions) -> TrainOptions:
    """Return options of training with what those of the search say about the images and their features."""
    known = fields(TrainOptions).keys() - fields(SearchOptions).keys()
    return make(TrainOptions, {name: value for name, value in flat(options).items() if name in known})


def _numbers_of_views(index: Index, views: str) -> list[int]:
    from regraft.features import augmentation

    if views != "auto":
        return sorted(int(number) for number in names(views))
    return sorted({0, augmentation.count(list(index.class_counts.values()))})
