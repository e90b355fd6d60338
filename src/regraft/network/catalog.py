"""The catalogue: a backbone by name, as an entry or as a network.

A name enters: a common one (see backbones/) or timm's. An entry, or a network
with random weights, leaves. Real weights are left to weights/, where the
network is cut to `cut`, the list for the terminal to `listing`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.errors import RefusedFile, UnknownName, first_line
from regraft.core.text import shorten
from regraft.network import backbones
from regraft.network.backbones import Backbone
from regraft.network.keras import adapt
from regraft.network.keras.adapt import Keras
from regraft.network.workaround_torchvision_nms import import_timm

if TYPE_CHECKING:
    from torch import nn

MOST_PARAMETERS = 8_000_000_000  # timm's largest have 6.7
LARGEST_ARGUMENT = 1 << 13

__all__ = ["Backbone", "build", "check_arguments", "families", "find"]


@functools.cache
def families() -> tuple[Backbone, ...]:
    """Return the entries that backbones/ has under common names, by name."""
    modules = (plugins.load(backbones, name) for name in plugins.names(backbones))
    return tuple(sorted((entry for module in modules for entry in module.BACKBONES), key=lambda entry: entry.name))


def find(name: str) -> Backbone:
    """Return the entry of a common name, which needs no timm, or of any timm name, with or without a tag.

    Raises UnknownName, with the nearest names; paths on a hub or a disk are not names.
    """
    architecture, dot, tag = name.partition(".")
    for entry in families():
        if name == entry.name:
            return entry
        if architecture == entry.architecture and not dot:
            return dataclasses.replace(entry, name=name)
    timm = import_timm()
    if name not in timm.list_models() and name not in timm.list_models(include_tags=True):
        known = {entry.name for entry in families()} | set(timm.list_models())
        raise UnknownName.of("backbone", name, known, "List them with `regraft backbones`.")
    for entry in families():
        if architecture == entry.architecture:
            return dataclasses.replace(entry, name=name, tag=tag, facts=None)
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
    model_args:  from a weights folder or a model folder; they override the entry's own. "keras" is regraft's: "top" or
                 "notop" makes it exactly the network of `keras.applications`, with or without Keras's top.
    num_classes: more than 0 keeps the classifier on top.

    Raises RefusedFile for arguments that the architecture does not take, or that make timm do more than build it.
    The global generator of torch is left as it was.
    """
    import torch

    entry = find(backbone) if isinstance(backbone, str) else backbone
    arguments = {**entry.model_args, **(model_args or {}), "num_classes": num_classes}
    check_arguments(entry.architecture, arguments)
    as_keras = arguments.pop(adapt.ARGUMENT, None)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of the classifier that is left out
        torch.default_generator.manual_seed(seed)
        create = functools.partial(import_timm().create_model, entry.architecture, pretrained=False, **arguments)
        try:
            if model_args:
                _check_size(entry.architecture, create)
            network = create()
        except Exception as error:  # each architecture fails in its own way on arguments that it can't use
            if not model_args or isinstance(error, RefusedFile):
                raise
            values = shorten(repr(dict(model_args)), 200)
            raise RefusedFile(f"{entry.architecture} can't be built with {values}: {first_line(error)}") from error
    if as_keras is not None:
        _keras(entry.architecture).adapt(network, as_keras)
    return network.eval()  # type: ignore[no-any-return]


def _check_size(architecture: str, create: Callable[[], nn.Module]) -> None:
    """Raise RefusedFile for a network that no memory holds; it is built without any for that, where timm can."""
    import torch

    count = 0
    with contextlib.suppress(Exception), torch.device("meta"):  # an architecture may compute while it is built
        count = sum(tensor.numel() for tensor in create().parameters())
    if count > MOST_PARAMETERS:
        raise RefusedFile(
            f"{architecture} with these model arguments has {count:,} parameters; expected at most "
            f"{MOST_PARAMETERS:,}. Take others in config.json."
        )


def _keras(architecture: str) -> Keras:
    """Return what makes an architecture Keras's network."""
    keras = next((entry.keras for entry in families() if entry.architecture == architecture), None)
    if keras is None:
        raise RefusedFile(f"The model arguments ask for Keras's {architecture}, which Keras does not have.")
    return keras


def check_arguments(architecture: str, arguments: Mapping[str, Any], *, ask_timm: bool = True) -> None:
    """Raise RefusedFile if model arguments from a file would do more than shape the network.

    ask_timm: also refuse what the installed timm has beyond the names that are known here, for which it is imported.
    """
    top = arguments.get(adapt.ARGUMENT, "top")
    if top not in adapt.TOPS:
        raise RefusedFile(f"The model argument {adapt.ARGUMENT!r} is {top!r}; expected 'top' or 'notop'.")
    for name, value in arguments.items():
        _check_numbers(name, value)
        if name in _TIMM_ARGUMENTS or (ask_timm and name in _timm_arguments()):
            raise RefusedFile(
                f"The model arguments of {architecture} have {name!r}, which is not an argument of the network. "
                "Take it out of the model_args in config.json."
            )


def _check_numbers(name: str, value: Any) -> None:
    """Raise RefusedFile for a number by which a network would become huge, or not one for three colours."""
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            _check_numbers(name, item)
    if name == "in_chans" and value != 3:
        raise RefusedFile(f"The weights are for {value} channels; expected 3: red, green and blue.")
    if isinstance(value, int | float) and not abs(value) <= LARGEST_ARGUMENT:
        raise RefusedFile(f"The model argument {name!r} has {value}; expected at most {LARGEST_ARGUMENT:,}.")


# The arguments by which timm fetches, adapts or wraps a network: a file must not set them.
_TIMM_ARGUMENTS = frozenset(
    {
        *(
            "cache_dir",
            "checkpoint_path",
            "device",
            "dtype",
            "exportable",
            "feature_cfg",
            "feature_cls",
            "features_only",
        ),
        *("kwargs", "kwargs_filter", "model_cfg", "model_cls", "model_name", "no_jit", "out_indices", "pretrained"),
        *("pretrained_cfg", "pretrained_cfg_overlay", "pretrained_filter_fn", "pretrained_model_args"),
        *("pretrained_strict", "pruned", "scriptable", "variant"),
    }
)


@functools.cache
def _timm_arguments() -> frozenset[str]:
    """Return the same of the installed timm, from its own functions."""
    timm = import_timm()
    functions = (timm.create_model, timm.models.build_model_with_cfg)
    return frozenset(name for function in functions for name in inspect.signature(function).parameters)
