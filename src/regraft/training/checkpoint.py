"""The state of a fit between two epochs, and the file that keeps it.

A file holds tensors (safetensors) and JSON, never a pickle. It names its run; a
file of another run, or a damaged one, is left aside, and training starts from
the beginning. It is written so seldom that writing takes a small share of the
time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.files import write_file
from regraft.core.progress import log
from regraft.training.history import History
from regraft.training.processes import Processes
from regraft.training.schedules import Schedule, ScheduleStep

if TYPE_CHECKING:
    import numpy as np
    import torch

    from regraft.training.losses import Loss
    from regraft.training.options import FitOptions

    Tensors = dict[str, torch.Tensor]

SHARE = 0.05  # of the time may go into saving


@dataclass(frozen=True)
class Checkpoint:
    """Where a run keeps its state between epochs.

    path: a file, written by `Keeper`; whoever is done with the run deletes it.
    run:  a digest of all that decides the run: data, options, versions. A file of another one is not resumed from.
    """

    path: Path
    run: str


@dataclass
class State:
    """A fit between two epochs: its choices, and how far it has come.

    frozen_norms:    parts of the module that stay in eval mode.
    best:            the module's weights and buffers after its best epoch.
    loss:            what a step lowers.
    validation_loss: the same for the validation part; it weights the classes where training draws them equally often.
    schedule:        the learning rate of each step; an epoch has `epoch_steps` steps.
    bfloat16:        whether products are computed in it.
    together:        the processes that train.
    """

    module: torch.nn.Module
    frozen_norms: Sequence[torch.nn.Module]
    options: FitOptions
    optimizer: torch.optim.Optimizer
    best: Tensors
    loss: Loss
    validation_loss: Loss
    schedule: Schedule
    epoch_steps: int
    bfloat16: bool
    phase: str
    history: History
    together: Processes

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of the phase, from 0."""
        steps = self.options.epochs * self.epoch_steps
        return self.schedule(ScheduleStep(step, steps, self.epoch_steps, self.history.watched))


def weights(module: torch.nn.Module) -> Tensors:
    """Return a copy of a module's weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


class Keeper:
    """Keeps a run's state in a file: after the first epoch, the last, and now and then between."""

    def __init__(self, path: Path, run: str) -> None:
        self.path, self.run = path, run
        self.due = time.monotonic()

    def keep(self, state: State, *, last: bool) -> None:
        """Save the state if it is the last one, or saving has taken no more than SHARE of the time so far."""
        began = time.monotonic()
        if last or began >= self.due:
            save(self.path, self.run, state)
            done = time.monotonic()
            self.due = done + (done - began) / SHARE


def resume(checkpoint: Checkpoint, state: State) -> Keeper:
    """Bring a `state` before its first epoch to where the file left this run, if it did; return what keeps it."""
    run = _phase_of_run(checkpoint.run, state)
    if checkpoint.path.exists():
        _restore(checkpoint.path, run, state)
    return Keeper(checkpoint.path, run)


def _phase_of_run(run: str, state: State) -> str:
    """Return a digest of the run, the phase, the weights that it begins with and how each of them is trained."""
    names = {id(parameter): name for name, parameter in state.module.named_parameters()}
    groups = [
        [group["scale"], group["from_epoch"], [names.get(id(parameter)) for parameter in group["params"]]]
        for group in state.optimizer.param_groups
    ]
    start = _hash(_to_numpy(state.module.state_dict()))
    content = [run, state.phase, state.history.before, state.epoch_steps, state.bfloat16, groups, start]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def save(path: Path, run: str, state: State) -> None:
    """Write the state of the run with this digest; raise StoreError if the disk refuses."""
    from safetensors.numpy import save as to_bytes

    tensors = {f"module.{name}": tensor for name, tensor in state.module.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for number, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in values.items()}
    arrays = _to_numpy(tensors)
    metadata = {"run": run, "tensors": _hash(arrays), "history": json.dumps(state.history.to_list())}
    write_file(path, to_bytes(arrays, metadata))


def _restore(path: Path, run: str, state: State) -> None:
    from safetensors import SafetensorError

    try:
        tensors, metadata = _read(path)
        same = metadata["run"] == run
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("The checkpoint %s is damaged (%s); training starts from the beginning.", path, error)
        return
    if not same:
        log.info("The checkpoint %s is of another run; training starts from the beginning.", path)
        return
    state.module.load_state_dict(_under("module.", tensors))
    state.best = _under("best.", tensors)
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": _optimizer_state(tensors)})
    _match_layout(state.optimizer)
    state.history.add(History.from_list(json.loads(metadata["history"])).rows[state.history.earlier :])
    log.info("Resumed after epoch %d, from %s.", state.history.epochs, path)


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Return a checkpoint's tensors and its metadata; raise ValueError if the tensors were changed."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    if metadata["tensors"] != _hash(arrays):
        raise ValueError("its tensors are not those that were written")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata


def _match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer's tensors the memory format of their parameter, on which a fused step relies."""
    import torch

    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_state(tensors: Tensors) -> dict[int, dict[str, Any]]:
    """Return torch's own form: for each parameter's number its tensors by name."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in _under("optimizer.", tensors).items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    return state


def _to_numpy(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    from regraft.network.tensors import hash_tensors

    return hash_tensors(arrays)
