"""The network of a model folder: trunks and tail as tensors of one file with their description, and back."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.core.errors import RefusedFile
from regraft.network import build
from regraft.network.tensors import TensorFile
from regraft.network.trunk import Choice, Tail, Trunk

if TYPE_CHECKING:
    from torch import nn

TAIL = "tail."  # before the names of the tail's tensors
JOINED = "joined."  # and a number, before those of each further trunk's


def tensors(trunks: Sequence[Trunk], tail: Tail | None) -> dict[str, np.ndarray]:
    """Return the tensors of all by name, the first trunk's as they are."""
    further = {
        f"{JOINED}{number}.{name}": tensor
        for number, trunk in enumerate(trunks[1:])
        for name, tensor in trunk.tensors().items()
    }
    above = tail.network.tensors() if tail else {}
    return {**trunks[0].tensors(), **further, **{TAIL + name: tensor for name, tensor in above.items()}}


def describe(trunks: Sequence[Trunk], tail: Tail | None) -> dict[str, Any]:
    """Return what `restore` needs beside the tensors, JSON-able."""
    network = {**trunks[0].describe(), "end": None, "tail": tail is not None}
    if tail:
        network |= {"pool": tail.pool, "end": tail.end, "tail_output_shape": list(tail.output_shape)}
    return {"trunk": network, "joined": [trunk.describe() for trunk in trunks[1:]]}


def restore(
    path: Path, described: Mapping[str, Any], choice: Choice, own: nn.Module | None
) -> tuple[tuple[Trunk, ...], Tail | None]:
    """Return the trunks, and the tail if one was trained, of the file of tensors and the description.

    choice: what computes the frozen part here.
    own:    the module that was its backbone, if that was the user's own.
    """
    description, further = described["trunk"], described.get("joined", [])
    has_tail, above = bool(description["tail"]), TensorFile(path, TAIL)
    read = functools.partial(TensorFile, path, without=(TAIL, JOINED) if further else TAIL)
    trunk = build.restore(description, read, choice, for_tail=has_tail, own=own)
    if has_tail:
        end, pool = description.get("end"), description["pool"]  # the first models had no end
        shape = description.get("tail_output_shape")
        return (trunk,), build.restore_tail(trunk, end, pool, shape, functools.partial(TensorFile, path, TAIL))
    if above:
        raise RefusedFile(f"{path} holds a tail of {len(above)} tensors, and the model's description has none.")
    reads = (functools.partial(TensorFile, path, f"{JOINED}{number}.") for number in range(len(further)))
    return (trunk, *(build.restore(*each, choice) for each in zip(further, reads, strict=True))), None
