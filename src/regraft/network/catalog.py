"""The catalogue: a backbone by name, as a network or as a line of the listing.

A name enters: a common one (see backbones/) or timm's. An entry, a network
with random weights, or rows for the terminal leave. Real weights are left to
weights/, and where the network is cut to `cut`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import inspect
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.errors import RefusedFile, UnknownName
from regraft.core.text import table
from regraft.network import backbones
from regraft.network.backbones import Backbone, Keras
from regraft.network.workaround_torchvision_nms import import_timm

if TYPE_CHECKING:
    from torch import nn

__all__ = ["KERAS", "Backbone", "build", "check_arguments", "families", "find", "listing", "table", "text"]

# The model argument that asks for the network exactly as Keras has it: "top" or "notop" (without Keras's top).
KERAS = "keras"

# Listing more networks than this leaves out what only building them tells.
_BUILT = 20


@functools.cache
def families() -> tuple[Backbone, ...]:
    """Return the entries that backbones/ has under common names, by name."""
    modules = (plugins.load(backbones, name) for name in plugins.names(backbones))
    return tuple(sorted((entry for module in modules for entry in module.BACKBONES), key=lambda entry: entry.name))


def find(name: str) -> Backbone:
    """Return the entry of a common name or of any timm name, with or without a tag.

    Raises UnknownName, with the nearest names; places on a hub or a disk are not names.
    """
    for entry in families():
        if name == entry.name:
            return entry
    timm = import_timm()
    architecture, _, tag = name.partition(".")
    if name not in timm.list_models() and name not in timm.list_models(include_tags=True):
        known = {entry.name for entry in families()} | set(timm.list_models())
        raise UnknownName.of("backbone", name, known, "List them with `regraft backbones`.")
    for entry in families():
        if architecture == entry.architecture:
            return dataclasses.replace(entry, name=name, tag=tag)
    return Backbone(name=name, architecture=architecture, tag=tag)


def build(
    backbone: Backbone | str,
    model_args: Mapping[str, Any] | None = None,
    *,
    num_classes: int = 0,
    seed: int = 0,
) -> nn.Module:
    """Return the network in eval mode, with random weights drawn from `seed`, as wide as its pooled features.

    backbone:    an entry, or a name that `find` takes.
    model_args:  what a weights folder or a model folder says of it; they win over the entry's own. "keras" is ours:
                 "top" or "notop" makes it exactly the network of `keras.applications`, with or without Keras's top.
    num_classes: more than 0 keeps the classifier on top.

    Raises RefusedFile for arguments that the architecture does not take, or that are timm's own affair.
    The global generator of torch is left as it was.
    """
    import torch

    entry = find(backbone) if isinstance(backbone, str) else backbone
    arguments = {**entry.model_args, **(model_args or {}), "num_classes": num_classes}
    check_arguments(entry.architecture, arguments)
    as_keras = arguments.pop(KERAS, None)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of the classifier that is left out
        torch.default_generator.manual_seed(seed)
        try:
            network = import_timm().create_model(entry.architecture, pretrained=False, **arguments)
        except (TypeError, ValueError, AssertionError, RuntimeError, KeyError) as error:
            if not model_args:
                raise
            raise RefusedFile(f"{entry.architecture} can't be built with {dict(model_args)}: {error}") from error
    if as_keras is not None:
        _keras(entry.architecture).adapt(network, as_keras)
    return network.eval()  # type: ignore[no-any-return]


def listing(pattern: str | None = None) -> list[dict[str, Any]]:
    """Return a row per backbone: name, architecture, parameters, input, licence, width, weights.

    pattern: a wildcard ("resnet*") or a part of the name ("vgg"); None lists the common names only.
             Parameters (a count) and width are "" when more than 20 match.
    Raises UnknownName if nothing matches.
    """
    entries = _matching(pattern)
    return [_row(entry, built=len(entries) <= _BUILT) for entry in entries]


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a listing as aligned lines for the terminal."""
    cells = [
        [
            row["name"],
            f"{row['parameters'] / 1e6:.1f} M" if row["parameters"] else "",
            row["input"],
            str(row["width"]),
            row["licence"],
            "yes" if row["weights"] else "",
        ]
        for row in rows
    ]
    titles = ["name", "parameters", "input", "features", "licence", "on this disk"]
    lines = "\n".join(table([titles, *cells], left=len(titles)))
    hint = f"{len(rows)} shown. `regraft backbones 'resnet*'` searches all that timm knows; a few show more."
    return f"{lines}\n\n{hint} `regraft backbones NAME --cuts` lists where one can be cut."


def _matching(pattern: str | None) -> list[Backbone]:
    if pattern is None:
        return list(families())
    common = {name for entry in families() for name in (entry.name, entry.architecture)}
    names = import_timm().list_models()
    entries = [*families(), *(Backbone(name=n, architecture=n) for n in names if n not in common)]
    wildcard = pattern if re.search(r"[*?\[]", pattern) else f"*{pattern}*"
    found = [e for e in entries if fnmatch.filter((e.name, e.architecture), wildcard)]
    if not found:
        raise UnknownName.of("backbone", pattern, [*names, *(entry.name for entry in families())])
    return found


def _row(entry: Backbone, *, built: bool) -> dict[str, Any]:
    from regraft.network import weights

    config = import_timm().models.get_pretrained_cfg(entry.timm_name)
    parameters, width = _measured(entry) if built else ("", "")
    return {
        "name": entry.name,
        "architecture": entry.architecture,
        "parameters": parameters,
        "input": "x".join(map(str, config.input_size[1:])),
        "licence": config.license or "",
        "width": width,
        "weights": weights.on_disk(entry),
    }


def _measured(entry: Backbone) -> tuple[int, int]:
    """Return the count of parameters and the width of the pooled features; no memory is taken for the weights."""
    import torch

    with torch.device("meta"):
        network: Any = build(entry)
    width = getattr(network, "head_hidden_size", None) or network.num_features
    return sum(parameter.numel() for parameter in network.parameters()), width


def _keras(architecture: str) -> Keras:
    """Return what makes an architecture Keras's network."""
    found = next((entry.keras for entry in families() if entry.architecture == architecture), None)
    if found is None:
        raise RefusedFile(f"The model arguments ask for Keras's {architecture}, which Keras does not have.")
    return found


def check_arguments(architecture: str, arguments: Mapping[str, Any]) -> None:
    """Raise RefusedFile if model arguments from a file would do more than shape the network."""
    if arguments.get(KERAS, "top") not in ("top", "notop"):
        raise RefusedFile(f"The model argument {KERAS!r} is {arguments[KERAS]!r}; expected 'top' or 'notop'.")
    for name in arguments:
        if name in _own_arguments():
            raise RefusedFile(
                f"The model arguments of {architecture} have {name!r}, which is not an argument of the network. "
                "Take it out of the model_args in config.json."
            )


@functools.cache
def _own_arguments() -> frozenset[str]:
    """The arguments by which timm fetches, adapts or wraps a network: a file must not set them."""
    timm = import_timm()
    functions = (timm.create_model, timm.models.build_model_with_cfg)
    names = {name for function in functions for name in inspect.signature(function).parameters}
    return frozenset(names | {"features_only", "out_indices", "feature_cls", "pruned", "device", "dtype"})
