"""Fine-tuning in two phases: a head on the features of the frozen tail, then the tail and that head together.

An untrained head sends large and meaningless gradients into a pretrained tail,
which loses what it has learned; one that was trained before does not (linear
probing, then fine-tuning: Kumar et al. 2022, arXiv:2202.10054). The weights kept
from the tail's phase lie on the line from those before it to those after it,
where an average is often better than either end (Wortsman et al. 2022,
arXiv:2109.01903). After each phase the model is evaluated on the same rows, and
a later phase is kept where it is better by more than chance explains.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from regraft.core import plugins
from regraft.core.errors import Diverged, UsageError
from regraft.core.progress import log
from regraft.training import checkpoint as checkpoints
from regraft.training import heads, loop, losses, processes
from regraft.training import tail as tails
from regraft.training.checkpoint import Checkpoint
from regraft.training.devices import on
from regraft.training.examples import Examples, check
from regraft.training.history import Fitted, History, Measured
from regraft.training.hooks import Hooks
from regraft.training.losses import Loss
from regraft.training.options import EPOCHS_ALONE, FitOptions

if TYPE_CHECKING:
    from regraft.training.checkpoint import Tensors

SIGNIFICANT = 1.645  # standard errors by which a later phase must be better to be kept
STEPS = (0.25, 0.5, 0.75, 1.0)  # of the way from the weights before the tail's phase to those after it


@dataclass(frozen=True)
class Phase:
    """How the model did on the validation rows after one phase.

    name:    "start" (the model to continue from), "head" or "tail".
    losses:  (n,) of the rows.
    correct: (n,) bool, whether each row is classified correctly.
    epochs:  how many the phase took, 0 for a head that is solved.
    seconds: what the evaluation took.
    chosen:  what the phase chose by itself.
    """

    name: str
    losses: np.ndarray
    correct: np.ndarray
    epochs: int
    seconds: float
    chosen: dict[str, Any]

    @property
    def loss(self) -> float:
        """The mean loss of the rows."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        """The fraction of the rows that is right, in [0, 1]."""
        return float(self.correct.mean())

    def costs(self, watch: str) -> np.ndarray:
        """Return (n,) the cost of each row by the watched measure: its loss, or 1 where it is wrong."""
        return 1.0 - self.correct if watch == "accuracy" else self.losses

    def describe(self) -> dict[str, Any]:
        """Return all but the rows, JSON-able."""
        measures = {"phase": self.name, "loss": self.loss, "accuracy": self.accuracy, "epochs": self.epochs}
        return {**measures, **self.chosen}


@dataclass
class _Run:
    """A fit in progress: its arguments, the phases that are done, and the weights after the best of them."""

    module: nn.Sequential  # the tail and the head
    train: Examples
    validation: Examples | None
    options: FitOptions
    loss: Loss  # of the validation rows
    bfloat16: bool
    hooks: Hooks | None
    device: str
    steps: Sequence[float]  # the averages of the weights before and after the tail's phase that are tried
    history: History = field(default_factory=History)
    done: list[Phase] = field(default_factory=list)
    weights: Tensors = field(default_factory=dict)  # after the best phase

    @property
    def best(self) -> Phase:
        """The phase whose model is kept."""
        return nearest(self.done, self.options.watch, SIGNIFICANT, (self.validation or self.train).independent)


def nearest(phases: Sequence[Phase], watch: str, errors: float = 1.0, pictures: float | None = None) -> Phase:
    """Return the first of the phases that is within so many standard errors of the best by the watched measure.

    Or the first that is right about all rows: their losses then measure its confidence, not its quality. The phases are
    in the order of how far they go from the pretrained weights. The validation rows are few, and have chosen the epoch
    too, which favours the later phase. The rule is that of Breiman et al. 1984 for trees; with SIGNIFICANT
    errors it is a paired test of whether the later phase is better, one-sided, at 5 %. The rows are worth so many
    independent `pictures`; None: all are.
    """
    best = min((phase.costs(watch) for phase in phases), key=np.mean)

    def near(phase: Phase) -> bool:
        gaps = phase.costs(watch) - best
        return bool(phase.correct.all() or gaps.mean() <= errors * gaps.std() / np.sqrt(pictures or len(gaps)))

    return next(filter(near, phases))


def plan(options: FitOptions, *, pretrained: bool, trained: bool) -> tuple[str, ...]:
    """Return the phases to train, in order, of "head" and "tail".

    pretrained: whether the tail's weights are worth keeping. Random ones are trained with their head from the start:
                no head can be built on their features.
    trained:    whether there is a trained model to continue from, whose head needs no phase of its own.

    Raises UsageError where an untrained head would spoil a pretrained tail, or the head can't be trained with one.
    """
    names = tuple(options.phases.split(","))
    if "tail" not in names:
        return names
    if not plugins.load(heads, options.head).TRAINABLE:
        raise UsageError(
            f"--head is {options.head!r}, which keeps training images and can't be trained with a tail. Use another "
            "--head, or leave --tail out."
        )
    if trained or not pretrained:
        return ("tail",)
    if "head" not in names and not options.untrained_head:
        raise UsageError(
            "--phases is 'tail', and the head is untrained: it would spoil the pretrained tail in its first steps. "
            "Use --phases head,tail, or continue from a trained model with --continue, or insist with --untrained-head."
        )
    return names


def fit(
    tail: nn.Module,
    shape: tuple[int, ...],
    train: Examples,
    validation: Examples | None,
    n_classes: int,
    options: FitOptions,
    *,
    pretrained: bool = True,
    bfloat16: bool = False,
    checkpoint: Checkpoint | None = None,
    start: nn.Sequential | None = None,
    hooks: Hooks | None = None,
    device: str = "cpu",
) -> Fitted:
    """Train a head on top of `tail`, and `tail` itself, in place, in the phases of `plan`; return both as one module.

    shape:      of one input, as the trunk outputs it.
    validation: the rows on which each phase is evaluated, by the options' watched measure; None: the training rows.
    bfloat16:   compute products in it, which is faster where the processor supports it; weights stay float32.
    checkpoint: keeps the state of the tail's phase between epochs. The head's, which takes about as long as an epoch or
                two of that, is trained again when a run is resumed, with the same result.
    start:      a trained tail with its head, to continue from.
    hooks:      called between the epochs of both phases.
    device:     where tail and head are trained, such as "cuda"; they come back to the CPU.

    `Fitted.chosen` has under "phases" how each phase ended and under "kept" the one whose weights are kept, see
    `nearest`; `Fitted.correct` has for each phase which of the validation rows were right.

    Raises what `plan`, the head's `fit` and `tail.train` raise; UsageError for a `start` of another architecture. The
    `kept` of Diverged is the better of the phases before and the last good weights of the one that diverged.
    """
    check(train, validation, n_classes)
    names = plan(options, pretrained=pretrained, trained=start is not None)
    loss = losses.of(options, train.labels)
    module = tails.build(tail, shape, loss.outputs(n_classes), options)
    steps = STEPS if pretrained and validation else STEPS[-1:]
    run = _Run(module, train, validation, options, loss, bfloat16, hooks, device, steps)
    with on(module, device):
        if start is not None:
            _load_start(module, start)
            _end(run, _evaluated(run, "start", module, validation or train))
        if "head" in names:
            _fit_head(run, n_classes)
        if "tail" in names:
            _train_tail(run, checkpoint, pretrained=pretrained)
        return _result(run)


def refit(
    tail: nn.Module,
    shape: tuple[int, ...],
    train: Examples,
    n_classes: int,
    options: FitOptions,
    chosen: Mapping[str, Any],
    *,
    pretrained: bool = True,
    bfloat16: bool = False,
) -> Fitted:
    """Return tail and head trained on more rows for what `fit` has chosen on fewer: phases, epochs, average of weights.

    chosen: of its `Fitted`; the phase that is kept was one of those trained.
    """
    phases = {phase["phase"]: phase for phase in chosen["phases"]}
    options = dataclasses.replace(options, **{**EPOCHS_ALONE, **_epochs(list(phases.values()))})
    loss = losses.of(options, train.labels)
    module = tails.build(tail, shape, loss.outputs(n_classes), options)
    steps = [phases[chosen["kept"]].get("share", 1.0)]
    run = _Run(module, train, None, options, loss, bfloat16, None, "cpu", steps)
    if "head" in phases:
        _fit_head(run, n_classes)
    if chosen["kept"] == "tail":
        run.done.clear()
        _train_tail(run, None, pretrained=pretrained)
    return _result(run)


def _epochs(phases: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the best number of epochs of each phase as options; a head that is solved has none."""
    before, epochs = 0, {}
    for phase in phases:
        if phase.get("best_epoch"):
            epochs["tail_epochs" if phase["phase"] == "tail" else "epochs"] = phase["best_epoch"] - before
        before += phase["epochs"]
    return epochs


def _load_start(module: nn.Sequential, start: nn.Sequential) -> None:
    """Load the weights to continue from."""
    if _shapes(start) != _shapes(module):
        raise UsageError(
            "The model to continue from has another network, cut, head or number of classes than this run. "
            "Leave out what differs, or --continue."
        )
    module.load_state_dict(start.state_dict())


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items()}


def _fit_head(run: _Run, n_classes: int) -> None:
    """Fit the head on the tail's features of each image and its views.

    A head that needs no rows held out chooses by cross-validation of the training rows: they are more, and the
    validation rows take no part in the choice. Any other continues from the head of `start`, if there is one.
    """
    options, (tail, trained) = run.options, run.module
    head = plugins.load(heads, options.head)
    train = tails.features(tail, run.train, bfloat16=run.bfloat16)
    held = run.validation and tails.features(tail, run.validation, bfloat16=run.bfloat16)
    begin: dict[str, Any] = {"start": trained} if run.done and head.NEEDS_HELD_OUT else {}
    choosing = held if head.NEEDS_HELD_OUT else None
    begin |= {"hooks": run.hooks, "device": run.device}
    try:
        fitted = head.fit(train, choosing, n_classes, options.head_settings, options, **begin)
    except Diverged as error:
        trained.load_state_dict(error.kept.module.state_dict())
        error.kept = Fitted.of_module(run.module.eval(), error.kept.history, error.kept.chosen)
        raise
    trained.load_state_dict(fitted.module.state_dict())
    run.history = fitted.history
    phase = _evaluated(run, "head", trained, held or train, fitted.chosen)
    _end(run, phase)
    if held and not head.NEEDS_HELD_OUT:
        epoch, images = run.history.epochs, len(held)
        row = Measured(epoch, "validation", phase.loss, phase.accuracy, None, phase.seconds, images=images)
        run.history.add([row])


def _train_tail(run: _Run, checkpoint: Checkpoint | None, *, pretrained: bool) -> None:
    """Train the tail and the head together, and evaluate the result, also where it diverges."""
    before, diverged = checkpoints.weights(run.module), None
    try:
        run.history = tails.train(
            run.module,
            run.train,
            run.validation,
            run.options,
            start=run.history,
            pretrained=pretrained,
            bfloat16=run.bfloat16,
            checkpoint=checkpoint,
            hooks=run.hooks,
        )
    except Diverged as error:
        run.history, diverged = error.kept.history, error
    _end(run, _best_between(run, before))
    if diverged:
        diverged.kept = _result(run)
        raise diverged


def _best_between(run: _Run, before: Tensors) -> Phase:
    """Return the tail's phase with the best average of the weights before and after it; leave the module there."""
    after, phases = checkpoints.weights(run.module), []
    for step in run.steps:
        run.module.load_state_dict(_between(before, after, step))
        chosen = {"best_epoch": run.history.best_epoch, "share": step}
        phases.append(_evaluated(run, "tail", run.module, run.validation or run.train, chosen))
    best = nearest(phases, run.options.watch, pictures=(run.validation or run.train).independent)
    run.module.load_state_dict(_between(before, after, best.chosen["share"]))
    return best


def _between(before: Tensors, after: Tensors, step: float) -> Tensors:
    return {
        name: torch.lerp(before[name], tensor, step) if tensor.is_floating_point() else tensor
        for name, tensor in after.items()
    }


def _evaluated(
    run: _Run, name: str, module: nn.Module, rows: Examples, chosen: Mapping[str, Any] | None = None
) -> Phase:
    """Return how a module does on these rows."""
    began = time.perf_counter()
    logits = processes.current().agreed(loop.logits(module, rows.inputs, bfloat16=run.bfloat16))
    losses, correct = run.loss.of_rows(logits, rows.labels), run.loss.correct(logits, rows.labels)
    epochs = run.history.epochs - run.history.before
    return Phase(name, losses, correct, epochs, time.perf_counter() - began, dict(chosen or {}))


def _end(run: _Run, phase: Phase) -> None:
    """Add a phase that is done; keep the weights of tail and head if it is the best so far."""
    run.done.append(phase)
    if run.best is phase:
        run.weights = checkpoints.weights(run.module)


def _result(run: _Run) -> Fitted:
    """Return the result with the weights of the best phase, and log which it is."""
    run.module.load_state_dict(run.weights)
    if len(run.done) > 1:
        measures = [f"{phase.name}: loss {phase.loss:.4f}, accuracy {phase.accuracy:.2%}" for phase in run.done]
        part = "validation" if run.validation else "train"
        log.info("On the %s part, %s. Kept: %s.", part, "; ".join(measures), run.best.name)
    chosen = {
        "phases": [phase.describe() for phase in run.done],
        "kept": run.best.name,
        "judged_on": run.history.monitored_part,
    }
    correct = {phase.name: phase.correct for phase in run.done}
    return Fitted.of_module(run.module.eval(), run.history, chosen, correct)
