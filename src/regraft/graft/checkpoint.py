"""The state of a fit between two epochs, and the file that keeps it.

A file holds tensors (safetensors) and JSON, never a pickle. It says of which
run it is; a file of another run, or a damaged one, is left aside.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from regraft.core.files import write_file
from regraft.core.progress import log
from regraft.graft.examples import Examples
from regraft.graft.history import History
from regraft.graft.options import FitOptions

Tensors = dict[str, torch.Tensor]


@dataclass
class State:
    """A fit between two epochs: what it was told, and what it has come to."""

    module: torch.nn.Module
    still: Sequence[torch.nn.Module]  # parts of the module that stay in eval mode
    options: FitOptions
    optimizer: torch.optim.Optimizer
    best: Tensors  # the module's weights and buffers after its best epoch
    history: History = dataclasses.field(default_factory=History)


def weights(module: torch.nn.Module) -> Tensors:
    """Return a copy of a module's weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def identity(module: torch.nn.Module, train: Examples, validation: Examples | None, options: FitOptions) -> str:
    """Return a digest of all that decides a run: its options, its data, and the weights it starts from."""
    choices = {field.name: getattr(options, field.name) for field in dataclasses.fields(FitOptions)}
    digest = hashlib.sha256(json.dumps(choices, sort_keys=True).encode())
    digest.update(hash_tensors(weights(module)).encode())
    for examples in (train, validation):
        digest.update(str(tuple(examples.inputs.shape) if examples else None).encode())
        for inputs, labels in examples.batches() if examples else ():
            digest.update(inputs.data)
            digest.update(labels.data)
    return digest.hexdigest()


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a digest of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save(path: Path, run: str, state: State) -> None:
    """Write the state of the run called `run`; raise StoreError if the disk refuses."""
    tensors = {f"module.{name}": tensor for name, tensor in weights(state.module).items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    for number, values in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in values.items()}
    about = {"run": run, "tensors": hash_tensors(tensors), "history": json.dumps(state.history.to_list())}
    write_file(path, to_bytes(tensors, about))


def resume(path: Path, run: str, state: State) -> None:
    """Bring `state` to where the file left the run called `run`; leave it as it is if the file can't serve."""
    if not path.exists():
        return
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
    state.history = History.from_list(json.loads(about["history"]))
    log.info("Going on after epoch %d, from %s.", state.history.epochs, path)


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Return a checkpoint's tensors and what is said about them; raise ValueError if they were changed."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dictionary)
    if about["tensors"] != hash_tensors(tensors):
        raise ValueError("its tensors are not those that were written")
    return tensors, about


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _optimizer_state(tensors: Tensors) -> dict[int, dict[str, Any]]:
    """Return torch's own form: for each parameter's number its tensors by name."""
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in _under("optimizer.", tensors).items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    return state
