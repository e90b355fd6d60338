"""The search of `regraft tune`: trials of heads on stored features, by cross-validation inside the training part.

Training rows enter, trials leave. Optuna proposes (its tree-structured Parzen
estimator), a trial is evaluated by its log loss, and one that falls behind the
median on the first folds is given up.

What a trial came to is kept in a file, a line each. As the same seed and the same
results lead to the same proposals, a search that was stopped is begun again and
finds in that file what it has computed already: it goes on as if it had not been
stopped, and two at once do each other no harm.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core import files, plugins
from regraft.core.errors import DataError, Diverged, UsageError
from regraft.core.progress import log, progress
from regraft.core.rng import derive
from regraft.core.workaround_tqdm_widgets import import_tqdm
from regraft.data.index import Index
from regraft.features.options import AugmentationOptions, FeatureOptions
from regraft.pipeline.compare import labelled
from regraft.pipeline.extract import compute
from regraft.training import heads
from regraft.training.options import FitOptions

if TYPE_CHECKING:
    from regraft.features.extract import Features
    from regraft.inference.runner import CutNetwork
    from regraft.training.examples import Examples

STOPPING = 10  # a head that must know when to stop holds one of so many folds of its training rows out
BEFORE_PRUNING = 5  # trials before one may be given up early

Parameters = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """One combination, and how it did on the folds of the training part; fewer folds if it was given up."""

    parameters: Parameters
    losses: tuple[float, ...]  # log loss of each fold, in nats
    accuracies: tuple[float, ...]
    seconds: float

    @property
    def loss(self) -> float:
        """The mean over the folds; infinite if it diverged on the first."""
        return sum(self.losses) / len(self.losses) if self.losses else math.inf

    @property
    def accuracy(self) -> float:
        """The mean over the folds."""
        return sum(self.accuracies) / len(self.accuracies) if self.accuracies else 0.0

    def text(self) -> str:
        """Return how it did, and what it was."""
        parameters = ", ".join(f"{name} {_shown(value)}" for name, value in self.parameters.items())
        return f"log loss {self.loss:.4f}, accuracy {100 * self.accuracy:.1f} %: {parameters}"


def fit_choices(parameters: Parameters) -> dict[str, Any]:
    """Return a trial's parameters as options of the fit step."""
    of_head = {name: parameters[name] for name in ("hidden", "dropout") if name in parameters}
    rate = {"learning_rate": parameters["learning_rate"]} if "learning_rate" in parameters else {}
    return {"head": parameters["head"], "head_options": of_head or None, **rate}


class Search:
    """Trials on the training rows of an index.

    options:  of the features, all but their cut.
    networks: by the names of the cuts that are tried.
    views:    numbers of stored views that are tried.
    path:     the file that keeps the trials.
    """

    def __init__(
        self,
        index: Index,
        options: FeatureOptions,
        networks: Mapping[str, CutNetwork],
        views: Sequence[int],
        path: Path,
    ) -> None:
        self.index, self.options, self.path = index, options, path
        self.networks, self.cuts, self.views = networks, list(networks), list(views)
        self.seed = options.network.seed
        self._features: dict[tuple[str, int], Features] = {}
        self._known = dict(_read(path))

    def run(self, trials: int, minutes: float | None = None) -> list[Trial]:
        """Return the trials, in order, of earlier runs too; at least one, and no more after so many minutes of them."""
        optuna = load_optuna()
        with _quiet(optuna), progress("trials", trials) as advance:
            sampler = optuna.samplers.TPESampler(seed=derive(self.seed, "tune") % 2**32)
            study = optuna.create_study(
                sampler=sampler, pruner=optuna.pruners.MedianPruner(n_startup_trials=BEFORE_PRUNING)
            )
            for usual in self._usual():
                study.enqueue_trial(usual)
            done: list[Trial] = []
            while not done or (len(done) < trials and _seconds(done) < 60 * (minutes or math.inf)):
                proposed = study.ask()
                done.append(self._tried(proposed))
                self._tell(study, proposed, done[-1])
                advance(1)
        return done

    @cached_property
    def folds(self) -> int:
        """How many folds a trial is evaluated on."""
        return int(self._fold_of.max()) + 1

    def _usual(self) -> list[Parameters]:
        """Return the heads as they are without a search, the usual recipe first: they are tried first."""
        features = {"cut": self.cuts[0], "views": self.views[-1]}
        mlp = {"hidden": 256, "dropout": 0.5, "learning_rate": 1e-3}
        return [{"head": "linear", **features}, {"head": "mlp", **mlp, **features}]

    def _proposed(self, trial: Any) -> Parameters:
        """Return the parameters that Optuna proposes for a trial."""
        features = {
            "cut": trial.suggest_categorical("cut", self.cuts),
            "views": trial.suggest_categorical("views", self.views),
        }
        head = trial.suggest_categorical("head", plugins.names(heads))
        if head != "mlp":  # these choose for themselves, in each fold
            return {"head": head, **features}
        return {
            "head": "mlp",
            "hidden": trial.suggest_int("hidden", 32, 1024, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, 0.8),
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            **features,
        }

    def _tried(self, proposed: Any) -> Trial:
        """Return what a proposal comes to, from the file if it was tried before; given up where it falls behind."""
        parameters, began = self._proposed(proposed), time.perf_counter()
        key = self._key(parameters)
        known = self._known.get(key)
        losses, accuracies = [], []
        for step, (loss, accuracy) in enumerate(_folds_of(known) if known else self._evaluated(parameters)):
            losses.append(loss)
            accuracies.append(accuracy)
            proposed.report(sum(losses) / len(losses), step)
            if proposed.should_prune():
                break
        if known:
            return known
        trial = Trial(parameters, tuple(losses), tuple(accuracies), time.perf_counter() - began)
        _append(self.path, key, trial)
        self._known[key] = trial
        log.info("%s%s", trial.text(), "" if len(losses) == self.folds else " (given up)")
        return trial

    def _tell(self, study: Any, proposed: Any, trial: Trial) -> None:
        from optuna.trial import TrialState

        if len(trial.losses) == self.folds:
            study.tell(proposed, trial.loss)
        else:
            study.tell(proposed, state=TrialState.PRUNED if trial.losses else TrialState.FAIL)

    def _evaluated(self, parameters: Parameters) -> Iterator[tuple[float, float]]:
        """Yield log loss and accuracy on each fold, by a head trained on the others; no more once one diverges."""
        from regraft.training import cross_validation, loop

        options = FitOptions(seed=self.seed, **fit_choices(parameters))
        head = plugins.load(heads, options.head)
        examples = self._examples(parameters).in_memory()
        for fold in range(self.folds):
            train = cross_validation.take(examples, (self._fold_of != fold).nonzero()[0])
            held = cross_validation.take(dataclasses.replace(examples, views=()), (self._fold_of == fold).nonzero()[0])
            train, stopping = _hold_out(train, options.seed) if head.NEEDS_HELD_OUT else (train, None)
            try:
                with _saying_less():
                    fitted = head.fit(train, stopping, len(self.index.classes), options.head_settings, options)
            except Diverged:
                return
            yield loop.evaluate(fitted.module, held)

    def _examples(self, parameters: Parameters) -> Examples:
        features = self._extracted(parameters["cut"], parameters["views"])
        return dataclasses.replace(labelled(features), views=features.views)

    @cached_property
    def _fold_of(self) -> Any:
        """The fold that evaluates each training row, (n,)."""
        from regraft.training import cross_validation

        return cross_validation.draw_folds(self._examples(self._usual()[0]), seed=self.seed)

    def _extracted(self, cut: str, views: int) -> Features:
        if (cut, views) not in self._features:
            augmentation = AugmentationOptions(views=views)
            self._features[cut, views] = compute(self.index, self.options, augmentation, self.networks[cut])
        return self._features[cut, views]

    def _key(self, parameters: Parameters) -> str:
        """Return the sha256 of all that decides what a trial comes to."""
        from regraft.model.provenance import run_digest

        features = self._extracted(parameters["cut"], parameters["views"])
        decides = [parameters, self.seed, self.folds, run_digest(features, {})]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _saying_less() -> Iterator[None]:
    """Leave out how each fold's training went, unless everything is wanted."""
    level = log.level
    log.setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    try:
        yield
    finally:
        log.setLevel(level)


def _seconds(trials: Sequence[Trial]) -> float:
    return sum(trial.seconds for trial in trials)


def _hold_out(train: Examples, seed: int) -> tuple[Examples, Examples | None]:
    """Return what is trained on, and what says when to stop: one of STOPPING folds, if each class can spare some."""
    from regraft.training import cross_validation

    try:
        held = cross_validation.draw_folds(train, STOPPING, seed) == 0
    except DataError:
        return train, None
    stopping = cross_validation.take(dataclasses.replace(train, views=()), held.nonzero()[0])
    return cross_validation.take(train, (~held).nonzero()[0]), stopping


# The file


def _read(path: Path) -> Iterator[tuple[str, Trial]]:
    """Yield the trials in a file by their keys; a line that was cut short is passed over."""
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            values: Mapping[str, Any] = json.loads(line)
            losses, accuracies = tuple(values["losses"]), tuple(values["accuracies"])
            yield values["key"], Trial(values["parameters"], losses, accuracies, values["seconds"])


def _append(path: Path, key: str, trial: Trial) -> None:
    """Put a trial at the end of a file, durably, on a line of its own."""
    with files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(max(0, file.tell() - 1))
            broken = file.read(1) not in (b"", b"\n")
            line = json.dumps({"key": key, **dataclasses.asdict(trial)}) + "\n"
            file.write(b"\n" * broken + line.encode())
            file.flush()
            os.fsync(file.fileno())


def _folds_of(trial: Trial) -> Iterator[tuple[float, float]]:
    return zip(trial.losses, trial.accuracies, strict=True)


# Optuna


def load_optuna() -> Any:
    """Return Optuna; raise UsageError if it is not installed."""
    import_tqdm()
    try:
        import optuna
    except ImportError:
        raise UsageError("tune needs Optuna, which is not installed: `pip install regraft[tune]`.") from None
    return optuna


@contextlib.contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep Optuna from logging each trial, and leave its logging as it was."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
