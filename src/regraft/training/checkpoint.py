"""The state of a fit between two epochs, and the file that keeps it.

A file holds tensors (safetensors) and JSON, never a pickle. It says of which
run it is; a file of another run, or a damaged one, is left aside. It is
written so seldom that writing takes a small share of the time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from regraft.core.files import write_file
from regraft.core.progress import log
from regraft.network.tensors import hash_tensors
from regraft.training.examples import Examples
from regraft.training.history import History
from regraft.training.losses import Loss
from regraft.training.options import FitOptions
from regraft.training.schedules import Schedule, ScheduleStep

Tensors = dict[str, torch.Tensor]

SHARE = 0.05  # of the time may go into saving


@dataclass
class State:
    """A fit between two epochs: what it was told, and what it has come to.

    frozen_norms:    parts of the module that stay in eval mode.
    best:     the module's weights and buffers after its best epoch.
    loss:     what a step lowers.
    judging:  the same for the validation part; it weighs the classes where training sees them equally often.
    schedule: the learning rate of any moment; an epoch has `epoch_steps` steps.
    bfloat16: whether products are computed in it.
    """

    module: torch.nn.Module
    frozen_norms: Sequence[torch.nn.Module]
    options: FitOptions
    optimizer: torch.optim.Optimizer
    best: Tensors
    loss: Loss
    judging: Loss
    schedule: Schedule
    epoch_steps: int
    bfloat16: bool
    phase: str
    history: History

    def rate(self, step: int) -> float:
        """Return the learning rate of a step of the phase, from 0."""
        steps = self.options.epochs * self.epoch_steps
        return self.schedule(ScheduleStep(step, steps, self.epoch_steps, self.history.watched))


def weights(module: torch.nn.Module) -> Tensors:
    """Return a copy of a module's weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def identity(state: State, train: Examples, validation: Examples | None) -> str:
    """Return a digest of all that decides a run: its options, its data, what is trained, and the weights before."""
    choices = {field.name: getattr(state.options, field.name) for field in dataclasses.fields(FitOptions)}
    begins = [state.phase, state.history.before, hash_tensors(weights(state.module))]
    told = [choices, state.bfloat16, _groups(state), begins]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for examples in (train, validation):
        for part in _all_examples(examples) if examples else ():
            digest.update(str((tuple(part.inputs.shape), part.labels.shape)).encode())
            for inputs, labels in part.batches():
                digest.update(inputs.data)
                digest.update(labels.data)
        digest.update(b";")
    return digest.hexdigest()


def _groups(state: State) -> list[list[Any]]:
    """Return scale, first epoch and names of each group of parameters: what is frozen, and until when."""
    names = {id(parameter): name for name, parameter in state.module.named_parameters()}
    return [
        [group["scale"], group["from_epoch"], [names.get(id(parameter)) for parameter in group["params"]]]
        for group in state.optimizer.param_groups
    ]


def _all_examples(examples: Examples) -> Iterator[Examples]:
    """Yield the examples as they are, then as each view shows them, and one row as it is augmented anew."""
    for inputs in examples.all_inputs:
        yield dataclasses.replace(examples, inputs=inputs, views=())
    if examples.fresh:
        yield Examples(examples.fresh(1)[np.arange(1)], examples.labels[:1])


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


def save(path: Path, run: str, state: State) -> None:
    """Write the state of the run called `run`; raise StoreError if the disk refuses."""
    tensors = {f"module.{name}": tensor for name, tensor in weights(state.module).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for number, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in values.items()}
    about = {"run": run, "tensors": hash_tensors(tensors), "history": json.dumps(state.history.to_list())}
    write_file(path, to_bytes({name: tensor.contiguous() for name, tensor in tensors.items()}, about))


def resume(path: Path, state: State, train: Examples, validation: Examples | None) -> Keeper:
    """Bring `state` to where the file left this very run, if it did; return what keeps it from now on."""
    run = identity(state, train, validation)
    if path.exists():
        _restore(path, run, state)
    return Keeper(path, run)


def _restore(path: Path, run: str, state: State) -> None:
    try:
        tensors, about = _read(path)
        same = about["run"] == run
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        log.warning("The checkpoint %s is damaged (%s); training starts anew.", path, error)
        return
    if not same:
        log.info("The checkpoint %s is of another run; training starts anew.", path)
        return
    state.module.load_state_dict(_under("module.", tensors))
    state.best = _under("best.", tensors)
    state.optimizer.load_state_dict(state.optimizer.state_dict() | {"state": _optimizer_state(tensors)})
    _lay_out(state.optimizer)
    state.history.add(History.from_list(json.loads(about["history"])).rows[state.history.earlier :])
    log.info("Going on after epoch %d, from %s.", state.history.epochs, path)


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Return a checkpoint's tensors and what is said about them; raise ValueError if they were changed."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    if about["tensors"] != hash_tensors(tensors):
        raise ValueError("its tensors are not those that were written")
    return tensors, about


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Bring the optimizer's tensors into the memory format of their parameter, on which a fused step relies."""
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
