"""A model's predictions for the rows of a unit, in a process of its own, from the model's files in the job's folder."""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.data.index import Row
from regraft.data.labels import LABEL_SEPARATOR
from regraft.features.job import Compute, shelf_folder
from regraft.features.units import Contents, Folder, Rows
from regraft.features.worker import Worker
from regraft.model import model as models
from regraft.model.model import Model
from regraft.network.trunk import Choice

KIND = "predictions"


@dataclass(frozen=True)
class ComputePredictions:
    """Probabilities and predicted labels, by the model in the job's folder."""

    def open(self, folder: Folder, store: Path | None, cores: int | None) -> Compute:
        """Return what computes predictions of rows."""
        about = folder.manifest() or {}
        here = Path(tempfile.mkdtemp(prefix="regraft-model-"))
        for name in about["model"]:
            (here / name).write_bytes(folder.file(name))
        model = models.load(here, Choice(about["engine"], about["precision"]))
        weakref.finalize(model, shutil.rmtree, here, ignore_errors=True)
        worker = Worker(model.runner, [shelf_folder(trunk, store) for trunk in model.runner.trunks], cores)
        return functools.partial(_predicted, model, worker)


def _predicted(model: Model, worker: Worker, rows: Iterable[Row]) -> Iterator[Rows]:
    for looked, features in worker.rows(rows):
        probabilities = model.probabilities(features)
        yield Rows(looked, probabilities.astype(np.float32), [_label(model, row) for row in probabilities])


def _label(model: Model, probabilities: np.ndarray) -> str:
    if model.loss.multilabel:
        return LABEL_SEPARATOR.join(model.predicted_labels(probabilities[None])[0])
    return model.classes[int(np.argmax(probabilities))]


def contents(model: Model, folder: Path) -> Contents:
    """Return what a folder of predictions by the model in `folder` is of."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    choices = [trunk.choice for trunk in model.runner.trunks]
    about: dict[str, Any] = {
        "kind": KIND,
        "model": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "classes": list(model.classes),
        "engine": choices[0].engine,
        "precision": choices[0].precision if len(set(choices)) == 1 else "float32",
    }
    return Contents(about, "probabilities", (len(model.classes),), files)
