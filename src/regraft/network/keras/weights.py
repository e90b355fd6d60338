"""Weights files of `keras.applications`: legacy .h5, Keras 3's .weights.h5, and .keras, with or without the top.

The file's layers are matched with those that Keras has for the backbone, one
to one, in Keras's order; a file that has others is refused. Only numbers are
read: a file's description of its layers is compared with what they should be,
and nothing is built or run from it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import RefusedFile, UsageError
from regraft.core.text import listed
from regraft.network import catalog
from regraft.network.backbones import Backbone
from regraft.network.keras import adapt
from regraft.network.keras.hdf5 import SUFFIXES, File, opened
from regraft.network.keras.layers import Layer, snake_case
from regraft.network.preprocess import Preprocess
from regraft.network.weights import Weights

if TYPE_CHECKING:
    import h5py
    import torch
    from torch import nn

__all__ = ["SUFFIXES", "architecture", "load"]

# Mean and std of red, green and blue in [0, 1]. Source: keras/src/applications/imagenet_utils.py.
_MODES = {
    "tf": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255)),
}
_POOLS = ("GlobalAveragePooling2D", "GlobalMaxPooling2D")  # what `pooling` puts after a network without its top
_MAX_CLASSES = 100_000

Matched = list[tuple[Layer, Sequence["h5py.Dataset"]]]


def load(backbone: Backbone, where: str, seed: int = 0) -> Weights:  # noqa: ARG001 - one signature for all
    """Return the weights in a file of Keras's under the network's own names, with Keras's preprocessing.

    How a photograph becomes square is as these networks were trained: the middle 7/8 of it, bilinear.
    Raises WeightsMissing if there is no such file, RefusedFile if it is not exactly what Keras has for the backbone.
    """
    if backbone.keras is None:
        known = ", ".join(entry.name for entry in catalog.families() if entry.keras)
        raise UsageError(f"{where} is a file of Keras's, but not of a network known here; expected one of {known}.")
    with opened(Path(where)) as file:
        matched, network, model_args = _match(file, backbone)
        state = network.state_dict()
        tensors = {name: _read(file, layer, data, state[name]) for layer, name, data in _pairs(matched)}
    if backbone.keras.mode == "caffe":  # Keras feeds blue, green, red; here the first convolution turns them round
        first = matched[0][0].tensors[0]
        tensors[first] = tensors[first].flip(1)
    mean, std = _MODES[backbone.keras.mode]
    red, green, blue = (round(255 * value) for value in mean)
    return Weights(
        source="keras",
        path=where,
        tensors=_gammas(state, tensors) | tensors,
        model_args=model_args,
        preprocess=Preprocess(
            size=backbone.keras.size, interpolation="bilinear", background=(red, green, blue), mean=mean, std=std
        ),
    )


def architecture(path: Path) -> str | None:
    """Return the architecture whose layers a file holds; None if no backbone here has these."""
    with opened(path) as file:
        for entry in catalog.families():
            try:
                _match(file, entry)
            except RefusedFile:
                continue
            return entry.architecture
    return None


def _match(file: File, backbone: Backbone) -> tuple[Matched, nn.Module, Mapping[str, Any]]:
    """Return each layer's weights in the file, and the network, without numbers, that they fill.

    Raises RefusedFile if the file is for anything else than this backbone as Keras has it.
    """
    import torch

    base = [layer for layer in backbone.layers if not layer.top]
    top = len(file.weights) > sum(bool(layer.tensors) for layer in base)
    layers = backbone.layers if top else base
    matched = _by_name(file, backbone, layers) if file.legacy else _by_class(file, backbone, layers)
    classes = matched[-1][1][-1].shape[-1] if top else 0
    if classes > _MAX_CLASSES:
        raise RefusedFile(f"{file.path} is for {classes} classes; expected up to {_MAX_CLASSES}.")
    model_args = {adapt.ARGUMENT: "top" if top else "notop"}
    with torch.device("meta"):
        network = catalog.build(backbone, model_args, num_classes=classes)
    for layer, name, data in _pairs(matched):
        _check_shape(file, backbone, layer, data, network.state_dict()[name])
    if file.description is not None:
        _check_description(file, backbone, layers, network)
    return matched, network, model_args


def _pairs(matched: Matched) -> Iterable[tuple[Layer, str, h5py.Dataset]]:
    for layer, weights in matched:
        for name, data in zip(layer.tensors, weights, strict=True):
            yield layer, name, data


def _by_name(file: File, backbone: Backbone, layers: Sequence[Layer]) -> Matched:
    """Match a legacy file's layers: by name if they have all of Keras's names, else in their order, as Keras does."""
    with_weights = [layer for layer in layers if layer.tensors]
    lambdas = [name for name in file.bare if re.fullmatch(r"lambda(_\d+)?", name)]
    if lambdas or len(with_weights) != len(file.weights):
        raise _refused(file, backbone, f"{len(with_weights)} layers with weights", lambdas or list(file.weights))
    if {layer.name for layer in with_weights} == set(file.weights):
        matched = [(layer, file.weights[layer.name]) for layer in with_weights]
    else:
        matched = list(zip(with_weights, file.weights.values(), strict=True))
    for layer, weights in matched:
        _check_count(file, backbone, layer, weights)
    return matched


def _by_class(file: File, backbone: Backbone, layers: Sequence[Layer]) -> Matched:
    """Match the layers of Keras 3's layout, which counts the layers of each class in their order."""
    counts: Counter[str] = Counter()
    keys = {}
    for layer in layers:
        kind = snake_case(layer.kind)
        keys[f"{kind}_{counts[kind]}" if counts[kind] else kind] = layer
        counts[kind] += 1
    known = {*keys, *map(snake_case, _POOLS)}
    unknown = [name for name in (*file.weights, *file.bare) if name not in known]
    lacking = [key for key, layer in keys.items() if layer.tensors and key not in file.weights]
    if unknown or lacking:
        raise _refused(file, backbone, f"{lacking[0]!r}" if lacking else "no such layer", unknown)
    matched = [(layer, file.weights[key]) for key, layer in keys.items() if layer.tensors]
    for layer, weights in matched:
        _check_count(file, backbone, layer, weights)
    return matched


def _check_count(file: File, backbone: Backbone, layer: Layer, weights: Sequence[h5py.Dataset]) -> None:
    if len(weights) != len(layer.tensors):
        raise _refused(file, backbone, f"{len(layer.tensors)} weights in {layer.name!r}", [f"{len(weights)} weights"])


def _check_shape(file: File, backbone: Backbone, layer: Layer, data: h5py.Dataset, tensor: torch.Tensor) -> None:
    expected = _shape(layer, tensor)
    if data.shape != expected:
        raise _refused(file, backbone, f"the shape {expected} in {layer.name!r}", [f"{data.name} of {data.shape}"])


def _check_description(file: File, backbone: Backbone, layers: Sequence[Layer], network: nn.Module) -> None:
    """Compare a file's description of its layers with what they should be."""
    rows = list(file.description or ())
    if rows and len(rows) == len(layers) + 1 and rows[-1].get("class_name") in _POOLS:
        del rows[-1]
    kinds = [(row.get("class_name"), row.get("registered_name")) for row in rows]
    for (kind, registered), layer in zip(kinds, layers, strict=False):
        if kind != layer.kind or registered not in (None, kind):
            raise _refused(file, backbone, f"the {layer.kind} {layer.name!r}", [f"a layer of the class {kind!r}"])
    if len(kinds) != len(layers):
        raise _refused(file, backbone, f"{len(layers)} layers", [str(kind) for kind, _ in kinds[len(layers) :]])
    for row, layer in zip(rows, layers, strict=True):
        _check_settings(file, backbone, layer, row["config"], network)


def _check_settings(
    file: File, backbone: Backbone, layer: Layer, settings: Mapping[str, Any], network: nn.Module
) -> None:
    """Compare the settings that change what a layer computes but not the shape of its weights."""
    expected: dict[str, Any] = {"activation": ("relu", "linear", "softmax", "sigmoid", None)}
    module = network.get_submodule(layer.tensors[0].rpartition(".")[0]) if layer.tensors else None
    if layer.kind == "BatchNormalization":
        expected["epsilon"] = (getattr(module, "eps", None),)
    elif "Conv2D" in layer.kind:
        expected["strides"] = (list(getattr(module, "stride", ())) or [1, 1],)
    for name, choices in expected.items():
        if settings.get(name, choices[0]) not in choices:
            setting = f"{name} {settings[name]!r} in {layer.name!r}"
            raise _refused(file, backbone, f"{' or '.join(map(repr, choices))}", [setting])


def _refused(file: File, backbone: Backbone, expected: str, contents: Sequence[str]) -> RefusedFile:
    return RefusedFile(
        f"{file.path} holds {listed(contents, 3) or 'other layers'}; Keras's {backbone.name} has {expected}. "
        "Choose the --backbone that the file is for; of a network with your own layers on top, save the base alone."
    )


def _shape(layer: Layer, tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of a tensor in Keras: convolutions (h, w, in, out), dense layers (in, out)."""
    shape = tuple(tensor.shape)
    if len(shape) == 1:
        return shape
    out, channels, *window = shape
    height, width = window or (1, 1)
    if layer.kind == "Dense":
        return (height * width * channels, out)
    return (height, width, out, channels) if _is_depthwise(layer, tensor) else (height, width, channels, out)


def _is_depthwise(layer: Layer, tensor: torch.Tensor) -> bool:
    """Whether each channel has a kernel of its own: (channels, 1, h, w)."""
    return layer.kind in ("DepthwiseConv2D", "SeparableConv2D") and tensor.shape[1] == 1


def _read(file: File, layer: Layer, data: h5py.Dataset, tensor: torch.Tensor) -> torch.Tensor:
    """Return a weight in the network's own shape: convolutions (out, in, h, w), dense layers (out, in)."""
    import torch

    weight = torch.from_numpy(data[()].astype("float32"))
    if not weight.isfinite().all():
        raise RefusedFile(f"{file.path} has NaN or infinite values in {data.name}: it is damaged. Take another file.")
    if tensor.ndim == 1:
        return weight
    depthwise = _is_depthwise(layer, tensor)
    out, channels, *window = tensor.shape
    kernel = weight.reshape(*(window or (1, 1)), *((out, channels) if depthwise else (channels, out)))
    return kernel.permute((2, 3, 0, 1) if depthwise else (3, 2, 0, 1)).reshape(tensor.shape).contiguous()


def _gammas(state: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the factors of the batch normalisations that have none in Keras: ones."""
    import torch

    norms = (name.removesuffix("running_var") + "weight" for name in state if name.endswith("running_var"))
    return {name: torch.ones(state[name].shape) for name in norms if name not in tensors}
