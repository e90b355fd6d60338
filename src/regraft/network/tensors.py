"""A digest of tensors: equal if and only if their names, types, shapes and bytes are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch


def hash_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a digest of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
