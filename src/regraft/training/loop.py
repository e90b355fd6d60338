"""The one loop that trains: `train` → `epoch` → `step`.

A module and examples enter; the module leaves in eval mode with the weights of
its best epoch, and a History. The shuffling and dropout of an epoch depend on
the seed and the epoch's number alone, so that a run that was killed and resumed
ends as the run that was not.

Where several processes train together each computes the gradient of its own rows of a batch, as a part of the batch's
mean, and the sum is what one process would have computed: order, dropout and the number of steps are the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from regraft.core.errors import Diverged, UsageError
from regraft.core.progress import Advance, log, progress
from regraft.core.rng import derive, generator
from regraft.training import checkpoint as checkpoints
from regraft.training import early_stopping, losses, mixed_precision, optimizers, processes, schedules
from regraft.training.checkpoint import Checkpoint, State
from regraft.training.devices import CPU, device_of
from regraft.training.examples import Examples, Inputs, ahead, batch_rows
from regraft.training.history import Fitted, History, Measured
from regraft.training.hooks import Hooks, TrainingState
from regraft.training.losses import Loss
from regraft.training.optimizers import Group
from regraft.training.options import FitOptions

_BatchNorm = nn.modules.batchnorm._BatchNorm

PLAIN = Loss()  # cross-entropy over the classes
FEW = 1 << 20  # numbers in the inputs of a step, up to which one thread is faster


def train(
    module: nn.Module,
    train: Examples,
    validation: Examples | None,
    options: FitOptions,
    *,
    checkpoint: Checkpoint | None = None,
    frozen_norms: Sequence[nn.Module] = (),
    bfloat16: bool = False,
    groups: Sequence[Group] | None = None,
    start: History | None = None,
    phase: str = "head",
    hooks: Hooks | None = None,
) -> History:
    """Train parameters of `module`, which ends with the weights of its best epoch.

    module:     inputs (n, …) → logits (n, outputs), as many as `Loss.outputs` returns.
    validation: the part by which the best epoch is chosen. Without it the training part is, so that `patience` then
                means "as long as the training loss falls": hold out some training rows for validation where possible.
    checkpoint: keeps the state between epochs; the same run called again resumes from it.
    frozen_norms:      parts of `module` that stay in eval mode, such as BatchNorm with pretrained statistics.
    bfloat16:   compute the module's products in it; weights, optimizer and loss stay float32.
    groups:     all that is trained, and how; None: every parameter that requires a gradient, at the same rate.
    start:      the history of earlier phases. The History begins with its rows and counts the epochs on from it; the
                options, the schedule and the best epoch are of this phase alone.
    phase:      the phase's name in the History, "head" or "tail".
    hooks:      called between the epochs.

    It trains on the device that the module is on, and reads the examples a batch at a time to there.

    A group is frozen before its epoch, and BatchNorm that is frozen keeps its statistics. Small inputs are read into
    memory once; of larger ones the next batch is read during a step.

    In the History the training part's loss and accuracy are means over the epoch's batches as they were trained (with
    dropout, while the weights change); the validation part is evaluated in eval mode at the end of the epoch. Both
    losses are the one that training lowers, with its label smoothing and class weights.

    Raises Diverged when the loss or a weight is NaN or infinite; the module, also in its `kept`, then has its best
    epoch's weights, or those it came with. Raises DataError for inputs that are not finite, UsageError for a loss
    that does not fit the labels.
    """
    history = History(list(start.rows), options.watch, len(start.rows)) if start else History(watch=options.watch)
    state = begin(
        module,
        train,
        options,
        frozen_norms=frozen_norms,
        bfloat16=bfloat16,
        groups=groups,
        phase=phase,
        history=history,
    )
    train, validation = train.in_memory(), validation and validation.in_memory()
    keeper = checkpoints.resume(checkpoint, state) if checkpoint else None
    hooks = hooks or Hooks()
    hooks.on_train_begin(_view(state))
    try:
        reason = _epochs(state, train, validation, keeper, hooks)
    finally:
        module.load_state_dict(state.best)
        module.eval()
    log.info("Stopped after epoch %d: %s. Epoch %d is the best and kept.", history.epochs, reason, history.best_epoch)
    hooks.on_train_end(_view(state))
    return history


def _epochs(
    state: State, train: Examples, validation: Examples | None, keeper: checkpoints.Keeper | None, hooks: Hooks
) -> str:
    """Train one epoch after the other; return in words why training ends."""
    history, options = state.history, state.options
    shape = (options.rows_a_step(len(train)), *train.shape)
    reason = early_stopping.reason(history, options)
    with progress(f"training the {state.phase}", state.epoch_steps * options.epochs) as advance, _threads(shape):
        advance(state.epoch_steps * (history.epochs - history.before))
        while reason is None:
            hooks.on_epoch_begin(_view(state, history.epochs + 1))
            epoch(state, train, validation, advance)
            reason = early_stopping.reason(history, options)
            if hooks.on_epoch_end(_view(state)):
                reason = reason or "a hook asked for it"
            reason = state.together.agreed(reason)
            if keeper and state.together.rank == 0:
                keeper.keep(state, last=reason is not None)
    return reason


def _view(state: State, epoch: int | None = None) -> TrainingState:
    return TrainingState(state.phase, epoch or state.history.epochs, state.history, state.module)


def begin(
    module: nn.Module,
    train: Examples,
    options: FitOptions,
    *,
    frozen_norms: Sequence[nn.Module] = (),
    bfloat16: bool = False,
    groups: Sequence[Group] | None = None,
    phase: str = "head",
    history: History | None = None,
) -> State:
    """Return the state of a fit before its first epoch; the arguments are those of `train`."""
    validation_loss, together = losses.of(options, train.labels), processes.current()
    if together.size > 1:
        _check_norms(module, frozen_norms)
        module.load_state_dict(together.agreed(module.state_dict()))
    groups = groups or [Group([parameter for parameter in module.parameters() if parameter.requires_grad])]
    return State(
        module=module,
        frozen_norms=frozen_norms,
        options=options,
        optimizer=optimizers.build(options.optimizer, groups, options.learning_rate, options.optimizer_settings),
        best=checkpoints.weights(module),
        loss=dataclasses.replace(validation_loss, weights=None) if options.balance == "oversample" else validation_loss,
        validation_loss=validation_loss,
        schedule=schedules.build(options.schedule, options.schedule_settings, options.learning_rate, options.warm_up),
        epoch_steps=len(batch_rows(np.arange(len(train)), options.rows_a_step(len(train)))),
        bfloat16=bfloat16,
        phase=phase,
        history=history or History(watch=options.watch),
        together=together,
    )


def _check_norms(module: nn.Module, frozen_norms: Sequence[nn.Module]) -> None:
    """Refuse BatchNorm that is trained on each process's rows: its statistics would be of fewer rows."""
    frozen = set(map(id, frozen_norms))
    if any(isinstance(part, _BatchNorm) and id(part) not in frozen for part in module.modules()):
        raise UsageError(
            "BatchNorm would be trained by several processes, each on its own rows; expected --batchnorm keep, and "
            "pretrained weights, or one process."
        )


@contextlib.contextmanager
def _threads(shape: tuple[int, ...]) -> Iterator[None]:
    """Compute with one thread where the inputs of a step, of this shape, (rows, …), are too few to be divided.

    On pooled features a step takes less than a millisecond; waiting for a second thread takes longer than it saves, and
    many times longer where another program has its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if len(shape) == 2 and math.prod(shape) <= FEW else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def epoch(state: State, train: Examples, validation: Examples | None, advance: Advance) -> None:
    """Train once on all examples in a new order, measure both parts, keep the weights if they are the best."""
    number = state.history.epochs + 1
    rows = [_measured(state, number, "train", len(train), lambda: _train_once(state, number, train, advance))]
    if validation:
        rows.append(_measured(state, number, "validation", len(validation), lambda: _validate(state, validation)))
    _check_finite(state, rows)
    state.history.add(rows)
    if state.history.best_epoch == number:
        state.best = checkpoints.weights(state.module)


def _measured(
    state: State, number: int, part: str, images: int, work: Callable[[], tuple[float, float, float]]
) -> Measured:
    """Return the History's row of one part in one epoch, from the loss, accuracy and error that `work` returns."""
    began = time.perf_counter()
    loss, accuracy, error = work()
    seconds = state.together.agreed(time.perf_counter() - began)
    log.debug("Epoch %d, %s: loss %.4f, accuracy %.4f (%.1f s)", number, part, loss, accuracy, seconds)
    rate = state.rate((number - state.history.before) * state.epoch_steps - 1)
    return Measured(number, part, loss, accuracy, rate, seconds, state.phase, images, error)


def _train_once(state: State, number: int, train: Examples, advance: Advance) -> tuple[float, float, float]:
    """Train on every example once; return the mean loss and accuracy of the batches, and 0 for an unknown error."""
    in_phase = number - state.history.before  # from 1
    thaw(state, in_phase)
    seed, evenly = state.options.seed, state.options.balance == "oversample"
    size = state.options.rows_a_step(len(train))
    order = generator(seed, "shuffle", number).permutation(len(train)) if size < len(train) else None
    own = state.together.own if state.together.size > 1 else None
    batches = train.epoch(number, seed, evenly=evenly).batches(size, order, own)
    sizes = [len(rows) for rows in batch_rows(np.arange(len(train)), size)]
    total, hits = 0.0, 0
    with seeded(seed, "epoch", number, device=device_of(state.module)):
        steps = zip(batches, sizes, strict=True)
        for count, ((inputs, labels), rows) in enumerate(steps, (in_phase - 1) * state.epoch_steps):
            loss, correct = step(state, inputs, labels, state.rate(count), rows)
            if not math.isfinite(loss):
                raise _diverged(f"The loss became {loss}", state)
            total, hits = total + loss * rows, hits + correct
            advance(1)
    return total / len(train), hits / len(train), 0.0


def thaw(state: State, number: int) -> None:
    """Set the module to train in epoch `number` of the phase, from 1, which alone decides what is frozen.

    What is frozen has no gradient, so that backpropagation ends above it, and its BatchNorm keeps its statistics.
    """
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            parameter.requires_grad_(number >= group["from_epoch"])
    state.module.train()
    for part in (*state.frozen_norms, *filter(_is_frozen_norm, state.module.modules())):
        part.eval()


def _is_frozen_norm(part: nn.Module) -> bool:
    if not isinstance(part, _BatchNorm):
        return False
    trained = [parameter.requires_grad for parameter in part.parameters()]
    return bool(trained) and not any(trained)


def step(
    state: State, inputs: np.ndarray, labels: np.ndarray, rate: float, rows: int | None = None
) -> tuple[float, int]:
    """Update the weights once; return the batch's loss before that, and how many rows were right.

    A group's rate is `rate` times its scale. After a loss that is not finite nothing is updated.
    rows: of the batch, if these are only the process's own of them.
    """
    together, targets = state.together, torch.from_numpy(labels).to(device_of(state.module))
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
        for parameter in group["params"]:
            parameter.grad = None
    with together.dropout(state.module, rows or len(labels)):
        outputs = mixed_precision.forward(state.module, torch.from_numpy(inputs), bfloat16=state.bfloat16)
    loss = part_of_mean(state.loss, outputs, targets, rows or len(labels))
    value, correct = together.summed(loss.item(), int(state.loss.correct(outputs, targets).sum()))
    if math.isfinite(value):
        loss.backward()  # type: ignore[no-untyped-call]
        together.sum_gradients(state.module.parameters())
        state.optimizer.step()
    return value, int(correct)


def part_of_mean(loss: Loss, outputs: torch.Tensor, targets: torch.Tensor, rows: int) -> torch.Tensor:
    """Return what these rows, perhaps none, add to the mean loss of a batch of so many."""
    if len(targets) == rows:
        return loss(outputs, targets)
    return loss(outputs, targets) * (len(targets) / rows) if len(targets) else outputs.sum() * 0


def _check_finite(state: State, rows: Sequence[Measured]) -> None:
    """Raise Diverged if a loss or a weight at the end of an epoch is NaN or infinite."""
    for row in rows:
        if not math.isfinite(row.loss):
            raise _diverged(f"The {row.part} loss became {row.loss}", state)
    if not all(bool(tensor.isfinite().all()) for tensor in state.module.state_dict().values()):
        raise _diverged("A weight became NaN or infinite", state)


def _diverged(what: str, state: State) -> Diverged:
    best, rate = state.history.best_epoch, state.options.learning_rate
    kept = f"those of epoch {best} are kept" if best else "those before training are kept"
    flag = "--tail-learning-rate" if state.phase == "tail" else "--learning-rate"
    error = Diverged(
        f"{what} in epoch {state.history.epochs + 1}, with {flag} {rate:g} and "
        f"--optimizer {state.options.optimizer}. Of the weights, {kept}. Try {flag} {rate / 10:g}."
    )
    error.kept = Fitted.by_epochs(state.module, state.history)
    return error


def _validate(state: State, validation: Examples) -> tuple[float, float, float]:
    loss, parts = state.validation_loss, np.array_split(np.arange(len(validation)), state.together.size)

    def of_rows(rows: np.ndarray) -> np.ndarray:
        return logits(state.module, validation.inputs, rows, bfloat16=state.bfloat16)

    outputs = np.concatenate(list(state.together.in_order(of_rows, parts)))
    return *loss.measure(outputs, validation.labels), loss.error(outputs, validation.labels)


def evaluate(
    module: nn.Module, examples: Examples, loss: Loss = PLAIN, *, bfloat16: bool = False
) -> tuple[float, float]:
    """Return the loss, in nats, and the accuracy, in [0, 1], in eval mode."""
    return loss.measure(logits(module, examples.inputs, bfloat16=bfloat16), examples.labels)


def logits(module: nn.Module, inputs: Inputs, rows: np.ndarray | None = None, *, bfloat16: bool = False) -> np.ndarray:
    """Return the logits (n, outputs) of inputs (n, …), a batch at a time, in eval mode and the module's precision.

    rows: the numbers of those that are wanted; None: all.
    """
    module.eval()
    batch_size = 256 if len(inputs.shape) == 2 else 32  # feature maps are large, and larger in the layers above
    precision = next(module.parameters()).dtype
    rows = np.arange(len(inputs)) if rows is None else rows

    def read(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.require(inputs[rows], None, ["C", "W"])).to(precision)

    batches = (map if isinstance(inputs, np.ndarray) else ahead)(read, batch_rows(rows, batch_size))
    with torch.no_grad():
        outputs = [mixed_precision.forward(module, batch, bfloat16=bfloat16).cpu() for batch in batches]
    return torch.cat(outputs).numpy()


def probabilities(module: nn.Module, inputs: Inputs, loss: Loss = PLAIN) -> np.ndarray:
    """Return the probabilities (n, classes) of inputs (n, …), float64, by the meaning of logits in `loss`."""
    return loss.probabilities(logits(module, inputs))


@contextlib.contextmanager
def seeded(seed: int, *names: str | int, device: torch.device = CPU) -> Iterator[None]:
    """Draw torch's random numbers in the block from `seed` and the names of its use; restore the global state after.

    device: where random numbers are drawn in the block, beside the CPU.
    """
    number, cuda = derive(seed, *names), [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(number)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(number)
        yield
