"""A gallery: photographs with a model's predictions, and why: the nearest training images, and heat maps on request."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError, UnknownName, UsageError
from regraft.core.results import Result
from regraft.core.text import count
from regraft.data.index import Index
from regraft.model import heat_map, predict, sorting
from regraft.model.heat_map import HeatMap
from regraft.model.predict import Prediction
from regraft.model.sorting import Sorted

if TYPE_CHECKING:
    from regraft.model.model import Model

UNKNOWN = "unknown"
UNSURE_BELOW = 0.8  # probability; as `SortOptions` has it


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Gallery(Result):
    """Photographs with a model's predictions; those are read as those of a list are.

    index:       the photographs, a row for each prediction.
    label:       of which the page's heat maps are; None: of the one that is predicted, of each photograph.
    with_maps:   whether the page has heat maps.
    """

    model: Model
    index: Index
    predictions: tuple[Prediction, ...]
    label: str | None = None
    with_maps: bool = True

    def __post_init__(self) -> None:
        if self.label is not None and self.label not in self.model.classes:
            raise UnknownName.of("label", self.label, self.model.classes)

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Gallery: {self.summary()}>"

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, number: int) -> Prediction:
        return self.predictions[number]

    def summary(self) -> str:
        """Return how many photographs have which answer: "3 photographs: 2 cat, 1 unknown"."""
        answers = Counter(answer(item) for item in self.predictions).most_common()
        listed = ", ".join(f"{number:,} {name or 'no label'}" for name, number in answers)
        return f"{count(len(self), 'photograph')}{': ' if listed else ''}{listed}"

    def text(self) -> str:
        """Return a line for each photograph, with the nearest training images below it."""
        return "\n".join(item.text() for item in self.predictions)

    def to_dict(self) -> dict[str, Any]:
        """Return the predictions as JSON-able data."""
        return {"predictions": [item.to_dict() for item in self.predictions]}

    def sort_into(self, folder: str | Path, *, unsure: float = UNSURE_BELOW) -> list[Sorted]:
        """Copy each photograph into a folder of its label in `folder`, and return what went where.

        Unknown ones go to _unknown, those whose label is less probable than `unsure` to _unsure; sorted.csv in the
        folder says where each went. The same call goes on where it was stopped. Nothing is moved or replaced.
        Raises UsageError for a folder that holds anything else, and for a model whose images may have several labels;
        StoreError if the disk refuses.
        """
        if self.model.loss.multilabel:
            raise UsageError("The model's images may have several labels each, so that none has one folder.")
        return sorting.sort_into(Path(folder), self.index, self.predictions, self.model.classes, unsure)

    def formats(self) -> dict[str, Callable[[], str]]:
        """Return what gives the text of a file, by its name's ending."""
        return {**super().formats(), ".csv": functools.partial(predict.csv_of, self.predictions)}

    def heat_map(self, number: int, label: str | None = None) -> HeatMap:
        """Return the heat map of the photograph with this number, from 0; of the label that is predicted, or another.

        Raises DataError for a photograph that can't be read, UnknownName for a label that is none of the model's.
        """
        if label is not None and label not in self.model.classes:
            raise UnknownName.of("label", label, self.model.classes)
        item = self.predictions[number]
        (seen,) = heat_map.see_rows(self.model, [self.index.rows[number]])
        if seen is None:
            raise DataError(f"{item.path} is {item.status}: {item.error or 'it is not available any more'}.")
        return heat_map.heat_map(self.model, seen, label or self.label_of(item))

    def label_of(self, item: Prediction) -> str:
        """Return the label that the page's heat map of a photograph is of."""
        return self.label or item.ranked[0][0]


def answer(item: Prediction) -> str:
    """Return a prediction in a word or two: its label, or that it is unknown, broken or ignored."""
    return UNKNOWN if item.unknown else item.label if item.status == "ok" else item.status
