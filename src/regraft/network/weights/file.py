"""Weights from a path: a .safetensors or .pth file, or a folder in timm's form (config.json + model.safetensors).

Files of Keras's are left to keras/weights. Nothing that is read here can run
code. A file may hold a part of the network's tensors only, or more; what is
needed of them is left to `weights.fill`.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import RefusedFile, UnknownName, UsageError, WeightsMissing, first_line
from regraft.network import catalog
from regraft.network.backbones import Backbone
from regraft.network.keras import weights as keras
from regraft.network.preprocess import Preprocess
from regraft.network.weights import Weights
from regraft.network.workaround_torchvision_nms import import_timm

if TYPE_CHECKING:
    import torch

_PICKLED = (".pth", ".pt", ".bin")
_LARGEST_CONFIG = 10 * 2**20  # bytes; label names make timm's largest about 2 MB
_WRAPPINGS = ("state_dict", "model")
# These names tell torchvision's MobileNetV2 and VGG from timm's; its ResNet and InceptionV3 have timm's names.
_TORCHVISION = frozenset({"features.0.0.weight", "classifier.0.weight"})


def load(backbone: Backbone, where: str, seed: int = 0) -> Weights:  # noqa: ARG001 - one signature for all
    """Return the weights in a file or a folder, with the folder's model arguments and preprocessing.

    With a file alone the preprocessing is that of timm's own weights for the backbone.
    Raises WeightsMissing if there is nothing at the path, RefusedFile if it can't be used as it is.
    """
    path = Path(where)
    if not path.exists():
        raise WeightsMissing(
            f"No such file or folder of weights: {path}. "
            "Expected a .safetensors, .pth, .h5 or .keras file, or a folder in timm's form."
        )
    if _is_keras(path):
        return keras.load(backbone, where)
    if not path.is_dir():
        return _bare(backbone, path)
    description = _config(path)
    return Weights(
        source="file",
        path=str(path),
        tensors=read(path / "model.safetensors"),
        preprocess=_preprocess(path, description["pretrained_cfg"]),
        model_args=_model_args(description),
        licence=str(description["pretrained_cfg"].get("license") or ""),
    )


def _bare(backbone: Backbone, path: Path) -> Weights:
    """Return the weights in a file that holds nothing but named tensors."""
    tensors = read(path)
    preprocess = Preprocess.from_timm(import_timm().models.get_pretrained_cfg(backbone.timm_name).to_dict())
    if not _TORCHVISION.isdisjoint(tensors):
        tensors = _from_torchvision(path, backbone, tensors)
        preprocess = dataclasses.replace(preprocess, crop_share=0.875, interpolation="bilinear")
    return Weights(source="file", path=str(path), tensors=tensors, preprocess=preprocess)


def _from_torchvision(path: Path, backbone: Backbone, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give torchvision's tensors timm's names, by their order; VGG's dense layers are convolutions there."""
    import torch

    values = [value for name, value in tensors.items() if not name.endswith("num_batches_tracked")]
    with torch.device("meta"):
        state = catalog.build(backbone, num_classes=len(values[-1])).state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    if [state[name].numel() for name in names] != [value.numel() for value in values]:
        raise RefusedFile(
            f"{path} is a file of torchvision's, for another network than {backbone.name}. "
            "Choose the --backbone that it is for."
        )
    return {name: value.reshape(state[name].shape) for name, value in zip(names, values, strict=True)}


def architecture(path: str | Path) -> str | None:
    """Return the architecture that a folder in timm's form names, or that a file of Keras's is for; None for others.

    Raises RefusedFile if the folder's config.json can't be used, or names an architecture that timm does not have.
    """
    path = Path(path)
    if _is_keras(path):
        return keras.architecture(path)
    return _config(path)["architecture"] if path.is_dir() else None


def _is_keras(path: Path) -> bool:
    return path.suffix in keras.SUFFIXES and path.is_file()


def read(path: Path) -> dict[str, torch.Tensor]:
    """Return a file's tensors, float32 where they are floating, without the prefix "module." of parallel training.

    Raises RefusedFile for a damaged file, a pickle that holds more than tensors, and values that are not finite.
    """
    import torch

    if not path.is_file():
        raise WeightsMissing(f"The weights file {path} is missing.")
    values = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    tensors = {}
    for name, value in values.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor) or value.layout is not torch.strided:
            raise RefusedFile(f"{path} holds {name!r}, a {type(value).__name__}; expected named, dense tensors only.")
        tensors[name.removeprefix("module.")] = _plain(path, name, value)
    if not tensors:
        raise RefusedFile(f"{path} holds no tensors.")
    return tensors


def _plain(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor detached, and in float32 if it is floating; refuse NaN and infinity."""
    tensor = tensor.detach()
    if not tensor.is_floating_point():
        return tensor
    tensor = tensor.float()
    if not tensor.isfinite().all():
        raise RefusedFile(
            f"{path} has NaN or infinite values in {name}: its training diverged, or it is damaged. Take another file."
        )
    return tensor


def _read_safetensors(path: Path) -> Mapping[Any, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)  # type: ignore[no-any-return]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RefusedFile(f"{path} can't be read as safetensors: {first_line(error)}") from error


def _read_pickle(path: Path) -> Mapping[Any, Any]:
    import torch

    if path.suffix not in _PICKLED:
        raise RefusedFile(f"{path} is of an unknown kind; expected .safetensors, {', '.join(_PICKLED)}, .h5 or .keras.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything; it is named, and nothing of it is used
        raise RefusedFile(f"{path} {_why(error)}") from error
    return _unwrapped(path, content)


def _unwrapped(path: Path, content: Any) -> Mapping[Any, Any]:
    """Return the named tensors of a .pth file, which may stand under "state_dict" or "model"."""
    for wrapping in _WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapping), Mapping):
            content = content[wrapping]
    if not isinstance(content, Mapping):
        raise RefusedFile(f"{path} holds a {type(content).__name__}; expected tensors by name (a state_dict).")
    return content


def _why(error: Exception) -> str:
    """Return what is wrong with a file that torch does not load."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and code:
        return (
            f"is refused: opening it would run code ({code[1]}). "
            "Save only the tensors, best as .safetensors, where you trust the file."
        )
    if isinstance(error, pickle.UnpicklingError):
        return "is damaged or holds more than tensors; nothing of it was run. Save only tensors, best as .safetensors."
    return f"can't be read as a file of tensors: {first_line(error)}"


def _config(folder: Path) -> dict[str, Any]:
    """Return a folder's config.json, checked: it has architecture, model_args and pretrained_cfg."""
    path = folder / "config.json"
    if not path.is_file():
        raise RefusedFile(f"{folder} has no config.json; expected a folder in timm's form: it and model.safetensors.")
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("it is too large")
        config = json.loads(path.read_text("utf-8"))
        return {
            "architecture": catalog.find(config["architecture"]).architecture,
            "model_args": dict(config.get("model_args") or {}),
            "pretrained_cfg": dict(config.get("pretrained_cfg") or config),
        }
    except UnknownName as error:
        raise RefusedFile(f"{path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise RefusedFile(f"{path} is not a model description in timm's form: {reason}.") from error


def _model_args(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that shape the network below the classifier."""
    arguments = {name: value for name, value in description["model_args"].items() if name != "num_classes"}
    catalog.check_arguments(description["architecture"], arguments)
    return arguments


def _preprocess(folder: Path, config: Mapping[str, Any]) -> Preprocess:
    try:
        return Preprocess.from_timm(config)
    except (UsageError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise RefusedFile(f"The preprocessing in {folder / 'config.json'} can't be used: {error}") from error
