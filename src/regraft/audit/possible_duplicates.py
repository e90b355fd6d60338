"""Possible duplicates: pairs that may show one picture, though one was framed, lightened, tilted or cropped by more.

A person decides: the rule is looser than that of near-duplicates, which are tied without asking. Two images are shown
where their features are near and one correlates with the other laid over it. Where an image would be in several such
pairs, they are things of one kind on one background, such as bottles in a shop, and none of them is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from regraft.audit.near_duplicates import Duplicates
from regraft.features import fingerprints
from regraft.features.alignment import correlations

if TYPE_CHECKING:
    from regraft.audit.images import Images
    from regraft.audit.neighbours import Neighbours, Numbers
    from regraft.features.store.store import Store

NEAR = 0.8  # cosine of the features, of the nearest outside the group
CORRELATION = 0.8  # of the grey levels where the two overlap


def find(images: Images, neighbours: Neighbours, store: Store) -> list[Duplicates]:
    """Return the pairs, in the source's order."""
    prints, present = fingerprints.of_rows(images.rows, store)
    pairs = _near(neighbours, present)
    pairs = pairs[correlations(prints[pairs[:, 0]], prints[pairs[:, 1]]) >= CORRELATION]
    alone = np.bincount(pairs.ravel(), minlength=len(images)) == 1
    shown = pairs[alone[pairs].all(axis=1)].tolist()
    return [Duplicates.of([*images.files[one], *images.files[other]], certain=False) for one, other in shown]


def _near(neighbours: Neighbours, present: np.ndarray) -> Numbers:
    """Return pairs of images whose features are near, (n, 2), each once, of those that have fingerprints."""
    pairs = {
        (min(number, other), max(number, other))
        for number, cosines in enumerate(neighbours.cosines)
        for other in neighbours.outside_group(number)
        if cosines[neighbours.numbers[number] == other][0] >= NEAR and present[[number, other]].all()
    }
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)
