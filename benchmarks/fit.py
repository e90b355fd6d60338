"""A whole job, photographs to a measured model: 2,000 cats and dogs to learn from, 1,000 to measure with.

Frozen InceptionV3 up to mixed7 at 150 by 150, with augmentation, as the well-known Keras lesson has it; then the same
photographs once more with another head and another rate; then EfficientNet-Lite0 against fastai's fine_tune. Ours is
the whole command, start included; of Keras and fastai, imports and building are not counted. The second experiment is
also timed as they are: the second `regraft.train` of one Python session. Keras runs --epochs of its
20 epochs; its seconds are scaled up by the mean epoch after the first.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import _bench
import _inception

EPOCHS, BATCH, SIZE = 20, 20, 150  # the lesson's
NETWORK = "inception_v3.tf2015-to-mixed8"  # a folder in timm's form, complete up to mixed8
VIEWS = 4
LESSON, SECOND, LITE = "regraft", "regraft, second experiment, warm store", "regraft, EfficientNet-Lite0"
IN_SESSION = "regraft, second experiment, same session"


def _train(arguments: argparse.Namespace, *words: Any, cold: bool) -> dict[str, Any]:
    """Run `regraft train`; a cold run has an empty cache, for features as for converted networks."""
    cache = Path(arguments.scratch) / "cache"
    if cold:
        shutil.rmtree(cache, ignore_errors=True)
    output = Path(tempfile.mkdtemp(dir=arguments.scratch)) / "model"
    seconds, printed = _bench.regraft("train", arguments.data, "-o", output, "--json", *words, cache=cache)
    return {"seconds": seconds, "accuracy": json.loads(printed)["accuracy"]}


def _lesson_words(arguments: argparse.Namespace) -> list[Any]:
    network = ["--weights", arguments.weights, "--cut", _inception.CUT, "--size", SIZE, "--resize", "squash"]
    return [*network, "--views", arguments.views]


def ours(arguments: argparse.Namespace) -> dict[str, Any]:
    return _train(arguments, *_lesson_words(arguments), cold=True)


def ours_again(arguments: argparse.Namespace) -> dict[str, Any]:
    """The second experiment: another head, another rate, on what the first one stored."""
    return _train(arguments, *_lesson_words(arguments), "--head", "mlp", "--learning-rate", "3e-4", cold=False)


def ours_in_session(arguments: argparse.Namespace) -> dict[str, Any]:
    """The second experiment as a notebook has it: the first one ran before, in the same process."""
    os.environ["REGRAFT_CACHE"] = str(Path(arguments.scratch) / "cache")
    import regraft

    network = {"weights": str(arguments.weights), "cut": _inception.CUT, "size": SIZE, "resize": "squash"}
    scratch = Path(tempfile.mkdtemp(dir=arguments.scratch))
    regraft.train(arguments.data, scratch / "first", **network, views=arguments.views)
    started = time.perf_counter()
    report = regraft.train(
        arguments.data, scratch / "second", **network, views=arguments.views, head="mlp", learning_rate=3e-4
    )
    return {"seconds": time.perf_counter() - started, "accuracy": report.accuracy}


def ours_lite(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every default: EfficientNet-Lite0 at 224, linear head."""
    return _train(arguments, cold=True)


def keras_lesson(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keras the lesson's way: every epoch decodes, augments and runs the frozen network again."""
    import keras
    import tensorflow as tf

    layers = keras.layers
    augment = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(40 / 360, fill_mode="nearest"),
            layers.RandomTranslation(0.2, 0.2, fill_mode="nearest"),
            layers.RandomShear(0.2, 0.2, fill_mode="nearest"),
            layers.RandomZoom(0.2, fill_mode="nearest"),
        ]
    )
    train, validation = (_keras_photographs(arguments, part) for part in ("train", "validation"))
    train = train.map(lambda images, labels: (augment(images, training=True), labels), tf.data.AUTOTUNE)
    trunk = _inception.keras_trunk(Path(arguments.weights), SIZE)
    trunk.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    below = trunk(layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    model = keras.Model(inputs, _keras_head(keras)(below))
    return _keras_fit(keras, model, train.prefetch(tf.data.AUTOTUNE), validation, arguments.epochs)


def keras_once(arguments: argparse.Namespace) -> dict[str, Any]:
    """Keras the thrifty way: maps at mixed7 by predict, once, without augmentation; then the same head on them."""
    import keras
    import numpy as np

    trunk = _inception.keras_trunk(Path(arguments.weights), SIZE)
    started = time.perf_counter()
    sets = []
    for part in ("train", "validation"):
        dataset = _keras_photographs(arguments, part)
        batches = [(trunk.predict_on_batch(images / 127.5 - 1), labels) for images, labels in dataset]
        sets.append(tuple(np.concatenate(values) for values in zip(*batches, strict=True)))
    seconds = time.perf_counter() - started
    (maps, labels), validation = sets
    inputs = keras.Input(maps.shape[1:])
    model = keras.Model(inputs, _keras_head(keras)(inputs))
    result = _keras_fit(keras, model, (maps, labels), validation, EPOCHS)
    curve = [(seconds + at, accuracy) for at, accuracy in result["curve"]]
    return {**result, "seconds": seconds + result["seconds"], "curve": curve}


def _keras_photographs(arguments: argparse.Namespace, part: str) -> Any:
    import keras

    return keras.utils.image_dataset_from_directory(
        Path(arguments.data) / part,
        image_size=(SIZE, SIZE),
        batch_size=BATCH,
        label_mode="binary",
        seed=0,
        verbose=False,
    )


def _keras_head(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def _keras_fit(keras: Any, model: Any, train: Any, validation: Any, epochs: int) -> dict[str, Any]:
    """Fit for some epochs; return the seconds that all of them would take, and accuracy over time."""
    model.compile(optimizer=keras.optimizers.RMSprop(1e-4), loss="binary_crossentropy", metrics=["accuracy"])
    arrays = isinstance(train, tuple)
    data = {"x": train[0], "y": train[1], "batch_size": BATCH} if arrays else {"x": train}
    curve: list[tuple[float, float]] = []
    waits: list[float] = []
    started = time.perf_counter()

    class Clock(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            self.began = time.perf_counter()

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            if batch == 0:
                waits.append(time.perf_counter() - self.began)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            curve.append((time.perf_counter() - started, float(logs["val_accuracy"])))

    model.fit(**data, validation_data=validation, epochs=epochs, verbose=0, callbacks=[Clock()])
    ends = [at for at, _ in curve]
    epoch = (ends[-1] - ends[0]) / (epochs - 1) if epochs > 1 else ends[0]
    notes = {"accuracy": curve[-1][1], "epochs run": epochs, "an epoch": f"{epoch:.3g} s"}
    notes["of it before its first batch"] = f"{statistics.median(waits):.2g} s"
    notes["curve"] = curve
    return {"seconds": ends[-1] + (EPOCHS - epochs) * epoch, **notes}


def fastai_fine_tune(arguments: argparse.Namespace) -> dict[str, Any]:
    """fastai's first lesson: vision_learner and fine_tune(1): an epoch frozen, an epoch of the whole network."""
    from regraft.network import catalog, weights

    backbone = catalog.find("efficientnet_lite0")
    loaded = weights.load("builtin", backbone)

    import fastai.vision.all as fastai

    normalize = fastai.Normalize.from_stats(loaded.preprocess.mean, loaded.preprocess.std)
    loaders = fastai.ImageDataLoaders.from_folder(
        arguments.data,
        valid="validation",
        item_tfms=fastai.Resize(224),
        batch_tfms=[*fastai.aug_transforms(), normalize],
        seed=0,
    )
    learner = fastai.vision_learner(
        loaders, backbone.timm_name, pretrained=False, normalize=False, metrics=fastai.accuracy
    )
    body = learner.model[0].model
    body.load_state_dict(
        {name: loaded.tensors[name] for name in body.state_dict() if name in loaded.tensors}, strict=False
    )
    started = time.perf_counter()
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(1)
    return {"seconds": time.perf_counter() - started, "accuracy": learner.recorder.values[-1][-1]}


CONTESTANTS = {
    LESSON: ours,
    SECOND: ours_again,
    IN_SESSION: ours_in_session,
    "Keras, features once, no augmentation": keras_once,
    "Keras, the lesson's way": keras_lesson,
    LITE: ours_lite,
    "fastai fine_tune(1), EfficientNet-Lite0": fastai_fine_tune,
}
PEERS = [name for name in CONTESTANTS if not name.startswith("regraft")]


def with_equal(result: _bench.Result, accuracy: float) -> _bench.Result:
    """Say when a contestant's validation accuracy first was as good as `accuracy`."""
    notes = dict(result.notes)
    curve = notes.pop("curve", None)
    if curve:
        reached = next((f"{at:.4g} s" for at, value in curve if value >= accuracy), "not in these epochs")
        notes["equal accuracy after"] = reached
    return dataclasses.replace(result, notes=notes)


def main() -> None:
    parser = _bench.parser(__doc__)
    parser.add_argument("--weights", help=f"the folder {NETWORK}, or the one that it is in; default: $REGRAFT_WEIGHTS")
    parser.add_argument("--views", type=int, default=VIEWS, help="stored views of each training image")
    parser.add_argument("--epochs", type=int, default=2, help=f"epochs that Keras runs; scaled to {EPOCHS}")
    arguments = parser.parse_args()
    _bench.only_run(CONTESTANTS, arguments)
    weights = _bench.weights(arguments.weights, NETWORK)
    with _bench.photographs(arguments.data, "cats-dogs") as folder, tempfile.TemporaryDirectory() as scratch:
        about = _bench.header()
        lesson = dict(itertools.takewhile(lambda item: item[0] != LITE, CONTESTANTS.items()))
        lite = {name: run for name, run in CONTESTANTS.items() if name not in lesson}
        if weights is None:
            print(f"fit: InceptionV3 skipped: no weights {NETWORK}; name them by --weights or by REGRAFT_WEIGHTS")
        for entered in [lesson, lite] if weights else [lite]:
            results = _bench.contest(entered, arguments, once=PEERS, data=folder, weights=weights, scratch=scratch)
            if results:
                _print(results, arguments, about)


def _print(results: list[_bench.Result], arguments: argparse.Namespace, about: dict[str, Any]) -> None:
    first = results[0]
    shown = [with_equal(result, first.notes["accuracy"]) for result in results]
    again = [result for result in shown if result.name in (SECOND, IN_SESSION)]
    rest = [result for result in shown[1:] if result not in again]
    scaled = f", {EPOCHS} epochs (Keras ran {arguments.epochs}, scaled)" if first.name == LESSON else ""
    _bench.compare(f"fit: the whole job{scaled}", shown[0], rest, output=arguments.output, about=about)
    for result in again:
        title = "fit: the second experiment; Keras starts from the photographs again"
        _bench.compare(title, result, rest, output=arguments.output, about=about)


if __name__ == "__main__":
    main()
