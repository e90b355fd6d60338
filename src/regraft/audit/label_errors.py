"""Likely label errors: pictures that look more like another class, by the method of confident learning.

Cross-validated probabilities enter: each image is classified by models that were
trained without it and without its duplicates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.core.text import listed, percent, shorten
from regraft.data.index import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regraft.audit.images import Images
    from regraft.audit.neighbours import Neighbours, Numbers

MARGIN = 0.5  # a class that is more probable than the label by this much contradicts it
MINIMUM_IMAGES = 5  # of a class, duplicates counted once, for its labels to be checked
REPEATS = 3  # of the cross-validation, whose probabilities are averaged


@dataclass(frozen=True)
class LabelError:
    """An image whose label is probably wrong.

    rows:              its files under this label.
    suggested:         the class that it looks like, …
    probability:       … with its cross-validated probability, …
    label_probability: … and that of its own label.
    nearest:           the pictures most like it.
    """

    rows: tuple[Row, ...]
    suggested: str
    probability: float
    label_probability: float
    nearest: tuple[Row, ...] = ()

    def files(self) -> list[dict[str, Any]]:
        """Return the files as JSON-able data."""
        scores = {name: getattr(self, name) for name in ("suggested", "probability", "label_probability")}
        return [{"path": row.path, "label": row.label, "part": row.part, **scores} for row in self.rows]

    def lines(self, width: int) -> list[str]:
        """Return lines for a terminal: the first file, below it the label and the class that it looks like."""
        label = f"labelled {self.rows[0].label}, looks like {self.suggested} ({percent(self.probability, 0)} %)"
        return ["  " + shorten(self.rows[0].path, width - 2), "      " + shorten(label, width - 6)]

    def records(self) -> Iterator[tuple[Row, str, str, str, str]]:
        """Yield row, action, suggested label, score and file to compare with, for a CSV."""
        beside = self.nearest[0].path if self.nearest else ""
        for row in self.rows:
            yield row, "check the label", self.suggested, f"{self.probability:.4f}", beside


def find(images: Images, neighbours: Neighbours, seed: int) -> tuple[list[LabelError], list[str]]:
    """Return the likely label errors, the most certain first, and in words which labels were not checked."""
    from regraft.training.cross_validation import cross_validate
    from regraft.training.examples import Examples

    classes, notes = _checked_classes(images, neighbours.groups)
    if len(classes) < 2:
        return [], notes
    checked = [number for number, row in enumerate(images.rows) if row.label in classes]
    features = images.take(checked)
    examples = Examples(features, features.labels(classes), neighbours.groups[checked])
    probabilities = cross_validate(examples, len(classes), repeats=REPEATS, seed=seed).mean(axis=0)
    rows, suggested = contradicted(probabilities, examples.labels)
    return [
        LabelError(
            images.files[number := checked[row]],
            classes[code],
            float(probabilities[row, code]),
            float(probabilities[row, examples.labels[row]]),
            tuple(images.rows[other] for other in neighbours.outside_group(number)),
        )
        for row, code in zip(rows.tolist(), suggested.tolist(), strict=True)
    ], notes


def contradicted(probabilities: NDArray[np.floating], labels: Numbers) -> tuple[Numbers, Numbers]:
    """Return the rows whose label is probably wrong, the most certain first, and the class that each looks like.

    probabilities: (n, classes), from models that were not trained on the row.
    labels:        (n,), each class has a row.

    A picture looks like a class whose probability is at least what it is on average for the pictures of that label,
    or above the label's own by MARGIN; of several the most probable one. Its label is contradicted where it looks like
    another class, and that one is more probable.

    Source: confident learning, Northcutt, Jiang and Chuang 2021, arXiv:1911.00068, equation 1 (the pictures off the
    diagonal of the confident joint). MARGIN is added because half of the wrong labels miss an average: of 5 % changed
    labels of cats-dogs the paper's rule found 87 %, with it 96 %, 98 % of which were wrong (99 % before).
    """
    classes = probabilities.shape[1]
    of_label = probabilities[np.arange(len(labels)), labels]
    usual = np.bincount(labels, of_label, classes) / np.bincount(labels, minlength=classes)
    alike = np.where(probabilities >= np.minimum(usual, of_label[:, None] + MARGIN), probabilities, -1)
    suggested, margins = alike.argmax(axis=1), alike.max(axis=1) - of_label
    rows = np.flatnonzero((suggested != labels) & (margins > 0))
    rows = rows[np.argsort(-margins[rows], kind="stable")]
    return rows, suggested[rows]


def _checked_classes(images: Images, groups: Numbers) -> tuple[list[str], list[str]]:
    """Return the classes that are large enough for a cross-validation, and in words which are not."""
    separate = _separate(images, groups)
    classes = sorted(label for label, members in separate.items() if len(members) >= MINIMUM_IMAGES)
    few = sorted(separate.keys() - set(classes))
    if len(classes) < 2:
        return classes, [
            f"No label was checked: that takes two classes of {MINIMUM_IMAGES} separate pictures or more each."
        ]
    small = f"Labels not checked, with fewer than {MINIMUM_IMAGES} separate pictures each: {listed(few)}."
    return classes, [small] if few else []


def _separate(images: Images, groups: Numbers) -> Mapping[str, set[int]]:
    """Return the groups of each label: how many pictures it has if duplicates count once."""
    separate: defaultdict[str, set[int]] = defaultdict(set)
    for row, group in zip(images.rows, groups.tolist(), strict=True):
        separate[row.label or ""].add(group)
    return separate
