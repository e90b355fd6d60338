"""The audit of `regraft inspect --deep`: read → extract → near-duplicates → label errors → outliers.

No file is touched. The features come from the store, so a second audit costs
little. In memory are the features of the images, once, and a few numbers for
each image; nothing grows with the square of their number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.core.errors import UsageError
from regraft.core.options import change, select
from regraft.data import read as reading
from regraft.features.options import FeatureOptions
from regraft.pipeline.extract import build_network, compute
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import AuditOptions
from regraft.pipeline.read import refusal

if TYPE_CHECKING:
    from regraft.audit.findings import Audit
    from regraft.features.extract import Features


def audit(source: Any, options: AuditOptions) -> Audit:
    """Return what needs a second look in labelled images: near-duplicates, likely label errors, outliers.

    source: an Index, or a source as for `read`. Pictures under two labels are kept, to be listed: with `conflicts`
            "error" they are refused.
    Raises DataError if nothing in the source can be used, UsageError for a cut without features; WeightsMissing,
    RefusedFile, StoreError as `extract` does.
    """
    if options.network.cut == "input":
        raise UsageError("--deep compares features; expected a --cut above the input.")
    features = select(FeatureOptions, options)
    network = build_network(features)
    conflicts = "error" if options.source.conflicts == "error" else "keep"
    index = tied(reading.read(source, options=change(options.source, conflicts=conflicts)), options.store)
    return examine(compute(index, features, network=network), options.network.seed)


def examine(features: Features, seed: int = 0) -> Audit:
    """Return the findings among the used rows of pooled features."""
    from regraft.audit import label_errors, near_duplicates, neighbours, outliers, possible_duplicates
    from regraft.audit.findings import Audit
    from regraft.audit.images import Images
    from regraft.data.inspect import Inspection
    from regraft.features.store.store import Store

    images = Images.of(features)
    nearby = neighbours.Neighbours(*neighbours.nearest(images.features[:]), images.features.groups())
    errors, notes = label_errors.find(images, nearby, seed)
    return Audit(
        inspection=Inspection(features.index, refusal(features.index)),
        duplicates=tuple(near_duplicates.find(features.rows)),
        possible=tuple(possible_duplicates.find(images, nearby, Store(features.store))),
        label_errors=tuple(errors),
        outliers=tuple(outliers.find(images, nearby)),
        notes=tuple(notes),
        seed=seed,
    )
