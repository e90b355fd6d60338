"""JPEG files to features on disk, from a cold store: regraft against timm, Keras and fastai.

Ours reads all photographs; the peers, whose time an image does not change, read --peer-images of them, and their
seconds are scaled up. What happens before the first features is counted for none of them: for the peers, building the
network and a first batch; for ours, building, converting and checking the network and a hundred photographs, "made
ready in", which a second run on the same store does not repeat. A second line of ours has it added.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import _bench
import numpy as np

SECONDS_ALONE = 8  # how long the network alone is measured
IMAGES, ALONE_BATCH = 100, 16  # photographs in memory, and how many enter in one call
TIMM_BATCH = KERAS_BATCH = 32
MODELS = {
    "EfficientNet-Lite0 224": {"backbone": "efficientnet_lite0", "weights": "builtin"},
    "InceptionV3 299": {"backbone": "inception_v3", "weights": "random"},
}


def ours(arguments: argparse.Namespace, **options: Any) -> dict[str, Any]:
    """Read, then extract into an empty store: some photographs, on which the network is made ready, then the others."""
    import regraft
    from regraft.core.options import make
    from regraft.features.extract import extract
    from regraft.features.options import FeatureOptions
    from regraft.features.store.store import Store
    from regraft.pipeline.extract import build_network

    started = time.perf_counter()
    index = regraft.read(arguments.data)
    reading = time.perf_counter() - started
    runner = build_network(make(FeatureOptions, dict(**MODELS[arguments.model], **options))).runner
    store = Store(Path(tempfile.mkdtemp(dir=arguments.scratch)))
    extract(index.with_rows(index.used.rows[:: len(index) // IMAGES][:IMAGES]), runner, store)
    ready = time.perf_counter() - started - reading
    features = extract(index, runner, store)
    seconds = (time.perf_counter() - started - reading - ready) * len(index) / (len(index) - IMAGES) + reading
    _keep(arguments, [row.path for row in features.rows], np.asarray(features))
    return {"seconds": seconds, "images/s": len(index) / seconds, "made ready in": ready}


def alone(arguments: argparse.Namespace, **options: Any) -> dict[str, Any]:
    """Run the same engine on images that are in memory, one caller a core, as extraction runs it."""
    from regraft.core.options import make
    from regraft.data.decode import decode
    from regraft.features.options import FeatureOptions
    from regraft.pipeline.extract import build_network

    runner = build_network(make(FeatureOptions, {**MODELS[arguments.model], **options})).runner
    photographs = sorted(Path(arguments.data).rglob("*.jpg"))
    chosen = [photographs[number] for number in _chosen(photographs, IMAGES)]
    images = np.stack([runner.trunk.preprocess(decode(path.read_bytes())) for path in chosen])
    runner(images)
    until = time.perf_counter() + SECONDS_ALONE

    def call(_: int) -> int:
        done = 0
        while time.perf_counter() < until:
            runner(images[:ALONE_BATCH])
            done += ALONE_BATCH
        return done

    started = time.perf_counter()
    with ThreadPoolExecutor(_bench.cores()) as pool:
        done = sum(pool.map(call, range(_bench.cores())))
    rate = done / (time.perf_counter() - started)
    return {"seconds": arguments.images / rate, "images/s": rate}


def timm_loop(arguments: argparse.Namespace, *, tuned: bool = False) -> dict[str, Any]:
    """The script that most people write: ImageFolder, DataLoader with a worker a core, eager float32, np.save.

    tuned: channels-last and bfloat16 autocast as well.
    """
    network, config = _timm_network(arguments.model)

    import timm
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder

    network = network.to(memory_format=torch.channels_last) if tuned else network
    photographs = ImageFolder(arguments.data, timm.data.create_transform(**config, is_training=False))
    paths = [path for path, _ in photographs.samples]
    chosen = _chosen(paths, TIMM_BATCH + arguments.peer_images)
    loader = DataLoader(Subset(photographs, chosen), batch_size=TIMM_BATCH, num_workers=_bench.cores())

    def rows() -> Iterator[np.ndarray]:
        for images, _ in loader:
            images = images.to(memory_format=torch.channels_last) if tuned else images
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                yield network(images).float().numpy()

    batches = rows()
    next(batches)  # by now the workers have started
    return _peer(arguments, [paths[number] for number in chosen[TIMM_BATCH:]], batches)


def timm_tuned(arguments: argparse.Namespace) -> dict[str, Any]:
    return timm_loop(arguments, tuned=True)


def keras_predict(arguments: argparse.Namespace, policy: str = "float32") -> dict[str, Any]:
    """Keras's own way: image_dataset_from_directory, the network's preprocess_input, predict."""
    import keras
    import tensorflow as tf

    keras.mixed_precision.set_global_policy(policy)
    size = int(arguments.model.split()[-1])
    network = keras.applications.InceptionV3(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    dataset = keras.utils.image_dataset_from_directory(
        arguments.data, image_size=(size, size), batch_size=KERAS_BATCH, shuffle=False, verbose=False
    )
    prepare = keras.applications.inception_v3.preprocess_input
    batches = dataset.map(lambda images, _: prepare(images), num_parallel_calls=tf.data.AUTOTUNE)
    batches = batches.prefetch(tf.data.AUTOTUNE)
    network.predict(batches.take(1), verbose=0)
    steps = arguments.peer_images // KERAS_BATCH
    ends: list[float] = []

    class Clock(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            ends.append(time.perf_counter())

    rows = (network.predict(batches.take(steps), verbose=0, callbacks=[Clock()]) for _ in "1")
    return _peer(arguments, dataset.file_paths[: steps * KERAS_BATCH], rows, lambda: ends[-1])


def keras_bfloat16(arguments: argparse.Namespace) -> dict[str, Any]:
    return keras_predict(arguments, "mixed_bfloat16")


def fastai_predictions(arguments: argparse.Namespace) -> dict[str, Any]:
    """fastai's way: ImageDataLoaders, a Learner, get_preds; its defaults otherwise."""
    from regraft.network.workaround_torchvision_nms import ensure_torchvision

    ensure_torchvision()
    import fastai.vision.all as fastai

    network, config = _timm_network(arguments.model)
    normalize = fastai.Normalize.from_stats(config["mean"], config["std"])
    size = config["input_size"][-1]
    loaders = fastai.ImageDataLoaders.from_folder(
        arguments.data, valid="validation", item_tfms=fastai.Resize(size), batch_tfms=normalize
    )
    files = fastai.get_image_files(arguments.data).sorted()
    chosen = [files[number] for number in _chosen(files, arguments.peer_images)]
    learner = fastai.Learner(loaders, network, loss_func=fastai.CrossEntropyLossFlat())
    test = loaders.test_dl(chosen)
    learner.get_preds(dl=loaders.test_dl(chosen[:32]), act=fastai.noop)
    with learner.no_bar():
        return _peer(arguments, chosen, (learner.get_preds(dl=test, act=fastai.noop)[0].numpy() for _ in "1"))


def _timm_network(model: str) -> tuple[Any, dict[str, Any]]:
    """Return timm's network with the very weights that ours has, and timm's configuration of its input."""
    from regraft.network import catalog, weights
    from regraft.network.workaround_torchvision_nms import import_timm

    timm, backbone = import_timm(), catalog.find(MODELS[model]["backbone"])
    loaded = weights.load(MODELS[model]["weights"], backbone)
    network = timm.create_model(backbone.timm_name, num_classes=0, **backbone.model_args).eval()
    network.load_state_dict(
        {name: loaded.tensors[name] for name in network.state_dict() if name in loaded.tensors}, False
    )
    config = timm.data.resolve_model_data_config(network)
    return network, {**config, "mean": loaded.preprocess.mean, "std": loaded.preprocess.std}


def _chosen(paths: Iterable[Any], count: int) -> list[int]:
    """Return `count` positions spread evenly over the photographs."""
    total = len(list(paths))
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int)).tolist()


def _peer(
    arguments: argparse.Namespace,
    paths: list[Any],
    batches: Iterable[np.ndarray],
    ended: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time what a peer computes, to the written file or until it `ended`; scale its seconds to all photographs."""
    started = time.perf_counter()
    rows = np.concatenate(list(batches))
    np.save(Path(arguments.scratch) / "peer.npy", rows)
    seconds = ended() - started
    _keep(arguments, [str(path) for path in paths], rows)
    return {"seconds": seconds / len(rows) * arguments.images, "images/s": len(rows) / seconds}


def _keep(arguments: argparse.Namespace, paths: list[str], rows: np.ndarray) -> None:
    """Keep the features for the comparison of quality; it is not timed."""
    names = [Path(path).name for path in paths]  # unique in these photographs: cat.7.jpg
    np.savez(Path(arguments.scratch) / f"{arguments.run}.npz", names=names, rows=rows)


CONTESTANTS: dict[str, Callable[[argparse.Namespace], Mapping[str, Any]]] = {
    "regraft": ours,
    "regraft int8": lambda arguments: ours(arguments, precision="int8"),
    "engine alone": alone,
    "engine alone int8": lambda arguments: alone(arguments, precision="int8"),
    "timm + DataLoader, float32": timm_loop,
    "timm + DataLoader, channels-last bfloat16": timm_tuned,
    "fastai get_preds": fastai_predictions,
    "Keras predict, float32": keras_predict,
    "Keras predict, bfloat16": keras_bfloat16,
}
REFERENCE = "timm + DataLoader, float32"


def quality(results: list[_bench.Result], scratch: Path, folder: Path, *, meaningful: bool) -> list[_bench.Result]:
    """Add to each result the least cosine with the reference's features, and the accuracy that they are good for."""
    kept = {result.name: np.load(file) for result in results if (file := scratch / f"{result.name}.npz").exists()}
    reference = _by_name(kept[REFERENCE]) if REFERENCE in kept else {}
    added = []
    for result in results:
        notes = dict(result.notes)
        if result.name in kept and result.name.startswith(("regraft", "timm")):  # the others prepare or weigh otherwise
            rows = _by_name(kept[result.name])
            common = [name for name in rows if name in reference]
            if common:
                notes["least cosine"] = round(min(_cosine(rows[name], reference[name]) for name in common), 4)
            if meaningful and len(rows) > len(reference):
                notes["accuracy"] = _accuracy(rows, folder)
        added.append(dataclasses.replace(result, notes=notes))
    return added


def _by_name(kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip(kept["names"].tolist(), kept["rows"], strict=True))


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def _accuracy(rows: Mapping[str, np.ndarray], folder: Path) -> str:
    """Return the validation accuracy of scikit-learn's logistic regression on the features of the training part."""
    from sklearn.linear_model import LogisticRegression

    parts = {}
    for part in ("train", "validation"):
        paths = [path for path in sorted((folder / part).glob("*/*")) if path.name in rows]
        parts[part] = np.stack([rows[path.name] for path in paths]), [path.parent.name for path in paths]
    head = LogisticRegression(C=0.1, max_iter=1000).fit(*parts["train"])
    return f"{head.score(*parts['validation']):.1%}"


def main() -> None:
    parser = _bench.parser(__doc__)
    parser.add_argument("--peer-images", type=int, default=320, help="photographs that a peer reads, a multiple of 32")
    parser.add_argument("--models", nargs="*", default=list(MODELS), help=f"of {list(MODELS)}")
    arguments = parser.parse_args()
    _bench.only_run(CONTESTANTS, arguments)
    with _bench.photographs(arguments.data, "cats-dogs") as folder:
        about, count = _bench.header(), len(list(folder.rglob("*.jpg")))
        for model in arguments.models:
            is_keras = "Inception" in model  # Keras has no EfficientNet-Lite
            entered = {name: run for name, run in CONTESTANTS.items() if is_keras or not name.startswith("Keras")}
            with tempfile.TemporaryDirectory(prefix="regraft-bench-") as scratch:
                results = _bench.contest(entered, arguments, data=folder, model=model, scratch=scratch, images=count)
                pretrained = MODELS[model]["weights"] != "random"
                results = quality(results, Path(scratch), folder, meaningful=pretrained)
            title = f"{model}, {count} photographs; peers read {arguments.peer_images}, scaled"
            peers = [result for result in results if not result.name.startswith(("regraft", "engine"))]
            for result in results:
                if result.name.startswith("regraft"):
                    own = _around(result, results)
                    _bench.compare(f"extract: {title}", own[0], own[1:] + peers, output=arguments.output, about=about)


def _around(result: _bench.Result, results: list[_bench.Result]) -> list[_bench.Result]:
    """Return ours with its share of the engine's own speed; ours with the making ready added; and the engine alone."""
    ready, notes = result.notes["made ready in"], dict(result.notes)
    with_conversion = _bench.Result(
        f"{result.name}, a new network", tuple(seconds + ready for seconds in result.seconds)
    )
    engine = [other for other in results if other.name == result.name.replace("regraft", "engine alone")]
    if engine:
        notes["of its engine's speed"] = f"{engine[0].median / result.median:.0%}"
    return [dataclasses.replace(result, notes=notes), with_conversion, *engine]


if __name__ == "__main__":
    main()
