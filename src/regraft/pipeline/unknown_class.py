"""The unknown class: a folder of pictures of nothing in particular, which is no class, but teaches what is unknown.

An index enters; the same index leaves with these pictures ignored, so that no part, no class and no copy counts them.
Four fifths of them, by their ids, teach the model's novelty (see `model/evidence`); by the others it is measured how
many strangers of their kind are called unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from regraft.core.errors import DataError, UnknownName
from regraft.core.rng import derive
from regraft.data.index import Index, Row

if TYPE_CHECKING:
    from pathlib import Path

    from regraft.features.extract import Features
    from regraft.inference.runner import Runner
    from regraft.pipeline.report import Report

REASON = "of the unknown class: it teaches what is of none of the others"
MEASURED = 5  # one of so many does not teach


def set_aside(index: Index, name: str | None) -> Index:
    """Return the index with the images of the class of this name ignored.

    Raises UnknownName if there is no such class, DataError where an image may have several labels.
    """
    if name is None:
        return index
    if index.multilabel:
        raise DataError(f"{index.name} has images with several labels; an unknown class is for one label an image.")
    if name not in index.classes:
        raise UnknownName.of("class", name, index.classes)
    return index.with_rows(
        row.marked("ignored", REASON) if row.status == "used" and row.label == name else row for row in index
    )


def taught(index: Index, seed: int) -> Index:
    """Return the images that teach, of an index from `set_aside`."""
    return _aside(index, lambda row: not _is_measured(row, seed))


def measured(index: Index, seed: int) -> Index:
    """Return the images by which it is measured how many are called unknown, of an index from `set_aside`."""
    return _aside(index, lambda row: _is_measured(row, seed))


def _aside(index: Index, keep: Callable[[Row], bool]) -> Index:
    """Return those that were set aside, but for other versions of a picture that is in a class, as used rows."""
    known = {row.picture for row in index.used}
    rows = (row for row in index if row.reason == REASON and row.picture not in known and keep(row))
    return index.with_rows(row.marked("used", "") for row in rows)


def _is_measured(row: Row, seed: int) -> bool:
    return derive(seed, "unknown", row.picture) % MEASURED == 0


def features_of(index: Index, runner: Runner, store: Path | None) -> Features | None:
    """Return the features of images that were set aside; None if there are none, or none can be read."""
    from regraft.features.extract import extract
    from regraft.features.store.store import Store

    features = extract(index, runner, Store(store)) if index.rows else None
    return features if features is not None and len(features) else None


def with_measured(report: Report, features: Features, store: Path | None) -> Report:
    """Return the report with how many of the pictures that did not teach are called unknown.

    features: of the run, its index from `set_aside`.
    """
    from regraft.data.index import PARTS
    from regraft.pipeline.report import with_strangers

    model = report.model
    strangers = features_of(measured(features.index, model.seed), features.runner, store)
    if strangers is None or model.evidence is None:
        return report
    known = model.novelty(features.part(report.part)) if report.part in PARTS else None
    return with_strangers(report, known, model.novelty(strangers))
