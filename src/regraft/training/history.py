"""History: what was measured while training, one row per epoch and part; and what a fit leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from regraft.core.results import Result

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class Measured:
    """One part after one epoch."""

    epoch: int  # from 1, counted on from phase to phase; 0 for a head that is solved, without epochs
    part: str  # "train" or "validation"
    loss: float  # mean of the loss that training lowers, in nats
    accuracy: float  # fraction of the images that is right, in [0, 1]
    learning_rate: float | None  # in the epoch's last step; None without epochs
    seconds: float  # what the epoch took for this part
    phase: str = "head"  # "head", on frozen features, or "tail": the network above the cut with its head
    images: int = 0  # of the part, in a model's history versions of one picture counted once; 0: unknown
    loss_error: float = 0.0  # standard error of the loss, by its spread over the images; 0: unknown


@dataclass(repr=False)
class History(Result):
    """The rows in the order in which they were measured.

    watch:   the measure of the monitored part by which the best epoch is chosen.
    earlier: how many of the rows are of phases before the present one; they choose nothing.
    """

    rows: list[Measured] = field(default_factory=list)
    watch: Literal["loss", "accuracy"] = field(default="loss", compare=False)
    earlier: int = field(default=0, compare=False)
    _best: dict[str, Measured] = field(default_factory=dict, init=False, repr=False, compare=False)
    _watched: dict[str, list[float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        rows, self.rows = self.rows, []
        self.add(rows)

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<History of {self.text()}>"

    def add(self, rows: Iterable[Measured]) -> None:
        """Put rows at the end."""
        for row in rows:
            self.rows.append(row)
            if len(self.rows) > self.earlier:
                self._watched.setdefault(row.part, []).append(self._value(row))
                if row.part not in self._best or self._value(row) < self._value(self._best[row.part]):
                    self._best[row.part] = row

    def _value(self, row: Measured) -> float:
        """Return the measure that is watched; lower is better."""
        return row.loss if self.watch == "loss" else -row.accuracy

    def part(self, name: str) -> list[Measured]:
        """Return the rows of one part, epoch by epoch."""
        return [row for row in self.rows if row.part == name]

    @property
    def epochs(self) -> int:
        """How many epochs are done."""
        return self.rows[-1].epoch if self.rows else 0

    @property
    def before(self) -> int:
        """How many of them were in earlier phases."""
        return self.rows[self.earlier - 1].epoch if self.earlier else 0

    @property
    def seconds(self) -> float:
        """What all phases have taken so far."""
        return sum(row.seconds for row in self.rows)

    @property
    def monitored_part(self) -> str:
        """The part by which the best epoch is chosen: validation where it was measured, else train."""
        return "validation" if "validation" in self._best else "train"

    @property
    def watched(self) -> list[float]:
        """The watched measure of the monitored part, epoch by epoch of the phase; lower is better."""
        return self._watched.get(self.monitored_part, [])

    @property
    def best_epoch(self) -> int:
        """The first epoch of the phase with the best watched measure of the monitored part; 0 before any."""
        return self._best[self.monitored_part].epoch if self._best else 0

    def after(self, before: History) -> History:
        """Return this history of a run that continued from a model with the history `before`: its epochs count on."""
        rows = [dataclasses.replace(row, epoch=row.epoch + before.epochs) for row in self.rows]
        return History([*before.rows, *rows], self.watch, len(before.rows) + self.earlier)

    def text(self) -> str:
        """Return in a line how many epochs there were, and what the last one, and the best, came to."""
        last = ", ".join(f"{row.part} loss {row.loss:.4f}" for row in self.rows if row.epoch == self.epochs)
        best = f"; the best is epoch {self.best_epoch} by the {self.monitored_part} {self.watch}" if self.epochs else ""
        return f"{self.epochs} epochs{': ' if last else ''}{last}{best}"

    def to_dict(self) -> dict[str, Any]:
        """Return the rows, and which epoch is best, as JSON-able data."""
        return {"epochs": self.epochs, "best_epoch": self.best_epoch, "rows": self.to_list()}

    def to_list(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries, ready for JSON."""
        return [dataclasses.asdict(row) for row in self.rows]

    @classmethod
    def from_list(cls, rows: Iterable[Mapping[str, Any]]) -> History:
        """Return the history that `to_list` gave, as one phase; rows from before there were phases are a head's."""
        return cls([Measured(**row) for row in rows])


@dataclass(frozen=True)
class Fitted:
    """What fitting leaves.

    weights: name → array: the state_dict of what was trained.
    build:   gives the module that the weights belong to; called when `module` is first asked for.
    history: how it went.
    chosen:  what the fit chose by itself, and how; JSON-able.
    correct: phase → whether each row of the monitored part is classified correctly, (n,) bool; only where phases are
             compared.
    """

    weights: Mapping[str, np.ndarray]
    build: Callable[[], torch.nn.Module]
    history: History
    chosen: dict[str, Any]
    correct: Mapping[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def module(self) -> torch.nn.Module:
        """The trained module in eval mode, inputs (n, …) → logits (n, outputs)."""
        import torch

        with torch.random.fork_rng(devices=[]):  # what is built draws weights that are not kept
            module = self.build()
        module.load_state_dict({name: torch.from_numpy(array) for name, array in self.weights.items()})
        return module.eval()

    @classmethod
    def of_module(
        cls,
        module: torch.nn.Module,
        history: History,
        chosen: dict[str, Any],
        correct: Mapping[str, np.ndarray] | None = None,
    ) -> Fitted:
        """Return the result whose `module` is this one."""
        weights = {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}
        return cls(weights, lambda: module, history, chosen, correct or {})

    @classmethod
    def by_epochs(cls, module: torch.nn.Module, history: History) -> Fitted:
        """Return what the loop leaves: it chose the epoch."""
        return cls.of_module(module, history, {"best_epoch": history.best_epoch, "judged_on": history.monitored_part})
