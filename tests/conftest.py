"""What several test files need: a cache of their own, and small photographs that can be told apart."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core; before the libraries that read it
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

# What tests choose whose subject is not the engine: nothing is converted, and every machine computes alike.
PLAIN = {"engine": "torch", "precision": "float32"}


def pytest_make_parametrize_id(val, argname):
    """Name a parameter of bytes by its argument: a name of bytes may differ between two workers, as gzip's times do."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_finish(session):
    """Let the collector pass over what was imported, and come less often: a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


COLOURS = {"blue": (30, 60, 200), "green": (40, 180, 60), "red": (200, 40, 40)}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the store of the tests away from the user's; one for all their processes, so that each converts little."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REGRAFT_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


def write_photo(path: Path, colour: tuple[int, int, int], seed: int, size: int = 40) -> Path:
    """Write a noisy picture of one colour; each seed gives other bytes."""
    noise = np.random.default_rng(seed).integers(-30, 30, (size, size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)).save(path)
    return path


def write_photos(folder: Path, per_class: int = 12, seed: int = 0) -> Path:
    """Write a folder of three classes, each of one colour."""
    for position, (label, colour) in enumerate(COLOURS.items()):
        for number in range(per_class):
            write_photo(folder / label / f"{number:03}.png", colour, seed + 1000 * position + number)
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of three classes of twelve small photographs; not to be written to."""
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="session")
def model_folder(photos, tmp_path_factory):
    """A small model of `photos`, with random weights, of which seven in ten were trained on."""
    import regraft

    folder = tmp_path_factory.mktemp("trained") / "model"
    small = {"backbone": "test_resnet", "size": 64, "weights": "random", "views": 0, **PLAIN}
    regraft.train(photos, folder, **small, split="0.7/0.3")
    return folder


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """One result of every kind, by its name; among the photographs are a broken, an ignored and a copied file."""
    import regraft

    folder = tmp_path_factory.mktemp("results")
    photos = write_photos(folder / "photos_with_a_long_name_that_does_not_fit_on_a_narrow_page")
    (photos / "blue").rename(photos / "a_very_long_name_of_a_class_as_people_have_them_2024")
    (photos / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (photos / "red" / f"{'long_name' * 12}.txt").write_text("no image")
    shutil.copy(photos / "red" / "000.png", photos / "green" / "copy.png")
    small = {"backbone": "test_resnet", "weights": "random", "size": 64, **PLAIN}
    parts = {"split": "0.6/0.2/0.2", "max_broken": 0.1}
    index = regraft.read(photos)
    report = regraft.train(index, folder / "model", head="mlp", epochs=3, **parts, **small)
    features = regraft.extract(regraft.split(index, split="0.6/0.2/0.2"), **small)
    compared = {"backbones": "test_resnet", "weights": "random", "size": 64, "max_broken": 0.1}
    return {
        "Inspection": regraft.inspect(index),
        "Audit": regraft.inspect(photos, deep=True, **small),
        "Comparison": regraft.compare(index, **compared, **PLAIN),
        "Tuned": regraft.tune(index, folder / "tuned", trials=2, **parts, **small),
        "Sweep": regraft.lr_find(features, head="mlp"),
        "Prediction": regraft.predict(report.model, photos / "red" / "001.png")[0],
        "Gallery": regraft.explain(report.model, [photos / "red" / f"{name}.png" for name in ("001", "002", "broken")]),
        "Suggestions": regraft.suggest(
            report.model, [write_photo(folder / "new.png", (115, 50, 120), 7), photos / "red"]
        ),
        "Report": report,
        "Features": features,
        "History": report.model.history,
    }
