"""The models that are served: opened from a folder, or from each folder of a folder, and again when one is replaced."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core.errors import RefusedFile, RegraftError
from regraft.core.progress import log
from regraft.data.index import Index, Row
from regraft.data.read import read_file
from regraft.data.sources.pictures import BytesLocation, rows
from regraft.model.folder import DESCRIPTION
from regraft.model.model import Model
from regraft.model.predict import Prediction
from regraft.pipeline.predict import load
from regraft.serving.body import Image
from regraft.serving.options import ServeOptions
from regraft.serving.work import Line

Stamp = tuple[int, int]


class Served:
    """A model, and the line of what waits for it."""

    def __init__(self, folder: Path, stamp: Stamp, options: ServeOptions, pool: ThreadPoolExecutor, workers: int):
        self.stamp = stamp
        self.model = load(folder, options=options.engine)
        limit = int(options.server.max_megapixels * 1e6)
        self._compute = functools.partial(_predict, self.model, options.store.store, limit)
        self.line = Line(self._compute, pool, workers, lambda: self.model.runner.batch)
        self.is_ready = False

    def warm_up(self) -> Served:
        """Start the engine, with a picture that is made up, so that the first request need not wait for it."""
        (row,) = rows(_made_up(), 1)
        self._compute([Image("picture", row.location.read())], 1)
        self.is_ready = True
        return self

    def describe(self) -> dict[str, Any]:
        """Return what the model is, as JSON-able data, without a path of this machine."""
        model = self.model
        return {
            "classes": list(model.classes),
            "multilabel": model.loss.multilabel,
            "thresholds": model.thresholds and list(model.thresholds),
            "networks": [_network(trunk) for trunk in model.trunks],
            "head": model.head_name,
            "tail": model.tail is not None,
            "measures": dict(model.measures),
            "versions": dict(model.versions),
        }


def _made_up(side: int = 256) -> np.ndarray:
    """Return a picture (side, side, 3) uint8 with the spectrum of photographs, whose amplitudes fall as 1 / frequency.

    It may have to prove, where no image has yet, that the engine agrees with PyTorch: as exactly as on photographs,
    which it does not on a smooth or a flat picture. Source: Field 1987, doi:10.1364/JOSAA.4.002379.
    """
    rng = np.random.default_rng(0)
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequencies[0, 0] = np.inf  # no mean
    phases = rng.uniform(0, 2 * np.pi, (3, *frequencies.shape))
    waves = np.fft.irfft2(np.exp(1j * phases) / frequencies, s=(side, side))
    waves = (waves[:1] + 0.3 * waves) / waves.std()  # the colours have most in common
    picture: np.ndarray = np.clip(128 + 50 * waves, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return picture


def _network(trunk: Any) -> dict[str, Any]:
    described = trunk.describe()
    return {name: described[name] for name in ("architecture", "cut", "preprocess") if name in described}


def _predict(model: Model, store: Path | None, limit: int, images: Sequence[Image], top: int) -> list[Prediction]:
    index = Index(tuple(_row(image, limit) for image in images), "a request")
    return model.predict(index, top=top, store=store)


def _row(image: Image, limit: int) -> Row:
    row = read_file(Row(path=image.name, location=BytesLocation(image.data)), is_named=True)
    if row.size and row.size[0] * row.size[1] > limit:
        width, height = row.size
        return row.marked("broken", f"{width} x {height} pixels are more than the accepted {limit:,}")
    return row


class Models:
    """The models by their folders' names; one that is replaced is opened again, and serves once it is ready."""

    def __init__(self, folder: Path, options: ServeOptions, pool: ThreadPoolExecutor, workers: int) -> None:
        self._folder = folder
        self._open = functools.partial(Served, options=options, pool=pool, workers=workers)
        self._refused: dict[str, Stamp] = {}
        self.served: dict[str, Served] = {}
        for name, path in self._folders().items():
            self.served[name] = self._open(path, _stamp(path))
        if not self.served:
            load(folder)  # which says why it is none
            raise RefusedFile(f"{folder} holds no model.")

    def _folders(self) -> dict[str, Path]:
        """Return the folders of models by name: the folder itself, or those in it."""
        if (self._folder / DESCRIPTION).is_file() or not self._folder.is_dir():
            return {self._folder.resolve().name: self._folder}
        return {path.name: path for path in sorted(self._folder.iterdir()) if (path / DESCRIPTION).is_file()}

    @property
    def is_ready(self) -> bool:
        """Whether each model answers at once."""
        return all(served.is_ready for served in self.served.values())

    def refresh(self) -> None:
        """Start what is not ready; open what is new or was replaced. A folder that is refused changes nothing."""
        for served in self.served.values():
            if not served.is_ready:
                served.warm_up()
        for name, path in self._folders().items():
            stamp, known = _stamp(path), self.served.get(name)
            if stamp in (known and known.stamp, self._refused.get(name), ABSENT):
                continue
            try:
                self.served[name] = self._open(path, stamp).warm_up()
                log.info("The model %s was opened again.", name)
            except RegraftError as error:
                self._refused[name] = stamp
                log.warning("The model %s is not served as it is now: %s", name, error)


ABSENT: Stamp = (0, 0)


def _stamp(path: Path) -> Stamp:
    try:
        stat = (path / DESCRIPTION).stat()
    except OSError:
        return ABSENT
    return stat.st_ino, stat.st_mtime_ns
