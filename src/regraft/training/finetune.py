"""Fine-tuning in two phases: a head on what the frozen tail says, then the tail and that head together.

A head that has learnt nothing sends large and meaningless gradients into a
pretrained tail, which loses what it knew; one that was solved before does not
(linear probing, then fine-tuning: Kumar et al. 2022, arXiv:2202.10054). What
the tail's phase ends with lies somewhere on the way from the weights before it
to those after it, which is often better than either (Wortsman et al. 2022,
arXiv:2109.01903). After each phase the model is judged on the same rows, and
a later one is kept where it is better by more than chance would have it.
"""

from __future__ import annotations

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
from regraft.training import heads, loop, losses
from regraft.training import tail as tails
from regraft.training.checkpoint import Checkpoint
from regraft.training.devices import on
from regraft.training.examples import Examples, check
from regraft.training.history import Fitted, History, Measured
from regraft.training.hooks import Hooks
from regraft.training.losses import Loss
from regraft.training.options import FitOptions

if TYPE_CHECKING:
    from regraft.training.checkpoint import Tensors

SHARES = (0.25, 0.5, 0.75, 1.0)  # of the way from the weights before the tail's phase to those after it


@dataclass(frozen=True)
class Phase:
    """How the model did on the judging rows after one phase.

    name:    "start" (a model to go on from), "head" or "tail".
    losses:  (n,) of the rows.
    correct:   (n,) bool, which rows it was right about.
    epochs:  how many the phase took, 0 for what is solved in one go.
    seconds: what judging took.
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
        """The share of the rows that is right, in [0, 1]."""
        return float(self.correct.mean())

    def costs(self, watch: str) -> np.ndarray:
        """Return (n,) what each row costs by the watched measure: its loss, or 1 where it is wrong."""
        return 1.0 - self.correct if watch == "accuracy" else self.losses

    def describe(self) -> dict[str, Any]:
        """Return all but the rows, JSON-able."""
        own = {"phase": self.name, "loss": self.loss, "accuracy": self.accuracy, "epochs": self.epochs}
        return {**own, **self.chosen}


@dataclass
class _Run:
    """A fit under way: what it is told, the phases that are done, and the weights after the best of them."""

    module: nn.Sequential  # the tail and the head
    train: Examples
    validation: Examples | None
    options: FitOptions
    loss: Loss  # that judges
    bfloat16: bool
    hooks: Hooks | None
    device: str
    history: History = field(default_factory=History)
    done: list[Phase] = field(default_factory=list)
    weights: Tensors = field(default_factory=dict)  # after the best phase

    @property
    def best(self) -> Phase:
        """The phase whose model is kept."""
        return nearest(self.done, self.options.watch)


def nearest(phases: Sequence[Phase], watch: str) -> Phase:
    """Return the first of the phases that is within a standard error of the best by the watched measure.

    Or the first that is right about all rows: their losses then say how sure it is, not how good. The phases are in the
    order of how far they go from the weights that the network came with. The rows that judge are few, and have chosen
    an epoch too, which favours what goes far. The rule is that of Breiman et al. 1984 for trees.
    """
    best = min((phase.costs(watch) for phase in phases), key=np.mean)

    def near(phase: Phase) -> bool:
        gaps = phase.costs(watch) - best
        return bool(phase.correct.all() or gaps.mean() <= gaps.std() / np.sqrt(len(gaps)))

    return next(filter(near, phases))


def plan(options: FitOptions, *, pretrained: bool, trained: bool) -> tuple[str, ...]:
    """Return the phases that are to be gone through, in order, of "head" and "tail".

    pretrained: whether the tail's weights are worth keeping. Random ones are trained with their head at once: what
                they say before is no ground for a head.
    trained:    whether there is a trained model to go on from, whose head needs no phase of its own.

    Raises UsageError where an untrained head would spoil a pretrained tail.
    """
    names = tuple(options.phases.split(","))
    if "tail" not in names:
        return names
    if trained or not pretrained:
        return ("tail",)
    if "head" not in names and not options.untrained_head:
        raise UsageError(
            "--phases is 'tail', and the head is untrained: it would spoil the pretrained tail in its first steps. "
            "Use --phases head,tail, or go on from a trained model with --continue, or insist with --untrained-head."
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
    """Train a head on top of `tail`, and `tail` itself, in place, as `plan` says; `Fitted.module` is the two in a row.

    shape:      of one input, as the trunk gives it.
    validation: the rows that judge each phase, by the options' watched measure; the training rows where there are none.
    bfloat16:   compute products in it, which pays where the processor is built for it; what is learnt stays float32.
    checkpoint: keeps the state of the tail's phase between epochs. The head's, which takes about as long
                as an epoch or two of that, is gone through again when a run is resumed, to the same end.
    start:      a trained tail with its head, to go on from.
    hooks:      called between the epochs of both phases.
    device:     where tail and head are trained, such as "cuda"; they come back to the CPU.

    `Fitted.chosen` has under "phases" how each phase ended and under "kept" the one whose model it is, see `nearest`;
    `Fitted.correct` says for each phase which of the judging rows were right.

    Raises what `plan`, the head's `fit` and `tail.train` raise; UsageError for a `start` of another make. In the
    `kept` of Diverged is the better of the phases before and what the last one came to.
    """
    check(train, validation, n_classes)
    names = plan(options, pretrained=pretrained, trained=start is not None)
    loss = losses.of(options, train.labels)
    module = tails.build(tail, shape, loss.outputs(n_classes), options)
    run = _Run(module, train, validation, options, loss, bfloat16, hooks, device)
    with on(module, device):
        if start is not None:
            _take_over(module, start)
            _end(run, _judged(run, "start", module, validation or train))
        if "head" in names:
            _fit_head(run, n_classes)
        if "tail" in names:
            _train_tail(run, checkpoint, pretrained=pretrained)
        return _kept(run)


def _take_over(module: nn.Sequential, start: nn.Sequential) -> None:
    """Load the weights to go on from."""
    given = start.state_dict()
    if {name: tensor.shape for name, tensor in given.items()} != {n: t.shape for n, t in module.state_dict().items()}:
        raise UsageError("The model to go on from has another network, cut, head or number of classes than this run.")
    module.load_state_dict(given)


def _fit_head(run: _Run, n_classes: int) -> None:
    """Fit the head on what the tail says of each image and its views.

    A head that needs no rows held out chooses by cross-validation of the training rows: they are more, and those that
    judge stay out of it. Another goes on from that of the model to start from, if there is one.
    """
    options, (tail, own) = run.options, run.module
    head = plugins.load(heads, options.head)
    train = tails.pooled(tail, run.train, bfloat16=run.bfloat16)
    held = run.validation and tails.pooled(tail, run.validation, bfloat16=run.bfloat16)
    begin: dict[str, Any] = {"start": own} if run.done and head.NEEDS_HELD_OUT else {}
    choosing = held if head.NEEDS_HELD_OUT else None
    begin |= {"hooks": run.hooks, "device": run.device}
    try:
        fitted = head.fit(train, choosing, n_classes, options.head_settings, options, **begin)
    except Diverged as error:
        own.load_state_dict(error.kept.module.state_dict())
        error.kept = Fitted.of_module(run.module.eval(), error.kept.history, error.kept.chosen)
        raise
    own.load_state_dict(fitted.module.state_dict())
    run.history = fitted.history
    phase = _judged(run, "head", own, held or train, fitted.chosen)
    _end(run, phase)
    if held and not head.NEEDS_HELD_OUT:
        epoch, images = run.history.epochs, len(held)
        row = Measured(epoch, "validation", phase.loss, phase.accuracy, None, phase.seconds, images=images)
        run.history.add([row])


def _train_tail(run: _Run, checkpoint: Checkpoint | None, *, pretrained: bool) -> None:
    """Train the tail and the head together; whether or not that diverges, judge what it came to."""
    told: dict[str, Any] = {
        "pretrained": pretrained,
        "bfloat16": run.bfloat16,
        "checkpoint": checkpoint,
        "hooks": run.hooks,
    }
    before, diverged = checkpoints.weights(run.module), None
    try:
        run.history = tails.train(run.module, run.train, run.validation, run.options, start=run.history, **told)
    except Diverged as error:
        run.history, diverged = error.kept.history, error
    _end(run, _best_between(run, before, SHARES if pretrained and run.validation else SHARES[-1:]))
    if diverged:
        diverged.kept = _kept(run)
        raise diverged


def _best_between(run: _Run, before: Tensors, shares: Sequence[float]) -> Phase:
    """Return the tail's phase at the best of the shares of its way, in rising order, and leave the module there."""
    after, found = checkpoints.weights(run.module), []
    for share in shares:
        run.module.load_state_dict(_between(before, after, share))
        chosen = {"best_epoch": run.history.best_epoch, "share": share}
        found.append(_judged(run, "tail", run.module, run.validation or run.train, chosen))
    best = nearest(found, run.options.watch)
    run.module.load_state_dict(_between(before, after, best.chosen["share"]))
    return best


def _between(before: Tensors, after: Tensors, share: float) -> Tensors:
    return {
        name: torch.lerp(before[name], tensor, share) if tensor.is_floating_point() else tensor
        for name, tensor in after.items()
    }


def _judged(run: _Run, name: str, module: nn.Module, rows: Examples, chosen: Mapping[str, Any] | None = None) -> Phase:
    """Return how a module does on the rows that judge."""
    began = time.perf_counter()
    logits = loop.logits(module, rows.inputs, bfloat16=run.bfloat16)
    losses, correct = run.loss.of_rows(logits, rows.labels), run.loss.correct(logits, rows.labels)
    epochs = run.history.epochs - run.history.before
    return Phase(name, losses, correct, epochs, time.perf_counter() - began, dict(chosen or {}))


def _end(run: _Run, phase: Phase) -> None:
    """End a phase; keep its weights of tail and head if it is the one to keep so far."""
    run.done.append(phase)
    if run.best is phase:
        run.weights = checkpoints.weights(run.module)


def _kept(run: _Run) -> Fitted:
    """Return the best phase's model, and say which it is."""
    run.module.load_state_dict(run.weights)
    if len(run.done) > 1:
        told = [f"{phase.name}: loss {phase.loss:.4f}, accuracy {phase.accuracy:.2%}" for phase in run.done]
        part = "validation" if run.validation else "train"
        log.info("On the %s part, %s. Kept: %s.", part, "; ".join(told), run.best.name)
    chosen = {
        "phases": [phase.describe() for phase in run.done],
        "kept": run.best.name,
        "judged_on": run.history.monitored_part,
    }
    correct = {phase.name: phase.correct for phase in run.done}
    return Fitted.of_module(run.module.eval(), run.history, chosen, correct)
