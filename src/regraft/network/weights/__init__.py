"""Where weights come from, one file a source; the file's name is the value of `--weights`, or its value is a path.

A backbone enters, named tensors and the preprocessing they were trained with
leave. Building the network is left to `catalog`, filling what is needed of it
to `fill` here, and cutting it to `cut`.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.errors import RefusedFile, UnknownName
from regraft.core.text import listed
from regraft.network.backbones import Backbone

if TYPE_CHECKING:
    import torch
    from torch import nn

    from regraft.network.preprocess import Preprocess


_PATH = "file"  # the source that `--weights PATH` means


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors by the network's own names, and where they come from.

    source:     "builtin", "hub", "file", "keras" or "random".
    path:       where they were read: a path, or a hub's name for them; "" for random ones.
    tensors:    name → tensor, float32 where it is floating; may cover a part of the network only, or more than it.
    model_args: what the network must be built with to fit them.
    preprocess: the one they were trained with.
    pretrained: False for random ones.
    """

    source: str
    path: str
    tensors: Mapping[str, torch.Tensor]
    preprocess: Preprocess
    model_args: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    pretrained: bool = True


def load(value: str, backbone: Backbone, seed: int = 0) -> Weights:
    """Return the weights that `--weights VALUE` means for a backbone.

    value: "builtin", "hub", "random", or the path of a file or a folder.
    seed:  what random weights are drawn from.

    Raises WeightsMissing if they are not on this machine and can't be fetched, RefusedFile if they are damaged or for
    another network, UnknownName for a word that is none of these.
    """
    loaded: Weights = plugins.load(sys.modules[__name__], source_of(value)).load(backbone, value, seed)
    return loaded


def source_of(value: str) -> str:
    """Return the source that `--weights VALUE` means, "file" for a path; nothing is read.

    Raises UnknownName if it is neither the name of a source nor a path.
    """
    sources = _sources()
    if value not in sources and not is_path(value):
        raise UnknownName.of("weights", value, sources, "A path works too, as ./NAME if it is a bare name.")
    return value if value in sources else _PATH


def is_path(value: str) -> bool:
    """Whether `--weights VALUE` is a path, existing or not, rather than the name of a source."""
    path = Path(value)
    return value not in _sources() and (path.exists() or bool(path.suffix) or len(path.parts) > 1)


def _sources() -> list[str]:
    return [name for name in plugins.names(sys.modules[__name__]) if name != _PATH]


def fill(network: nn.Module, tensors: Mapping[str, torch.Tensor], needed: Collection[str] | None = None) -> None:
    """Load tensors into a network, in place.

    tensors: may cover more than the network (a classifier) or, with `needed`, less.
    needed:  names in the network's state that must be among them; None means all. Counters of BatchNorm's batches are
             never needed: a frozen network does not read them.

    Raises RefusedFile if nothing fits, if a needed tensor is missing, or if a shape or kind is wrong.
    """
    state = network.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in state}
    if not fitting:
        raise RefusedFile(
            f"None of the {len(tensors)} tensors belongs to {type(network).__name__}: they are named "
            f"like {listed(tensors, 4)}, expected {listed(state, 4)}. Choose the backbone they were made for."
        )
    for name, tensor in fitting.items():
        _check_tensor(name, tensor, state[name])
    absent = [name for name in state if name not in fitting and (needed is None or name in needed)]
    _check_absent(absent, partly=needed is not None)
    network.load_state_dict(fitting, strict=False)


def _check_tensor(name: str, tensor: torch.Tensor, expected: torch.Tensor) -> None:
    if tensor.shape != expected.shape or tensor.is_floating_point() != expected.is_floating_point():
        raise RefusedFile(
            f"The weights' {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; "
            f"the network has {expected.dtype} of shape {tuple(expected.shape)}. "
            "Choose the backbone and the model arguments that they were made for."
        )


def _check_absent(absent: Collection[str], *, partly: bool) -> None:
    absent = [name for name in absent if not name.endswith("num_batches_tracked")]
    if absent:
        hint = " The file may be enough for a lower cut." if partly else ""
        raise RefusedFile(f"The weights lack {len(absent)} tensors that the network needs: {listed(absent, 4)}.{hint}")
