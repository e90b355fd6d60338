"""Weights files of `keras.applications`: legacy .h5, Keras 3's .weights.h5, and .keras, with or without the top.

The file's layers are matched with those that Keras has for the backbone, one
to one, in Keras's order; a file that has others is refused. Only numbers are
read: what a file says of its layers is compared with what they should be, and
nothing is built or run from it.
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
_MOST_CLASSES = 100_000

Arranged = list[tuple[Layer, Sequence["h5py.Dataset"]]]


def load(backbone: Backbone, where: str, seed: int = 0) -> Weights:  # noqa: ARG001 - one signature for all
    """Return the weights in a file of Keras's under the network's own names, with Keras's preprocessing.

    How a photograph becomes square is as these networks were trained: the middle 7/8 of it, bilinear.
    Raises WeightsMissing if there is no such file, RefusedFile if it is not exactly what Keras has for the backbone.
    """
    if backbone.keras is None:
        known = ", ".join(entry.name for entry in catalog.families() if entry.keras)
        raise UsageError(f"{where} is a file of Keras's, for none of its networks: expected one of {known}, whole.")
    with opened(Path(where)) as file:
        arranged, network, model_args = _matched(file, backbone)
        state = network.state_dict()
        tensors = {name: _read(file, layer, data, state[name]) for layer, name, data in _pairs(arranged)}
    if backbone.keras.mode == "caffe":  # Keras feeds blue, green, red; here the first convolution does the turning
        first = arranged[0][0].tensors[0]
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
    """Return the architecture whose layers a file holds; None if it is none that Keras has here."""
    with opened(path) as file:
        for entry in catalog.families():
            try:
                _matched(file, entry)
            except RefusedFile:
                continue
            return entry.architecture
    return None


def _matched(file: File, backbone: Backbone) -> tuple[Arranged, nn.Module, Mapping[str, Any]]:
    """Return each layer's weights in the file, and the network, without numbers, that they fill.

    Raises RefusedFile if the file is for anything else than this backbone as Keras has it.
    """
    import torch

    base = [layer for layer in backbone.layers if not layer.top]
    top = len(file.weights) > sum(bool(layer.tensors) for layer in base)
    layers = backbone.layers if top else base
    arranged = _by_name(file, backbone, layers) if file.legacy else _by_class(file, backbone, layers)
    classes = arranged[-1][1][-1].shape[-1] if top else 0
    if classes > _MOST_CLASSES:
        raise RefusedFile(f"{file.path} is for {classes} classes; expected up to {_MOST_CLASSES}.")
    model_args = {adapt.ARGUMENT: adapt.TOPS[0 if top else 1]}
    with torch.device("meta"):
        network = catalog.build(backbone, model_args, num_classes=classes)
    for layer, name, data in _pairs(arranged):
        _check_shape(file, backbone, layer, data, network.state_dict()[name])
    if file.described is not None:
        _check_described(file, backbone, layers, network)
    return arranged, network, model_args


def _pairs(arranged: Arranged) -> Iterable[tuple[Layer, str, h5py.Dataset]]:
    for layer, weights in arranged:
        for name, data in zip(layer.tensors, weights, strict=True):
            yield layer, name, data


def _by_name(file: File, backbone: Backbone, layers: Sequence[Layer]) -> Arranged:
    """Match a legacy file's layers: by name if they have all of Keras's names, else in their order, as Keras does."""
    learned = [layer for layer in layers if layer.tensors]
    strange = [name for name in file.bare if re.fullmatch(r"lambda(_\d+)?", name)]
    if strange or len(learned) != len(file.weights):
        raise _refused(file, backbone, f"{len(learned)} layers with weights", strange or list(file.weights))
    if {layer.name for layer in learned} == set(file.weights):
        found = [(layer, file.weights[layer.name]) for layer in learned]
    else:
        found = list(zip(learned, file.weights.values(), strict=True))
    for layer, weights in found:
        _check_count(file, backbone, layer, weights)
    return found


def _by_class(file: File, backbone: Backbone, layers: Sequence[Layer]) -> Arranged:
    """Match the layers of Keras 3's layout, which counts the layers of each class in their order."""
    counts: Counter[str] = Counter()
    keys = {}
    for layer in layers:
        kind = snake_case(layer.kind)
        keys[f"{kind}_{counts[kind]}" if counts[kind] else kind] = layer
        counts[kind] += 1
    known = {*keys, *map(snake_case, _POOLS)}
    strange = [name for name in (*file.weights, *file.bare) if name not in known]
    lacking = [key for key, layer in keys.items() if layer.tensors and key not in file.weights]
    if strange or lacking:
        raise _refused(file, backbone, f"{lacking[0]!r}" if lacking else "no such layer", strange)
    found = [(layer, file.weights[key]) for key, layer in keys.items() if layer.tensors]
    for layer, weights in found:
        _check_count(file, backbone, layer, weights)
    return found


def _check_count(file: File, backbone: Backbone, layer: Layer, weights: Sequence[h5py.Dataset]) -> None:
    if len(weights) != len(layer.tensors):
        raise _refused(file, backbone, f"{len(layer.tensors)} weights in {layer.name!r}", [f"{len(weights)} weights"])


def _check_shape(file: File, backbone: Backbone, layer: Layer, data: h5py.Dataset, tensor: torch.Tensor) -> None:
    expected = _shape(layer, tensor)
    if data.shape != expected:
        raise _refused(file, backbone, f"the shape {expected} in {layer.name!r}", [f"{data.name} of {data.shape}"])


def _check_described(file: File, backbone: Backbone, layers: Sequence[Layer], network: nn.Module) -> None:
    """Compare what a file says of its layers with what they should be."""
    described = list(file.described or ())
    if described and len(described) == len(layers) + 1 and described[-1].get("class_name") in _POOLS:
        del described[-1]
    kinds = [(told.get("class_name"), told.get("registered_name")) for told in described]
    for (kind, registered), layer in zip(kinds, layers, strict=False):
        if kind != layer.kind or registered not in (None, kind):
            raise _refused(file, backbone, f"the {layer.kind} {layer.name!r}", [f"a layer of the class {kind!r}"])
    if len(kinds) != len(layers):
        raise _refused(file, backbone, f"{len(layers)} layers", [str(kind) for kind, _ in kinds[len(layers) :]])
    for told, layer in zip(described, layers, strict=True):
        _check_settings(file, backbone, layer, told["config"], network)


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
            told = f"{name} {settings[name]!r} in {layer.name!r}"
            raise _refused(file, backbone, f"{' or '.join(map(repr, choices))}", [told])


def _refused(file: File, backbone: Backbone, expected: str, found: Sequence[str]) -> RefusedFile:
    return RefusedFile(
        f"{file.path} holds {listed(found, 3) or 'other layers'}; Keras's {backbone.name} has {expected}. "
        "Give the --backbone that the file is for; of a network with layers of your own, save the base alone."
    )


def _shape(layer: Layer, tensor: torch.Tensor) -> tuple[int, ...]:
    """Return the shape that Keras has for a tensor: convolutions (h, w, in, out), dense layers (in, out)."""
    shape = tuple(tensor.shape)
    if len(shape) == 1:
        return shape
    out, channels, *window = shape
    height, width = window or (1, 1)
    if layer.kind == "Dense":
        return (height * width * channels, out)
    return (height, width, out, channels) if _is_depthwise(layer, tensor) else (height, width, channels, out)


def _is_depthwise(layer: Layer, tensor: torch.Tensor) -> bool:
    """Whether each channel has a window of its own: (channels, 1, h, w)."""
    return layer.kind in ("DepthwiseConv2D", "SeparableConv2D") and tensor.shape[1] == 1


def _read(file: File, layer: Layer, data: h5py.Dataset, tensor: torch.Tensor) -> torch.Tensor:
    """Return a weight as the network has it: convolutions (out, in, h, w), dense layers (out, in)."""
    import torch

    found = torch.from_numpy(data[()].astype("float32"))
    if not found.isfinite().all():
        raise RefusedFile(f"{file.path} has NaN or infinite values in {data.name}. It is damaged.")
    if tensor.ndim == 1:
        return found
    out, channels, *window = tensor.shape
    places = found.reshape(*(window or (1, 1)), *((out, channels) if _is_depthwise(layer, tensor) else (channels, out)))
    order = (2, 3, 0, 1) if _is_depthwise(layer, tensor) else (3, 2, 0, 1)
    return places.permute(order).reshape(tensor.shape).contiguous()


def _gammas(state: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the factors of the batch normalisations to which Keras gives none: ones."""
    import torch

    norms = (name.removesuffix("running_var") + "weight" for name in state if name.endswith("running_var"))
    return {name: torch.ones(state[name].shape) for name in norms if name not in tensors}
