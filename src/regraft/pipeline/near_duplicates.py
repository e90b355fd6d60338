"""Near-duplicates before a split: which images are versions of one picture is looked for once, and logged."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from regraft.core.options import takes_options
from regraft.core.progress import log
from regraft.core.text import count
from regraft.data.index import Index
from regraft.data.read import read_inputs
from regraft.data.split import SplitOptions, group_numbers
from regraft.features.options import StoreOptions

if TYPE_CHECKING:
    import numpy as np


def tied(index: Index, store: StoreOptions, split: SplitOptions = SplitOptions()) -> Index:
    """Return the index with its near-duplicates marked, unless they are to be ignored, or it was compared before.

    Raises StoreError if the store, which keeps the fingerprints, refuses.
    """
    if index.compared:
        return index
    if split.near_duplicates == "ignore":
        return dataclasses.replace(index, compared=True)
    from regraft.features import fingerprints
    from regraft.features.store.store import Store

    compared = fingerprints.compare(index, Store(store.store))
    if versions := {row.id for row in compared.used if row.version_of}:
        log.info(
            "%s: a picture that is there already, saved again, resized, mirrored or cropped. All versions of a picture "
            "stay on one side of a split; --near-duplicates ignore: each for itself.",
            count(versions, "near-duplicate"),
        )
    return compared


@takes_options(StoreOptions)
def groups(images: Any, *, options: StoreOptions) -> np.ndarray:
    """Return a number for each image, (n,) int64, equal for versions of one picture.

    They are the `groups` of scikit-learn's splitters, such as StratifiedGroupKFold.

    images: as for `predict`.
    Raises StoreError if the store, which keeps the fingerprints, refuses.
    """
    import numpy as np

    return np.array(group_numbers(tied(read_inputs(images), options).rows), np.int64)
