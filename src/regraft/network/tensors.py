"""Named tensors outside of a network: as NumPy arrays, in a file, and their digest. Nothing here needs PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from safetensors import safe_open

if TYPE_CHECKING:
    import torch
    from torch import nn


def to_numpy(module: nn.Module) -> dict[str, np.ndarray]:
    """Return copies of a module's parameters and buffers, by name."""
    return {name: np.array(tensor.detach().cpu().numpy()) for name, tensor in module.state_dict().items()}


def to_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return copies of the arrays as torch tensors."""
    import torch

    return {name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()}


def hash_tensors(tensors: Mapping[str, Any]) -> str:
    """Return the sha256 of the names, types, shapes and bytes of tensors; an equal NumPy array has an equal hash."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        number_type = f"torch.{tensor.dtype}" if isinstance(tensor, np.ndarray) else tensor.dtype
        digest.update(f"{name} {number_type} {tuple(tensor.shape)};".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Any) -> memoryview:
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
    import torch

    contents: memoryview = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data
    return contents


class TensorFile(Mapping[str, np.ndarray]):
    """The tensors of a safetensors file, each read when it is asked for; raises SafetensorError or OSError.

    prefix: only the tensors whose names begin with it, known by the rest of their names.
    without: leave out those whose names begin with it, or with one of these.
    """

    def __init__(self, path: Path, prefix: str = "", without: str | tuple[str, ...] = ()) -> None:
        self._prefix = prefix
        self._file = cast("Any", safe_open(path, framework="numpy"))
        names = self._file.keys()
        kept = [name for name in names if name.startswith(prefix) and not name.startswith(without)]
        self._names = [name.removeprefix(prefix) for name in kept]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        tensor: np.ndarray = self._file.get_tensor(self._prefix + name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
