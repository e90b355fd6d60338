"""`regraft inspect --deep`: read → extract → near-duplicates → label errors → outliers. No file is touched.

The features come from the store, so a second audit costs little. In memory are
the features of the images, once, the thumbnails of those that may be
near-duplicates, and a few numbers for each image; nothing grows with the square
of their number.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core.errors import UsageError
from regraft.core.options import merged
from regraft.data import read as reading
from regraft.data.index import Index
from regraft.data.read import SourceOptions
from regraft.network.options import FeatureOptions

if TYPE_CHECKING:
    from regraft.audit.findings import Audit
    from regraft.features.extract import Features


@merged
@dataclass(frozen=True, kw_only=True)
class DeepOptions(FeatureOptions, SourceOptions):
    """The choices of `regraft inspect --deep`."""


def inspect(source: Any, options: DeepOptions) -> Audit:
    """Return what needs a second look in labelled images: near-duplicates, likely label errors, outliers.

    source: an Index, or a source as for `read`. Pictures under two labels are kept, to be listed: with `conflicts`
            "error" they are refused.
    Raises DataError if nothing in the source can be used, UsageError for features that are maps; WeightsMissing,
    RefusedFile, StoreError as `extract` does.
    """
    from regraft.pipeline import extract as extraction

    if options.trains_tail or options.pool == "none":
        raise UsageError("--deep compares pooled features; leave --tail off, --pool mean and --cut above the input.")
    keep = dataclasses.replace(options, conflicts="error" if options.conflicts == "error" else "keep")
    index = source if isinstance(source, Index) else reading.read(source, options=keep)
    return examine(extraction.extract(index, options), options.seed)


def examine(features: Features, seed: int = 0) -> Audit:
    """Return the findings among the used rows of pooled features."""
    from regraft.audit import label_errors, near_duplicates, neighbours, outliers
    from regraft.audit.findings import Audit
    from regraft.audit.images import Images
    from regraft.data.inspect import Inspection

    images = Images.of(features)
    numbers, cosines = neighbours.nearest(images.features[:])
    pairs = near_duplicates.find_pairs(images.rows, numbers, cosines)
    nearby = neighbours.Neighbours(numbers, cosines, neighbours.merged(images.features.groups(), pairs))
    errors, notes = label_errors.find(images, nearby, seed)
    return Audit(
        inspection=Inspection(features.index),
        duplicates=tuple(near_duplicates.find(images, pairs)),
        label_errors=tuple(errors),
        outliers=tuple(outliers.find(images, nearby)),
        notes=tuple(notes),
    )
