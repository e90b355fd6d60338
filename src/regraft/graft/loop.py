"""The one loop that trains: `train` → `epoch` → `step`.

A module and examples enter; the module leaves in eval mode with the weights
of its best epoch, beside a History. Every epoch's shuffling and dropout are
drawn from the seed and the epoch's number alone, so that a run that was
killed and resumed ends as the run that was not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from regraft.core.errors import Diverged
from regraft.core.progress import Advance, log, progress
from regraft.core.rng import derive, generator
from regraft.graft import checkpoint as checkpoints
from regraft.graft import mixed, optimizers
from regraft.graft.checkpoint import State
from regraft.graft.examples import Examples, Inputs, ahead, cut
from regraft.graft.history import Fitted, History, Measured
from regraft.graft.options import FitOptions

FEW = 1 << 20  # numbers that a step takes in, up to which one thread is faster


def train(
    module: nn.Module,
    train: Examples,
    validation: Examples | None,
    options: FitOptions,
    *,
    checkpoint: Path | None = None,
    still: Sequence[nn.Module] = (),
    bfloat16: bool = False,
) -> History:
    """Train the parameters of `module` that require a gradient; its best epoch's weights are what it ends with.

    module:     inputs (n, …) → logits (n, classes).
    validation: judges the epochs. Without it the training loss does, so that `patience` then means "as long as the
                training loss falls": hold some training rows out as validation where you can.
    checkpoint: a file that keeps the state between epochs; the same run called again goes on from it.
    still:      parts of `module` that stay in eval mode, such as BatchNorm with pretrained statistics.
    bfloat16:   compute the module's products in it; weights, optimizer and loss stay float32.

    Small inputs are read into memory once; of larger ones the next batch is read while a step is taken.

    In the History the training part's loss and accuracy are means over the epoch's batches as they were trained
    (dropout at work, weights changing); the validation part is measured in eval mode at the epoch's end.

    Raises Diverged when the loss or a weight is NaN or infinite; the module, also in its `kept`, then has its best
    epoch's weights, or those it came with. Raises DataError for inputs that are not finite.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = optimizers.build(options.optimizer, trained, options.learning_rate)
    state = State(module, still, options, optimizer, checkpoints.weights(module), bfloat16)
    train, validation = train.in_memory(), validation and validation.in_memory()
    keeper = checkpoints.resume(checkpoint, state, train, validation) if checkpoint else None
    rows = options.rows_a_step(len(train))
    steps = len(cut(np.arange(len(train)), rows))
    try:
        with progress("training", steps * options.epochs) as advance, _threads((rows, *train.shape)):
            advance(steps * state.history.epochs)
            while not finished(state.history, options):
                epoch(state, train, validation, advance)
                if keeper:
                    keeper.keep(state, last=finished(state.history, options))
    finally:
        module.load_state_dict(state.best)
        module.eval()
    log.info("Trained %d epochs; epoch %d is the best and kept.", state.history.epochs, state.history.best_epoch)
    return state.history


@contextlib.contextmanager
def _threads(shape: tuple[int, ...]) -> Iterator[None]:
    """Compute with one thread where a step's inputs of this shape, (rows, …), are too few numbers to share out.

    On pooled features a step takes less than a millisecond; a thread that has to be waited for costs more than it
    brings, and many times more where another program has its core.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if len(shape) == 2 and math.prod(shape) <= FEW else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def finished(history: History, options: FitOptions) -> bool:
    """Return whether all epochs are done, or the last `patience` of them brought no lower loss."""
    waited = history.epochs - history.best_epoch
    return history.epochs >= options.epochs or (options.patience is not None and waited >= options.patience)


def epoch(state: State, train: Examples, validation: Examples | None, advance: Advance) -> None:
    """Go once over the training examples in a fresh order, measure both parts, keep the weights if they are best."""
    number = state.history.epochs + 1
    rows = [_measured(number, "train", state.options, lambda: _train_once(state, number, train, advance))]
    if validation:
        rows.append(_measured(number, "validation", state.options, lambda: _validate(state, validation)))
    _check_finite(state, rows)
    state.history.add(rows)
    if state.history.best_epoch == number:
        state.best = checkpoints.weights(state.module)


def _measured(number: int, part: str, options: FitOptions, work: Callable[[], tuple[float, float]]) -> Measured:
    """Do the work of one part in one epoch, which gives its loss and accuracy; return the row of the History."""
    began = time.perf_counter()
    loss, accuracy = work()
    seconds = time.perf_counter() - began
    log.debug("Epoch %d, %s: loss %.4f, accuracy %.4f (%.1f s)", number, part, loss, accuracy, seconds)
    return Measured(number, part, loss, accuracy, options.learning_rate, seconds)


def _train_once(state: State, number: int, train: Examples, advance: Advance) -> tuple[float, float]:
    """Train on every example once; return the mean loss and accuracy of the batches."""
    state.module.train()
    for part in state.still:
        part.eval()
    seed = state.options.seed
    order = generator(seed, "shuffle", number).permutation(len(train))
    losses, hits = 0.0, 0
    with seeded(seed, "epoch", number):
        for inputs, labels in train.epoch(number, seed).batches(state.options.rows_a_step(len(train)), order):
            loss, right = step(state, inputs, labels)
            if not math.isfinite(loss):
                raise _diverged(f"The loss became {loss}", state)
            losses, hits = losses + loss * len(labels), hits + right
            advance(1)
    return losses / len(train), hits / len(train)


def step(state: State, inputs: np.ndarray, labels: np.ndarray) -> tuple[float, int]:
    """Change the weights once; return the batch's loss before that, and how many were right.

    A loss that is not finite changes nothing.
    """
    targets = torch.from_numpy(labels)
    outputs = mixed.forward(state.module, torch.from_numpy(inputs), bfloat16=state.bfloat16)
    loss = functional.cross_entropy(outputs, targets)
    if math.isfinite(value := loss.item()):
        state.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
    return value, int((outputs.argmax(1) == targets).sum())


def _check_finite(state: State, rows: Sequence[Measured]) -> None:
    """Raise Diverged if what an epoch ends with is NaN or infinite."""
    for row in rows:
        if not math.isfinite(row.loss):
            raise _diverged(f"The {row.part} loss became {row.loss}", state)
    if not all(bool(tensor.isfinite().all()) for tensor in state.module.state_dict().values()):
        raise _diverged("A weight became NaN or infinite", state)


def _diverged(what: str, state: State) -> Diverged:
    best, rate = state.history.best_epoch, state.options.learning_rate
    kept = f"those of epoch {best} are kept" if best else "those before training are kept"
    error = Diverged(
        f"{what} in epoch {state.history.epochs + 1}, with --learning-rate {rate:g} and "
        f"--optimizer {state.options.optimizer}. Of the weights, {kept}. Try --learning-rate {rate / 10:g}."
    )
    error.kept = Fitted.by_epochs(state.module, state.history)
    return error


def _validate(state: State, validation: Examples) -> tuple[float, float]:
    return evaluate(state.module, validation, bfloat16=state.bfloat16)


def evaluate(module: nn.Module, examples: Examples, *, bfloat16: bool = False) -> tuple[float, float]:
    """Return the mean cross-entropy in nats and the share that is right, in eval mode."""
    outputs = torch.from_numpy(logits(module, examples.inputs, bfloat16=bfloat16)).double()
    labels = torch.from_numpy(examples.labels)
    loss = functional.cross_entropy(outputs, labels)
    return loss.item(), (outputs.argmax(1) == labels).double().mean().item()


def logits(module: nn.Module, inputs: Inputs, batch_size: int = 256, *, bfloat16: bool = False) -> np.ndarray:
    """Return the logits (n, classes) of inputs (n, …), a batch at a time, in eval mode and the module's precision."""
    module.eval()
    precision = next(module.parameters()).dtype

    def read(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.require(inputs[rows], None, ["C", "W"])).to(precision)

    batches = (map if isinstance(inputs, np.ndarray) else ahead)(read, cut(np.arange(len(inputs)), batch_size))
    with torch.no_grad():
        return torch.cat([mixed.forward(module, batch, bfloat16=bfloat16) for batch in batches]).numpy()


def probabilities(module: nn.Module, inputs: Inputs) -> np.ndarray:
    """Return the probabilities (n, classes) of inputs (n, …), float64; each row sums to 1."""
    return torch.from_numpy(logits(module, inputs)).double().softmax(1).numpy()


@contextlib.contextmanager
def seeded(seed: int, *names: str | int) -> Iterator[None]:
    """Draw torch's random numbers of the block from `seed` and its use; leave its global state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *names))
        yield
