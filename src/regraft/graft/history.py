"""History: what was measured while training, one row per epoch and part; and what a fit leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Measured:
    """One part after one epoch."""

    epoch: int  # from 1; 0 for what is solved in one go, without epochs
    part: str  # "train" or "validation"
    loss: float  # mean cross-entropy, in nats
    accuracy: float  # share that is right, in [0, 1]
    learning_rate: float | None  # None without epochs
    seconds: float  # what the epoch took for this part


@dataclass
class History:
    """The rows in the order in which they were measured."""

    rows: list[Measured] = field(default_factory=list)
    _best: dict[str, Measured] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows, self.rows = self.rows, []
        self.add(rows)

    def add(self, rows: Iterable[Measured]) -> None:
        """Put rows at the end."""
        for row in rows:
            self.rows.append(row)
            if row.part not in self._best or row.loss < self._best[row.part].loss:
                self._best[row.part] = row

    def part(self, name: str) -> list[Measured]:
        """Return the rows of one part, epoch by epoch."""
        return [row for row in self.rows if row.part == name]

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return self.rows[-1].epoch if self.rows else 0

    @property
    def judge(self) -> str:
        """The part whose loss says which epoch is best: validation where it was measured, else train."""
        return "validation" if "validation" in self._best else "train"

    @property
    def best_epoch(self) -> int:
        """The first epoch with the lowest loss of the judging part; 0 before any."""
        return self._best[self.judge].epoch if self.rows else 0

    def to_list(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries, ready for JSON."""
        return [dataclasses.asdict(row) for row in self.rows]

    @classmethod
    def from_list(cls, rows: Iterable[Mapping[str, Any]]) -> History:
        """Return the history that `to_list` gave."""
        return cls([Measured(**row) for row in rows])


@dataclass(frozen=True)
class Fitted:
    """What fitting leaves.

    module:  in eval mode, inputs (n, …) → logits (n, classes).
    history: how it went.
    chosen:  what the fit chose by itself, and how; JSON-able.
    """

    module: torch.nn.Module
    history: History
    chosen: dict[str, Any]

    @classmethod
    def by_epochs(cls, module: torch.nn.Module, history: History) -> Fitted:
        """Return what the loop leaves: it chose the epoch."""
        return cls(module, history, {"best_epoch": history.best_epoch, "judged_on": history.judge})
