"""`regraft.evaluate`: from a model and images to a Report, or to probabilities."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError, StoreError
from regraft.core.options import takes_options
from regraft.data import usable
from regraft.data.index import Index
from regraft.data.read import read_inputs
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import EvaluateOptions
from regraft.pipeline.read import read_source

if TYPE_CHECKING:
    import numpy as np

    from regraft.features.extract import Features
    from regraft.model.model import Model
    from regraft.pipeline.known import Known
    from regraft.pipeline.report import Report


@takes_options(EvaluateOptions)
def evaluate(model: Model, data: Any, *, strangers: Any = None, options: EvaluateOptions) -> Report:
    """Return the Report of a model on labelled images.

    Images that the model knows, and other versions of them, keep the part that they had when it was trained.

    model: from `load`, `fit`, or a Report.
    data:  an Index, or a source as for `read`.
    strangers: images of none of the classes: the report says how many of them the model calls unknown.
    Raises DataError if no image is in that part, too many are broken, or a label is none of the model's.
    """
    from regraft.pipeline import known, report, unknown_class

    index = tied(read_source(data, options.source), options.store)
    if (aside := model.options.get("unknown_class")) in index.classes:
        index = unknown_class.set_aside(index, aside)
        kept_out = unknown_class.measured(index, model.seed)
        strangers = kept_out if strangers is None and model.evidence and kept_out.rows else strangers
    of_model = known.known(model, index, options.store)
    unlike = None if strangers is None else novelty_of(model, strangers, options)
    measured = report.cross_validated(of_model, index) if options.part.part is None else None
    if measured and options.tta.tta > 1:
        note = "--tta is left out: this is what cross-validation measured when the model was trained"
        measured = dataclasses.replace(measured, notes=(*measured.notes, note))
    measured, features = (measured, None) if measured else _measured(of_model, index, options)
    measured = report.with_shortcuts(measured, options.store.store)
    if unlike is None:
        return measured
    return report.with_strangers(measured, None if features is None else model.novelty(features), unlike)


def _measured(of_model: Known, index: Index, options: EvaluateOptions) -> tuple[Report, Features]:
    """Return the Report on the part that the options choose, and the features of its images."""
    from regraft.features.extract import extract
    from regraft.features.store.store import Store
    from regraft.pipeline import known, report

    model = of_model.model
    part, chosen, notes = known.choose_part(of_model, index, options.part.part)
    features = extract(chosen, model.runner, Store(options.store.store))
    source = index.mark_broken({row.id: row.reason for row in features.index.broken})
    usable.check(source, options.broken.max_broken)
    if not features.rows:
        raise DataError(f"No image of the part {part!r} of {index.name} can be read.")
    probabilities = None
    if options.tta.tta > 1:
        notes = (*notes, f"each probability is the mean over {options.tta.tta} views of the image (--tta)")
        probabilities = _over_poses(model, features, options)
    measured = report.measure(of_model, features, probabilities, part=part, notes=notes, source=source)
    return measured, features


def _over_poses(model: Model, features: Features, options: EvaluateOptions) -> np.ndarray:
    """Return (n, n_classes) probabilities of images, the mean over their poses; raise StoreError without room."""
    import numpy as np

    from regraft.features.extract import extract
    from regraft.features.poses import poses
    from regraft.features.store.store import Store

    index = features.index.with_rows(dataclasses.replace(row, part=None) for row in features.rows)
    views = extract(index, model.runner, Store(options.store.store), poses(options.tta.tta)).views
    if len(views) < options.tta.tta - 1:
        raise StoreError(f"The store has no room for --tta {options.tta.tta}; make some, or leave it out.")
    mean: np.ndarray = np.mean([model.probabilities(each) for each in (features, *views)], axis=0)
    return mean


def novelty_of(model: Model, strangers: Any, options: EvaluateOptions) -> np.ndarray:
    """Return (n,) the novelty of images of none of the classes; raise DataError if none of them can be read."""
    from regraft.features.extract import extract
    from regraft.features.store.store import Store

    index = read_inputs(strangers, options.source)
    features = extract(index, model.runner, Store(options.store.store))
    if not features.rows:
        raise DataError(f"None of the {len(index):,} strangers is a picture that can be read.")
    return model.novelty(features)


def trained_on(model: Model, images: Any, *, store: Path | None = None) -> tuple[int, int] | None:
    """Return how many of so many images, or other versions of them, a model was trained on; None if of none."""
    from regraft.features.options import StoreOptions
    from regraft.pipeline import known

    index = read_inputs(images).used
    number = known.known(model, index, StoreOptions(store=store)).trained_on(index)
    return (number, len(index)) if number else None


def probabilities(model: Model, index: Index, *, store: Path | None = None) -> np.ndarray:
    """Return (n, n_classes) probabilities of the used rows of an index; raise DataError if one is broken."""
    from regraft.features.extract import extract
    from regraft.features.store.store import Store

    features = extract(index, model.runner, Store(store))
    if broken := features.index.broken:
        listed = "; ".join(f"{row.path}: {row.reason}" for row in broken.rows[: usable.SHOWN_FILES])
        raise DataError(f"{len(broken)} of {len(index)} images can't be read: {listed}")
    return model.probabilities(features)
