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
from regraft.features.units import PROBABILITIES, Answer, Contents, Folder, Rows
from regraft.features.worker import Worker
from regraft.model import calibration
from regraft.model import model as models
from regraft.model.evidence import Evidence
from regraft.model.model import Model
from regraft.network.trunk import Choice

KIND = "predictions"


@dataclass(frozen=True)
class ComputePredictions:
    """Probabilities and answers, by the model in the job's folder."""

    def open(self, folder: Folder, store: Path | None, cores: int | None) -> Compute:
        """Return what computes predictions of rows."""
        about = folder.manifest() or {}
        here = Path(tempfile.mkdtemp(prefix="regraft-model-"))
        for name in about["model"]:
            (here / name).write_bytes(folder.file(name))
        model = models.load(here, Choice(about["engine"], about["precision"]))
        weakref.finalize(model, shutil.rmtree, here, ignore_errors=True)
        worker = Worker(model.runner, [shelf_folder(trunk, store) for trunk in model.runner.trunks], cores)
        return functools.partial(_predicted, model, worker, about["false_alarms"], about["coverage"])


def _predicted(
    model: Model, worker: Worker, false_alarms: float, coverage: float | None, rows: Iterable[Row]
) -> Iterator[Rows]:
    for looked, features in worker.rows(rows):
        logits = model.logits(features)
        probabilities = model.loss.probabilities(logits / model.temperature)
        labels = [_label(model, row) for row in probabilities]
        sets = [None] * len(labels) if coverage is None else _sets(model, probabilities, coverage)
        answers = map(Answer, labels, *_unknown(model.evidence, features, logits, false_alarms), sets)
        yield Rows(looked, probabilities.astype(np.float32), list(answers))


def _label(model: Model, probabilities: np.ndarray) -> str:
    if model.loss.multilabel:
        return LABEL_SEPARATOR.join(model.predicted_labels(probabilities[None])[0])
    return model.classes[int(np.argmax(probabilities))]


def _unknown(
    evidence: Evidence | None, features: np.ndarray, logits: np.ndarray, false_alarms: float
) -> tuple[list[float | None], list[bool | None]]:
    """Return the novelty of each image, and whether it is unknown; None where the model can't tell."""
    if evidence is None:
        return [None] * len(logits), [None] * len(logits)
    novelty = evidence.novelty(features, logits)
    return novelty.tolist(), (novelty > evidence.threshold(false_alarms)).tolist()


def _sets(model: Model, probabilities: np.ndarray, coverage: float) -> list[list[str]]:
    """Return the prediction set of each image, the most probable label first."""
    held = calibration.prediction_sets(probabilities, model.least_probability(coverage))
    orders = np.argsort(-probabilities, axis=1, kind="stable")
    return [[model.classes[code] for code in order if row[code]] for row, order in zip(held, orders, strict=True)]


def contents(model: Model, folder: Path, false_alarms: float, coverage: float | None) -> Contents:
    """Return what a folder of predictions by the model in `folder` is of; the others as for `Model.predict`."""
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
    choices = [trunk.choice for trunk in model.runner.trunks]
    about: dict[str, Any] = {
        "kind": KIND,
        "model": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "classes": list(model.classes),
        "engine": choices[0].engine,
        "precision": choices[0].precision if len(set(choices)) == 1 else "float32",
        "false_alarms": false_alarms,
        "coverage": coverage,
    }
    return Contents(about, PROBABILITIES, (len(model.classes),), files)
