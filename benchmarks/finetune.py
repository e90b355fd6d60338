"""An epoch of fine-tuning from a middle cut: frozen below, all above trained in batches of 32, with Adam.

Ours reads the maps of the frozen part, which were stored before ("stored in"); the peers run it in every
step. Every contestant's photographs are in memory, decoded; the median of all epochs but its first counts. All weights
are random, which changes no time. Keras has no EfficientNet-Lite. Of Keras's epochs the first batch is not timed but
taken to be like the others: in some processes TensorFlow first waits for the last epoch's data set to end.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import _bench
import numpy as np

BATCH, EPOCHS = 32, 4
MODELS: dict[str, dict[str, Any]] = {
    "InceptionV3 mixed7, 150": {"backbone": "inception_v3", "cut": "Mixed_6e", "size": 150},
    "ResNet50 layer4, 160": {"backbone": "resnet50", "cut": "layer3", "size": 160},
    "EfficientNet-Lite0 last two stages, 224": {"backbone": "efficientnet_lite0", "cut": "blocks.4", "size": 224},
}
KERAS = {"inception_v3": ("InceptionV3", "mixed7"), "resnet50": ("ResNet50", "conv4_block6_out")}


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    import regraft

    index = regraft.read(arguments.data)
    rows = list(index.used)
    apart = {0: "test", 1: "test", 2: "validation", 3: "validation"}  # two classes in turns
    chosen = [rows[number] for number in _evenly(len(rows), arguments.images + len(apart))]
    parted = [dataclasses.replace(row, part=apart.get(number, "train")) for number, row in enumerate(chosen)]
    with tempfile.TemporaryDirectory() as store:
        began = time.perf_counter()
        features = regraft.extract(
            index.with_rows(parted),
            **MODELS[arguments.model],
            resize="squash",
            weights="random",
            tail=True,
            views=0,
            store=Path(store),
        )
        stored = time.perf_counter() - began
        model = regraft.fit(
            features,
            tail_epochs=EPOCHS,
            batch_size=BATCH,
            patience=None,
            schedule="constant",
            tail_learning_rate=1e-3,
        )
    return {"seconds": _counted([row.seconds for row in model.history.part("train")]), "stored in": f"{stored:.3g} s"}


def torch_loop(arguments: argparse.Namespace, *, tuned: bool = False) -> dict[str, Any]:
    """The usual loop on a timm network; tuned: bfloat16 autocast, channels last, a fused optimizer."""
    import torch

    from regraft.network import catalog
    from regraft.network.cut import find_cut

    size = MODELS[arguments.model]["size"]
    network = catalog.build(catalog.find(MODELS[arguments.model]["backbone"]))
    cut = find_cut(network, MODELS[arguments.model]["cut"])
    frozen = cut.trunk.requires_grad_(False).eval()
    trained = torch.nn.Sequential(cut.tail, torch.nn.Linear(network.num_features, 2)).train()
    layout = torch.channels_last if tuned else torch.contiguous_format
    frozen.to(memory_format=layout), trained.to(memory_format=layout)
    optimizer = torch.optim.Adam(trained.parameters(), 1e-3, fused=tuned)
    pixels, labels = (torch.from_numpy(array) for array in _pixels(arguments, size))

    def epoch() -> None:
        for rows in torch.randperm(len(pixels)).split(BATCH):
            images = pixels[rows].permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous(memory_format=layout)
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                with torch.no_grad():
                    maps = frozen(images)
                outputs = trained(maps)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(outputs.float(), labels[rows]).backward()
            optimizer.step()

    return {"seconds": _counted([_seconds(epoch) for _ in range(EPOCHS)])}


def torch_tuned(arguments: argparse.Namespace) -> dict[str, Any]:
    return torch_loop(arguments, tuned=True)


def keras_fit(arguments: argparse.Namespace) -> dict[str, Any]:
    import keras

    size = MODELS[arguments.model]["size"]
    name, cut = KERAS[MODELS[arguments.model]["backbone"]]
    network = getattr(keras.applications, name)(
        weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg"
    )
    names = [layer.name for layer in network.layers]
    for layer in network.layers[: names.index(cut) + 1]:
        layer.trainable = False
    scaled = keras.Sequential([keras.layers.Rescaling(1 / 127.5, -1), network, keras.layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    scaled.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    pixels, labels = _pixels(arguments, size)
    ends: list[float] = []

    class Clock(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            ends.append(time.perf_counter())

    scaled.fit(pixels, labels, batch_size=BATCH, epochs=EPOCHS, callbacks=[Clock()], verbose=0)
    epochs = np.array(ends).reshape(EPOCHS, -1)
    steps = epochs.shape[1]
    return {"seconds": _counted(list((epochs[:, -1] - epochs[:, 0]) * steps / (steps - 1)))}


def _pixels(arguments: argparse.Namespace, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return photographs as (n, size, size, 3) uint8, and labels that say nothing."""
    from PIL import Image

    paths = sorted(path for path in Path(arguments.data).rglob("*") if path.suffix.lower() in (".jpg", ".png"))
    chosen = [paths[number] for number in _evenly(len(paths), arguments.images)]
    pixels = [np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in chosen]
    return np.stack(pixels), np.arange(len(pixels)) % 2


def _evenly(available: int, wanted: int) -> list[int]:
    """Return `wanted` places spread evenly over those available, from both ends by turns: so of two classes."""
    if available < wanted:
        _bench.skip(f"{available} photographs; --images asks for {wanted}")
    spread = np.linspace(0, available - 1, wanted).astype(int).tolist()
    return [spread[number // 2] if number % 2 == 0 else spread[-1 - number // 2] for number in range(wanted)]


def _counted(epochs: Sequence[float]) -> float:
    """Return the median of all epochs' seconds but the first's."""
    return float(np.median(epochs[1:]))


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


CONTESTANTS = {
    "regraft": ours,
    "timm, torch float32": torch_loop,
    "timm, torch bfloat16, channels last": torch_tuned,
    "Keras float32": keras_fit,
}


def main() -> None:
    parser = _bench.parser(__doc__)
    parser.add_argument("--images", type=int, default=320, help="photographs of an epoch")
    parser.add_argument("--model", help="one of: " + "; ".join(MODELS))
    arguments = parser.parse_args()
    _bench.only_run(CONTESTANTS, arguments)
    with _bench.photographs(arguments.data, "cats-dogs") as folder:
        about = _bench.header()
        for model in [arguments.model] if arguments.model else MODELS:
            entered = dict(CONTESTANTS)
            if MODELS[model]["backbone"] not in KERAS:
                del entered["Keras float32"]
            result, *peers = _bench.contest(entered, arguments, data=folder, model=model)
            title = f"finetune: an epoch of {arguments.images} photographs, {model}"
            _bench.compare(title, result, peers, output=arguments.output, about=about)


if __name__ == "__main__":
    main()
