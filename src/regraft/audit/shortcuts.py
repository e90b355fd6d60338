"""Shortcuts: how well the class is predicted by what is not the thing itself: size, file format, brightness, border.

The images' headers and their fingerprints (thumbnails of 32 by 32, see `features/similar`) enter; nothing is decoded
again. A ridge regression on each clue alone is cross-validated, copies together. Where it does well, a model may have
learned the camera or the source of the pictures, and not what is on them.
Source: Geirhos et al. 2020, "Shortcut learning in deep neural networks", arXiv:2004.07780.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft.core.errors import DataError
from regraft.core.rng import generator
from regraft.core.text import percent
from regraft.data.index import Index, Row
from regraft.data.split import group_numbers
from regraft.evaluation.significance import interval
from regraft.evaluation.words import DASH
from regraft.features import fingerprints
from regraft.features.alignment import colours, grey_levels

if TYPE_CHECKING:
    from regraft.features.store.store import Store

MOST = 1000  # images, drawn at random
LEAST = 50  # below, intervals are too wide to tell
BORDER, COLOUR_BORDER = 2, 1  # pixels of a thumbnail's grey levels and colours
BINS = 8  # of a number, equally full, so that a regression sees more than whether it is large
RIDGE = 3.0  # the penalty of squared weights
STRONG = 0.5  # of the errors that naming the largest class makes, which the clue alone spares for certain


class Clue(NamedTuple):
    """How well one clue alone predicts the class."""

    name: str
    accuracy: float
    interval: tuple[float, float]  # 95 %


@dataclass(frozen=True)
class Shortcuts:
    """What was measured.

    n:      images.
    chance: the fraction of them that always naming the largest class is right for.
    """

    n: int
    chance: float
    clues: tuple[Clue, ...]

    @property
    def strong(self) -> list[Clue]:
        """The clues that spare so many errors for certain that a model could go by them."""
        return [clue for clue in self.clues if clue.interval[0] - self.chance >= STRONG * (1 - self.chance)]

    def warnings(self) -> list[str]:
        """Return a sentence for each of the strong clues."""
        return [
            f"{clue.name} alone predicts the class of {percent(clue.accuracy)} % of the images (95 %: "
            f"{percent(clue.interval[0])}{DASH}{percent(clue.interval[1])}; always naming the largest class: "
            f"{percent(self.chance)} %): a model may look at the camera or the source of the pictures, not at the "
            "thing. Test it on pictures from elsewhere"
            for clue in self.strong
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON-able data."""
        return {**asdict(self), "clues": [clue._asdict() for clue in self.clues]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Shortcuts:
        """Return what `to_dict` gave."""
        clues = (Clue(str(each["name"]), float(each["accuracy"]), tuple(each["interval"])) for each in values["clues"])
        return cls(int(values["n"]), float(values["chance"]), tuple(clues))

    def rows(self) -> list[list[str]]:
        """Return a table, the first row the titles."""
        titles = ["What alone", "Right %", "95 %", "Largest class %"]
        cells = [
            [clue.name, percent(clue.accuracy), f"{percent(clue.interval[0])}{DASH}{percent(clue.interval[1])}"]
            for clue in self.clues
        ]
        return [titles, *([*row, percent(self.chance)] for row in cells)]


def measure(index: Index, store: Store, seed: int = 0) -> Shortcuts | None:
    """Return how well each clue alone predicts the class; None for few images, or several labels an image.

    store: keeps the fingerprints.
    """
    rows = _sample(index, seed)
    if index.multilabel or len(rows) < LEAST or len({row.label for row in rows}) < 2:
        return None
    thumbnails, present = fingerprints.of_rows(rows, store)
    rows = [row for row, there in zip(rows, present.tolist(), strict=True) if there]
    names, labels = np.unique([str(row.label) for row in rows], return_inverse=True)
    try:
        correct = {name: _correct(inputs, labels, rows) for name, inputs in _clues(rows, thumbnails[present]).items()}
    except DataError:  # a class has a single picture
        return None
    pictures = np.unique([row.picture for row in rows], return_inverse=True)[1]
    clues = (Clue(name, float(hits.mean()), interval(hits, pictures)) for name, hits in correct.items())
    return Shortcuts(len(rows), float(np.bincount(labels).max() / len(rows)), tuple(clues)) if len(names) > 1 else None


def _sample(index: Index, seed: int) -> list[Row]:
    """Return up to MOST used rows whose header was read, of classes that have two pictures or more."""
    used = [row for row in index.used if min(row.size) > 0]
    counts = Counter(label for label, _ in {(row.label, row.picture) for row in used})
    rows = [row for row in used if counts[row.label] > 1]
    chosen = generator(seed, "shortcuts").permutation(len(rows))[:MOST]
    return [rows[at] for at in sorted(chosen.tolist())]


def _clues(rows: Sequence[Row], thumbnails: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Return the inputs of each clue, (n, width) each, that is not the same for all."""
    sides = np.log2(np.maximum([row.size for row in rows], 1))
    formats = np.unique([row.format for row in rows], return_inverse=True)[1]
    grey, colour = grey_levels(thumbnails), colours(thumbnails)
    clues = {
        "image size": _expanded(np.column_stack([sides, sides[:, 0] - sides[:, 1]])),
        "file format": np.eye(formats.max() + 1, dtype=np.float32)[formats],
        "brightness": _expanded(np.stack([function(grey, axis=(1, 2)) for function in (np.mean, np.std)], axis=1)),
        "border": _expanded(np.concatenate([_ring(grey[:, None], BORDER), _ring(colour, COLOUR_BORDER)], axis=1)),
    }
    return {name: inputs for name, inputs in clues.items() if np.ptp(inputs, axis=0).any()}


def _ring(maps: NDArray[np.float32], width: int) -> NDArray[np.float64]:
    """Return mean and spread of the strip along each side of maps (n, channels, side, side)."""
    strips = (maps[:, :, :width], maps[:, :, -width:], maps[:, :, :, :width], maps[:, :, :, -width:])
    return np.concatenate([function(strip, axis=(2, 3)) for strip in strips for function in (np.mean, np.std)], axis=1)


def _expanded(numbers: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return numbers (n, width) of equal spread, and beside them in which of BINS bins each is."""
    spread = numbers.std(axis=0)
    parts = [(numbers - numbers.mean(axis=0)) / np.where(spread > 0, spread, 1)]
    for column in numbers.T:
        ends = np.unique(np.quantile(column, np.linspace(0, 1, BINS + 1)[1:-1]))
        parts.append(np.eye(len(ends) + 1)[np.searchsorted(ends, column)])
    return np.concatenate(parts, axis=1).astype(np.float32)


def _correct(inputs: NDArray[np.float32], labels: NDArray[np.intp], rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Return which rows a ridge regression that saw neither them nor other versions of them classifies correctly."""
    from regraft.training import cross_validation
    from regraft.training.examples import Examples

    (fold_of,) = cross_validation.deal_folds(Examples(inputs, labels, np.array(group_numbers(rows))))
    values = np.column_stack([inputs, np.ones(len(inputs))])  # (n, width + 1)
    wanted, correct = np.eye(labels.max() + 1)[labels], np.empty(len(labels), bool)
    for fold in np.unique(fold_of):
        own, others = fold_of == fold, values[fold_of != fold]
        penalised = others.T @ others + RIDGE * np.eye(others.shape[1])
        weights = np.linalg.solve(penalised, others.T @ wanted[fold_of != fold])
        correct[own] = (values[own] @ weights).argmax(axis=1) == labels[own]
    return correct
