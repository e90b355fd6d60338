"""Examples: the inputs and labels that a fit sees, read a batch at a time.

Inputs may be an array, a memory map, or stored features: nothing here holds
all of them, so that memory stays flat however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from regraft.core.errors import DataError


class Inputs(Protocol):
    """Rows of numbers: an array, or something that reads rows as one does."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, …), as NumPy has it."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        """Return the rows of these numbers, (len(rows), …)."""
        ...


@dataclass(frozen=True)
class Examples:
    """Inputs with their labels.

    inputs: (n, …) numbers.
    labels: (n,) int64, the class's place among the classes.
    groups: (n,) int64 or None; rows of one group (copies of one picture) are never told apart by a choice.
    """

    inputs: Inputs
    labels: np.ndarray
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int64))
        for name, values in (("labels", self.labels), ("groups", self.groups)):
            if values is not None and len(values) != len(self.inputs):
                raise DataError(f"There are {len(self.inputs)} inputs but {len(values)} {name}; expected one each.")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input, without the number of rows."""
        return tuple(self.inputs.shape[1:])

    def batch(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs (len(rows), …) float32 and labels (len(rows),) int64; raise DataError for NaN or infinity."""
        inputs = np.require(self.inputs[rows], np.float32, ["C", "W"])
        if not np.isfinite(inputs).all():
            raise DataError(
                "An input holds NaN or infinity; expected finite numbers. The weights of the frozen part are damaged "
                "or do not fit its preprocessing: try other --weights."
            )
        return inputs, self.labels[rows]

    def batches(self, size: int = 256) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all examples in order, `size` at a time."""
        for rows in cut(np.arange(len(self)), size):
            yield self.batch(rows)


def cut(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Cut rows into batches of `size`, the last one what is left.

    A last batch of one row joins the batch before it: BatchNorm learns nothing from one row.
    """
    starts = list(range(0, len(rows), size))
    if size > 1 and len(starts) > 1 and len(rows) - starts[-1] == 1:
        starts.pop()
    return np.split(rows, starts[1:])


def check(train: Examples, validation: Examples | None, n_classes: int) -> None:
    """Raise DataError unless there are two classes or more, each with a training example, and no others."""
    if n_classes < 2:
        raise DataError(f"There is {n_classes} class; expected two or more classes to tell apart.")
    missing = sorted(set(range(n_classes)) - set(train.labels.tolist()))
    if missing:
        raise DataError(f"No training example has class {missing[0]} (of 0 to {n_classes - 1}); expected one or more.")
    for examples in (train, validation):
        if examples is not None and not set(examples.labels.tolist()) <= set(range(n_classes)):
            raise DataError(f"A label is outside the classes 0 to {n_classes - 1}.")
