"""Folds of rows whose groups stay together, each with its share of each class.

By NumPy alone: to import scikit-learn's splitters takes longer than a second training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def deal(
    labels: NDArray[np.integer], groups: NDArray[np.integer], n_folds: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return the fold of each row, (n,): the groups of each class, in a random order, are dealt to the folds in turn.

    labels, groups: (n,); a group with several classes is dealt with the first of them.
    """
    _, of_row = np.unique(groups, return_inverse=True)
    fold_of_group, dealt = np.full(of_row.max() + 1, -1), 0
    for label in np.unique(labels):
        own = np.unique(of_row[labels == label])
        new = random.permutation(own[fold_of_group[own] < 0])
        fold_of_group[new] = (dealt + np.arange(len(new))) % n_folds
        dealt += len(new)
    return fold_of_group[of_row]
