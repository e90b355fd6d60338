"""The size of the input: whether a network takes another one than its weights were trained with, and what it needs.

A backbone, a network or weights, and a size in pixels enter; the same for that
size leave, or an error that names the nearest size that works.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping

import torch
from torch import nn

from regraft.core.errors import RefusedFile, UsageError, first_line
from regraft.network import catalog
from regraft.network.backbones import Backbone
from regraft.network.weights import Weights
from regraft.network.workaround_torchvision_nms import import_timm


def sized(backbone: Backbone, size: int | None) -> Backbone:
    """Return the backbone for an input of `size` pixels, if it has to be built for one size; None: its own size."""
    arguments = {} if size is None else size_arguments(backbone, size)
    if size is None or not arguments:
        return backbone
    trained = import_timm().models.get_pretrained_cfg(backbone.timm_name).input_size[-1]
    check(lambda other: _takes(backbone, other), size, trained, backbone.name)
    return dataclasses.replace(backbone, model_args={**backbone.model_args, **arguments})


def size_arguments(backbone: Backbone, size: int) -> dict[str, int]:
    """Return the model arguments for another size of a network that is built for one size; none for other networks."""
    config = import_timm().models.get_pretrained_cfg(backbone.timm_name)
    return {"img_size": size} if config.fixed_input_size and size != config.input_size[-1] else {}


def _takes(backbone: Backbone, size: int) -> bool:
    """Whether a backbone that is built for one size can be built for this one."""
    try:
        return runs(catalog.build(backbone, size_arguments(backbone, size)), size)
    except RefusedFile:
        return False


def resampled(network: nn.Module, weights: Weights, size: int) -> Mapping[str, torch.Tensor]:
    """Return the tensors, their position embeddings resampled by timm if they are for another size of input."""
    if size == weights.preprocess.size or _fits(network, weights.tensors):
        return weights.tensors
    try:
        resample = sys.modules[type(network).__module__].checkpoint_filter_fn  # type: ignore[attr-defined, unused-ignore]
        tensors: Mapping[str, torch.Tensor] = resample(dict(weights.tensors), network)
    except Exception:  # timm's functions fail in their own ways on weights that they can't resample
        tensors = weights.tensors
    if not _fits(network, tensors):
        raise UsageError(
            f"--size is {size}; {weights.path} is for {weights.preprocess.size} pixels and can't be resampled."
        )
    return tensors


def _fits(network: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
    state = network.state_dict()
    return all(tensor.shape == state[name].shape for name, tensor in tensors.items() if name in state)


def check(works: Callable[[int], bool], size: int, trained: int, name: str) -> None:
    """Refuse a size that does not work, naming the nearest that does on the way to the size that was trained."""
    if size == trained or works(size):
        return
    step = 1 if size < trained else -1
    nearest = next(filter(works, range(size + step, trained, step)), trained)
    least = "at least " if size < trained else ""
    raise UsageError(f"--size is {size}; expected {least}{nearest} pixels: {name} does not take {size}.")


def runs(module: nn.Module, size: int) -> bool:
    """Whether a module takes an image of this size and returns features that are not empty."""
    try:
        return forward(module, size).numel() > 0
    except UsageError:
        return False


def forward(module: nn.Module, size: int) -> torch.Tensor:
    """Return the features of one black image, (1, 3, S, S), by a module in eval mode."""
    try:
        with torch.no_grad():
            features = module(torch.zeros(1, 3, size, size))
    except Exception as error:  # each network refuses a size in its own way
        raise UsageError(
            f"The network does not take an image of {size} by {size} pixels: {first_line(error)}"
        ) from error
    if not isinstance(features, torch.Tensor):
        raise UsageError(f"The network returns a {type(features).__name__} there; expected a tensor. Cut elsewhere.")
    return features
