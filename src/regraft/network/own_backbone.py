"""A user's own torch module as a backbone: a copy of it in eval mode, and how an image enters it.

A module enters whose output is its features, pooled (n, D) or a map (n, C, H, W),
and its preprocessing; an `OwnBackbone` leaves, which `cut` divides as it does a
network of the catalogue. A model folder keeps its weights but not its code: the
module is given again when the folder is opened, and a fingerprint of its
features tells whether it still computes the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from regraft.core.errors import RefusedFile, UsageError, first_line
from regraft.network.graph import name_of
from regraft.network.preprocess import Preprocess

_EXAMPLE = "preprocess={'size': 224, 'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}"
_DIGITS = 4  # of a fingerprint; the last may differ between processors, or numbers of threads
_PROJECTIONS = 8


class OwnBackbone(str):
    """The name of a network that is not in the catalogue, with the network: it stands where options name a backbone.

    network:    in eval mode: normalised images (n, 3, S, S) float32 → features (n, …), all its weights filled.
    preprocess: how an image becomes its input.
    """

    network: nn.Module
    preprocess: Preprocess

    def __deepcopy__(self, memo: Any) -> OwnBackbone:
        """Return itself: nothing changes it, and options are copied often."""
        return self


def own_backbone(module: nn.Module, preprocess: Any = None, name: str = "") -> OwnBackbone:
    """Return a module as a backbone: its copy on the CPU, float32, in eval mode; the module itself is left as it is.

    module:     normalised images (n, 3, S, S) → features (n, …); a classifier at its end is replaced by
                `torch.nn.Identity()` first.
    preprocess: how an image becomes its input: a `Preprocess`, a dict with its fields (size, mean, std, resize, …), or
                `transforms()` of torchvision's weights; None takes the `pretrained_cfg` of a network of timm's.
    name:       for messages and the model folder; "" takes timm's name, or the class's.

    Raises UsageError if the module can't be copied, does not take such images or gives no features of each image alone.
    """
    if not isinstance(module, nn.Module):
        raise UsageError(f"The backbone is a {type(module).__name__}; expected a name or a torch.nn.Module.")
    backbone = OwnBackbone(name or name_of(module))
    backbone.preprocess = _preprocess(module, preprocess)
    backbone.network = copied(module)
    _check(backbone)
    return backbone


def copied(module: nn.Module) -> nn.Module:
    """Return a copy of a module on the CPU, float32, in eval mode; raise UsageError if it can't be copied."""
    try:
        return copy.deepcopy(module).cpu().float().eval()
    except Exception as error:  # a module may hold anything
        raise UsageError(f"The backbone {type(module).__name__} can't be copied: {first_line(error)}") from error


def fingerprint(module: nn.Module, size: int) -> list[float]:
    """Return a few numbers that another computation, or other weights, would give otherwise.

    module: in eval mode: normalised images (n, 3, S, S) → features (n, …).
    size:   S, in pixels.

    The length of the features of one fixed image, and their cosines with fixed directions, to four digits.
    """
    with torch.no_grad():
        features = module(_images(1, size)).flatten().double()
    length = float(features.norm())
    directions = [_wave(features.numel(), number) for number in range(1, _PROJECTIONS)]
    cosines = [float(features @ wave / (length * wave.norm() or 1)) for wave in directions]
    return [float(f"{length:.{_DIGITS}g}"), *(round(cosine, _DIGITS) for cosine in cosines)]


def copy_for_model(name: str, module: nn.Module | None) -> nn.Module:
    """Return a copy of the module that a model is opened with; raise RefusedFile if there is none.

    name: of the model's backbone.
    """
    if module is None:
        raise RefusedFile(
            f"The model's backbone {name!r} is a module of its maker's own, whose code is not in the model's folder. "
            "Open it in Python, with the module: regraft.load(folder, backbone=module)."
        )
    return copied(module)


def check_fingerprint(name: str, expected: Sequence[float], computed: Sequence[float]) -> None:
    """Raise RefusedFile if a module's fingerprint is not that of the backbone that a model was made with."""
    pairs = zip(expected, computed, strict=False)
    same = len(expected) == len(computed) and all(math.isclose(*pair, rel_tol=1e-3, abs_tol=2e-4) for pair in pairs)
    if not same:
        raise RefusedFile(
            f"The module is not the model's backbone {name!r}: with the model's weights it gives other features. "
            "Open the model with a module of the same code."
        )


def _preprocess(module: nn.Module, preprocess: Any) -> Preprocess:
    if isinstance(preprocess, Preprocess):
        return preprocess
    if isinstance(preprocess, Mapping):
        return Preprocess.from_dict({"size": None, **preprocess})
    if all(hasattr(preprocess, name) for name in ("crop_size", "resize_size", "mean", "std", "interpolation")):
        return Preprocess.from_torchvision(preprocess)
    if preprocess is None and (config := getattr(module, "pretrained_cfg", None)):
        return Preprocess.from_timm(config)
    kind = "None" if preprocess is None else f"a {type(preprocess).__name__}"
    raise UsageError(f"The preprocessing of your own backbone is {kind}; expected how an image enters it: {_EXAMPLE}.")


def _check(backbone: OwnBackbone) -> None:
    """Refuse a module whose features of an image are no tensor of finite numbers, or depend on more than the image."""
    size = backbone.preprocess.size
    images = _images(2, size)
    try:
        with torch.no_grad():
            together, alone = backbone.network(images), backbone.network(images[:1])
    except Exception as error:  # each module refuses images in its own way
        raise UsageError(
            f"The backbone {backbone} does not take images (2, 3, {size}, {size}): {first_line(error)}"
        ) from error
    for features, count in ((together, 2), (alone, 1)):
        if not isinstance(features, torch.Tensor) or features.ndim < 2 or len(features) != count:
            what = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise UsageError(f"The backbone {backbone} gives {what} for {count} images; expected ({count}, …).")
    if not together.isfinite().all():
        raise UsageError(f"The backbone {backbone} gives NaN or infinity; expected finite numbers.")
    if not torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max())):
        raise UsageError(
            f"The backbone {backbone} gives an image other features when another stands beside it, or at a second "
            "time; expected the same: no randomness and no statistics of the batch in eval mode."
        )


def _images(count: int, size: int) -> torch.Tensor:
    """Return images that are the same on every machine, about as large as normalised ones, (count, 3, S, S)."""
    return _wave(count * 3 * size * size, 1).float().reshape(count, 3, size, size)


def _wave(length: int, number: int) -> torch.Tensor:
    """Return a wave whose frequency grows along it, so that no two parts of it are alike, (length,) float64."""
    return torch.sin(torch.arange(length, dtype=torch.float64).square() * (number / 1000))
