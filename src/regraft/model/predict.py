"""Prediction: images in, one row per input out, in the inputs' order, none left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core import files, outputs
from regraft.core.results import Result
from regraft.core.text import csv_text
from regraft.data.index import Index, Row
from regraft.data.labels import LABEL_SEPARATOR
from regraft.features.extract import stream
from regraft.features.store.store import Store
from regraft.inference.runner import Runner


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction(Result):
    """A model's prediction for one input.

    status: "ok", "broken" or "ignored"; `error` says why it is not "ok".
    labels: where an image may have several, those that are predicted; else None.
    ranked: the labels with their probabilities, the most probable first; empty if there is no prediction.
    """

    path: str
    status: str
    error: str = ""
    ranked: tuple[tuple[str, float], ...] = ()
    labels: tuple[str, ...] | None = None

    @property
    def label(self) -> str:
        """The most probable label, or all that are predicted; "" if there is none, or no prediction."""
        if self.labels is not None:
            return LABEL_SEPARATOR.join(self.labels)
        return self.ranked[0][0] if self.ranked else ""

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Prediction {self.text()}>"

    def __str__(self) -> str:
        """Return one line, for a terminal."""
        return self.text()

    def text(self) -> str:
        """Return one line, for a terminal."""
        if not self.ranked:
            return f"{self.path}  {self.status}: {self.error}"
        predicted = [] if self.labels is None else [f"[{self.label}]"]
        return "  ".join([self.path, *predicted, *(f"{label} {100 * share:.1f} %" for label, share in self.ranked)])

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON-able data."""
        ranked = [{"label": label, "probability": float(f"{share:.6g}")} for label, share in self.ranked]
        plain = {"path": self.path, "status": self.status, "error": self.error, "label": self.label, "top": ranked}
        return plain if self.labels is None else {**plain, "labels": list(self.labels)}


def probabilities(
    index: Index, runner: Runner, head: Callable[[np.ndarray], np.ndarray], store: Path | None = None
) -> Iterator[tuple[Row, np.ndarray | None]]:
    """Yield each row of the index, in its order, with its probabilities (n_classes,), or None where it has no image.

    head:  features (n, …) → probabilities (n, n_classes).
    store: folder of the feature store, where the converted network is kept; None: the user's cache.
    """
    streamed = _probabilities_of_used(index, runner, head, store)
    for row in index:
        yield next(streamed) if row.status == "used" else (row, None)


def _probabilities_of_used(
    index: Index, runner: Runner, head: Callable[[np.ndarray], np.ndarray], store: Path | None
) -> Iterator[tuple[Row, np.ndarray | None]]:
    for rows, features in stream(index, runner, Store(store)):
        batch = iter(head(features) if len(features) else ())
        for row in rows:
            yield row, None if row.status == "broken" else next(batch)


def write_csv(predictions: Sequence[Prediction], path: Path, *, formulas: bool = False) -> None:
    """Write a row for every input: path, status, error, then label and percent, of six digits, for each rank.

    formulas: see `core/text.csv_text`.

    Where an image may have several labels, those that are predicted stand before, in the column `labels`.
    """
    outputs.check(path, [".csv"], overwrite=True)  # predictions replace predictions
    top = max((len(item.ranked) for item in predictions), default=1)
    ranks = ["" if rank == 1 else f"_{rank}" for rank in range(1, top + 1)]
    multilabel = any(item.labels is not None for item in predictions)
    columns = ["path", "status", "error", *(["labels"] if multilabel else [])]
    lines = [[*columns, *(f"{name}{rank}" for rank in ranks for name in ("label", "percent"))]]
    for item in predictions:
        ranked = [value for label, share in item.ranked for value in (label, f"{100 * share:.6g}")]
        predicted = [item.label] if multilabel else []
        lines.append([item.path, item.status, item.error, *predicted, *ranked, *[""] * (2 * top - len(ranked))])
    files.write_file(path, csv_text(lines, formulas=formulas).encode())
