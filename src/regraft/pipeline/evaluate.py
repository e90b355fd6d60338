"""From a model and images to a Report, or to probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError
from regraft.data import read as reading
from regraft.data.index import Index
from regraft.pipeline.serve_options import EvaluateOptions

if TYPE_CHECKING:
    import numpy as np

    from regraft.model.model import Model
    from regraft.pipeline.report import Report


def evaluate(model: Model, data: Any, options: EvaluateOptions) -> Report:
    """Return the Report of a model on labelled images; raises as `regraft.evaluate` does."""
    from regraft.features.extract import extract
    from regraft.features.store import Store
    from regraft.pipeline import report as serving

    index = data if isinstance(data, Index) else reading.read(data, options=options)
    part, chosen, notes = serving.choose_part(model, index, options.part)
    features = extract(chosen, model.trunk, Store(options.store))
    found = index.mark_broken({row.id: row.reason for row in features.index.broken})
    reading.check_broken(found, options.max_broken)
    if not features.rows:
        raise DataError(f"No image of the part {part!r} of {index.name} can be read.")
    return serving.measure(model, features, part=part, notes=notes, source=found)


def probabilities(model: Model, index: Index, *, store: Path | None = None) -> np.ndarray:
    """Return (n, n_classes) probabilities of the used rows of an index; raise DataError if one is broken."""
    from regraft.features.extract import extract
    from regraft.features.store import Store

    features = extract(index, model.trunk, Store(store))
    if broken := features.index.broken:
        listed = "; ".join(f"{row.path}: {row.reason}" for row in broken.rows[: reading.SHOWN_FILES])
        raise DataError(f"{len(broken)} of {len(index)} images can't be read: {listed}")
    return model.probabilities(features)
