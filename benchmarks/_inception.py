"""timm's InceptionV3 tensors in Keras's InceptionV3, so that both start from the same weights.

Run by itself with the weights folder and a photograph, it shows how far the two networks are apart at mixed7.
"""

from __future__ import annotations

import argparse
import functools
import os
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

CUT, LAYER = "Mixed_6e", "mixed7"  # the same place under timm's and under Keras's name


def keras_trunk(weights: Path, size: int) -> Any:
    """Return Keras's InceptionV3 up to mixed7 with the tensors of a timm folder: (n, S, S, 3) in -1…1 → a map."""
    import keras

    whole = keras.applications.InceptionV3(weights=None, include_top=False, input_shape=(size, size, 3))
    trunk = keras.Model(whole.input, whole.get_layer(LAYER).output)
    fill(trunk, read(weights))
    return trunk


def read(weights: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a timm folder as float32 arrays, by timm's names."""
    from safetensors.numpy import load_file

    return {name: tensor.astype(np.float32) for name, tensor in load_file(weights / "model.safetensors").items()}


def fill(model: Any, tensors: dict[str, np.ndarray]) -> None:
    """Give a Keras InceptionV3, or its lower part, timm's tensors; raise ValueError where a shape differs.

    Both libraries make their convolutions in the same order, each with a BatchNorm that has no scale in Keras. So the
    n-th of timm is the n-th of Keras by the number in its name (`model.layers` has another order).
    """
    import keras

    blocks = timm_blocks()
    for kind, set_weights in ((keras.layers.Conv2D, _set_conv), (keras.layers.BatchNormalization, _set_norm)):
        layers = sorted((layer for layer in model.layers if isinstance(layer, kind)), key=_number)
        first = _number(layers[0])  # a second network in one process goes on counting
        for layer in layers:
            set_weights(layer, blocks[_number(layer) - first], tensors)


def timm_blocks() -> list[str]:
    """Return the paths of timm's convolution blocks, in the order in which they are made."""
    from regraft.network.workaround_torchvision_nms import import_timm

    network = import_timm().create_model("inception_v3", pretrained=False, num_classes=0, aux_logits=False)
    return [name.removesuffix(".conv") for name, _ in network.named_modules() if name.endswith(".conv")]


def _number(layer: Any) -> int:
    tail = layer.name.rpartition("_")[2]
    return int(tail) if tail.isdigit() else 0


def _set_conv(layer: Any, block: str, tensors: dict[str, np.ndarray]) -> None:
    layer.set_weights([tensors[f"{block}.conv.weight"].transpose(2, 3, 1, 0)])  # (out, in, h, w) → (h, w, in, out)


def _set_norm(layer: Any, block: str, tensors: dict[str, np.ndarray]) -> None:
    scale = tensors[f"{block}.bn.weight"]
    if not (scale == 1).all():
        raise ValueError(f"{block}.bn has a scale of {scale.min()} to {scale.max()}; Keras's InceptionV3 has none.")
    layer.set_weights([tensors[f"{block}.bn.{name}"] for name in ("bias", "running_mean", "running_var")])


def timm_map(weights: Path, images: np.ndarray, *, padded: bool) -> np.ndarray:
    """Return timm's map at the cut: (n, S, S, 3) in -1…1 → (n, h, w, 768).

    padded: whether average pooling counts the padding. torch does, TensorFlow, which trained these weights, does not.
    """
    import torch

    from regraft.network import catalog

    network = catalog.build(catalog.find("inception_v3"), {"aux_logits": False})
    network.load_state_dict({name: torch.from_numpy(value) for name, value in read(weights).items()}, strict=False)
    maps: list[torch.Tensor] = []
    network.get_submodule(CUT).register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    pool = functools.partial(torch.nn.functional.avg_pool2d, count_include_pad=padded)
    with torch.inference_mode(), mock.patch("torch.nn.functional.avg_pool2d", pool):
        network(torch.from_numpy(images.transpose(0, 3, 1, 2)).contiguous())
    return maps[0].numpy().transpose(0, 2, 3, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", type=Path, help="timm's folder of InceptionV3, complete up to Mixed_6e")
    parser.add_argument("photograph", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    from PIL import Image

    photograph = Image.open(arguments.photograph).convert("RGB").resize((150, 150))
    images = np.asarray(photograph, np.float32)[None] / 127.5 - 1
    outputs = keras_trunk(arguments.weights, 150).predict(images, verbose=0)
    for padded in (False, True):
        apart = np.abs(outputs - timm_map(arguments.weights, images, padded=padded))
        word = "counts" if padded else "leaves out"
        print(
            f"{LAYER}, timm {word} the padding: greatest difference {apart.max():.2g} of values to {outputs.max():.3g}"
        )


if __name__ == "__main__":
    main()
