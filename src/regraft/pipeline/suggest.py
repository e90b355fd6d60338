"""`regraft.suggest`: which photographs to label next, so that a model learns most from few."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from regraft.core.options import require, takes_options
from regraft.data.read import read_inputs
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import SuggestOptions

if TYPE_CHECKING:
    from regraft.audit.suggestions import Suggestions
    from regraft.data.index import Index, Row
    from regraft.model.model import Model

SUGGESTED = 50


@takes_options(SuggestOptions)
def suggest(model: Model, photographs: Any, count: int = SUGGESTED, *, options: SuggestOptions) -> Suggestions:
    """Return which photographs to label next: those that the model is least certain of, and unlike each other.

    What the model knows by its bytes, whatever part it was in, is left out, and of several versions of a picture all
    but one. Their features are stored, so that training on them later computes nothing again.

    model:       from `load`, `fit`, or a Report.
    photographs: as for `Model.predict`; labels are not needed.
    count:       how many.
    Raises UsageError for less than one, DataError or StoreError as `extract` does.
    """
    import numpy as np

    from regraft.audit import what_to_label
    from regraft.audit.suggestions import Suggestions
    from regraft.features.extract import extract
    from regraft.features.store.store import Store
    from regraft.model.evidence import directions
    from regraft.training.losses import EVEN

    require(count >= 1, "count", count, "1 or more")
    index = _unlabelled(tied(read_inputs(photographs, options.source), options.store), model)
    features = extract(index, model.runner, Store(options.store.store))
    index = features.index
    probabilities = model.probabilities(features)
    thresholds = np.array(model.thresholds or [EVEN] * len(model.classes)) if model.loss.multilabel else None
    certainty = what_to_label.certainties(probabilities, thresholds)
    among = what_to_label.candidates(certainty, count)
    numbers = among[what_to_label.spread(directions(features[among]), certainty[among], count, model.seed)]
    chosen = index.with_rows(features.rows[number] for number in numbers)
    predictions = model.predict(chosen, store=options.store.store)
    return Suggestions(index=index, predictions=tuple(predictions), certainty=tuple(certainty[numbers].tolist()))


def _unlabelled(index: Index, model: Model) -> Index:
    """Return the index without what the model was trained on or measured by, and of a picture's versions only one."""
    from regraft.audit.suggestions import LABELLED

    first: dict[str, Row] = {}
    rows = []
    for row in index:
        if row.status == "used" and model.part_of(row.id):
            row = row.marked("ignored", LABELLED)
        elif row.status == "used" and first.setdefault(row.picture, row) is not row:
            row = row.marked("ignored", f"the same picture as {first[row.picture].path}")
        rows.append(row)
    return dataclasses.replace(index, rows=tuple(rows))
