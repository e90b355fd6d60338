"""Prediction: images in, one row per input out, in the inputs' order, none left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from regraft.core import files, outputs
from regraft.core.results import Result
from regraft.core.text import csv_text, listed
from regraft.data.index import Index, Row
from regraft.data.labels import LABEL_SEPARATOR
from regraft.features.extract import stream
from regraft.features.poses import poses
from regraft.features.store.store import Store
from regraft.inference.runner import Runner
from regraft.model.evidence import Evidence

FALSE_ALARMS = 0.05  # of the images of the classes may be called unknown
SHOWN_LABELS = 10  # of a prediction set, on a line
T = TypeVar("T")


class Neighbour(NamedTuple):
    """A training image that is like another one.

    id, path:   the sha256 of its bytes; its path in the source that was trained on.
    similarity: the cosine of their features; 1 where they are the same.
    picture:    a small JPEG of it; b"" if the model keeps none.
    """

    id: str
    label: str
    path: str
    similarity: float
    picture: bytes = b""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data, without its picture."""
        similarity = float(f"{self.similarity:.6g}")
        return {"id": self.id, "label": self.label, "path": self.path, "similarity": similarity}


@dataclass(frozen=True, kw_only=True, repr=False)
class Prediction(Result):
    """A model's prediction for one input.

    status: "ok", "broken" or "ignored"; `error` says why it is not "ok".
    novelty: how unlike the training images it is; None where the model can't tell.
    limit:  the novelty above which it is unknown.
    prediction_set: the labels, the most probable first, among which the true one is as often as was asked for by
            `coverage`; None if that was not asked for.
    labels: where an image may have several, those that are predicted; else None.
    ranked: the labels with their probabilities, the most probable first; empty if there is no prediction.
    nearest: the training images most like it, if they were asked for and the model keeps any.
    tta:    over how many poses of the image the probabilities are the mean.
    """

    path: str
    status: str
    error: str = ""
    ranked: tuple[tuple[str, float], ...] = ()
    labels: tuple[str, ...] | None = None
    novelty: float | None = None
    limit: float = math.inf
    prediction_set: tuple[str, ...] | None = None
    coverage: float | None = None
    nearest: tuple[Neighbour, ...] = ()
    tta: int = 1

    @property
    def unknown(self) -> bool:
        """Whether it is unlike all that the model was trained on, so that no label may be right."""
        return self.novelty is not None and self.novelty > self.limit

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
        if self.unknown:
            predicted = [f"unknown (novelty {self.novelty:.1f}, above {self.limit:.1f})"]
        if self.prediction_set:
            predicted += [f"{{{listed(self.prediction_set, SHOWN_LABELS, LABEL_SEPARATOR)}}}"]
        line = "  ".join([self.path, *predicted, *(f"{label} {100 * share:.1f} %" for label, share in self.ranked)])
        nearest = [f"  like {each.path} ({each.label}), similarity {each.similarity:.2f}" for each in self.nearest]
        return "\n".join([line, *nearest])

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as JSON-able data."""
        ranked = [{"label": label, "probability": float(f"{share:.6g}")} for label, share in self.ranked]
        plain: dict[str, Any] = {
            "path": self.path,
            "status": self.status,
            "error": self.error,
            "label": self.label,
            "top": ranked,
        }
        if self.novelty is not None:
            plain |= {"unknown": self.unknown, "novelty": float(f"{self.novelty:.6g}")}
        if self.prediction_set is not None:
            plain |= {"prediction_set": list(self.prediction_set), "coverage": self.coverage}
        if self.tta > 1:
            plain["tta"] = self.tta
        if self.nearest:
            plain["nearest"] = [each.to_dict() for each in self.nearest]
        return plain if self.labels is None else {**plain, "labels": list(self.labels)}


Answer = tuple[np.ndarray, float | None, tuple[Neighbour, ...]]  # probabilities, novelty, nearest training images


def neighbours(
    evidence: Evidence | None, images: Mapping[str, tuple[str, str]], features: np.ndarray, count: int
) -> list[tuple[Neighbour, ...]]:
    """Return for each of the features (n, …) the `count` most similar training images of those kept, nearest first.

    images: id → (label, part) of the images that were trained on.
    """
    if evidence is None or not evidence.named or not count:
        return [()] * len(features)
    return [
        tuple(Neighbour(each.id, images[each.id][0], each.path, near, each.picture) for each, near in row)
        for row in evidence.nearest(features, count)
    ]


def stream_answers(
    index: Index,
    runner: Runner,
    head: Callable[[np.ndarray], Iterable[T]],
    store: str | Path | None = None,
    tta: int = 1,
) -> Iterator[tuple[Row, T | None]]:
    """Yield each row of the index, in its order, with its answer, or None where it has no image.

    head:  features (n · tta, …), those of an image together → n answers, such as probabilities (n, n_classes).
    store: folder of the feature store, where the converted network is kept; None: the user's cache.
    tta:   in how many poses each image is seen, that as it is first.
    """
    streamed = _answers_of_used(index, runner, head, None if store is None else Path(store), tta)
    for row in index:
        yield next(streamed) if row.status == "used" else (row, None)


def _answers_of_used(
    index: Index, runner: Runner, head: Callable[[np.ndarray], Iterable[T]], store: Path | None, tta: int
) -> Iterator[tuple[Row, T | None]]:
    for rows, features in stream(index, runner, Store(store), poses(tta)):
        batch = iter(head(features) if len(features) else ())
        for row in rows:
            yield row, None if row.status == "broken" else next(batch)


def write_csv(predictions: Sequence[Prediction], path: Path, *, formulas: bool = False) -> None:
    """Write a CSV as `csv_of` gives it."""
    outputs.check(path, [".csv"], overwrite=True)  # predictions replace predictions
    files.write_file(path, csv_of(predictions, formulas=formulas).encode())


def csv_of(predictions: Sequence[Prediction], *, formulas: bool = False) -> str:
    """Return a row for every input: path, status, error, then label and percent, of six digits, for each rank.

    formulas: see `core/text.csv_text`.

    Where an image may have several labels, those that are predicted stand before, in the column `labels`. Where they
    were asked for, the labels of `prediction_set` follow. Where the model can tell the unknown, the columns `unknown`,
    yes or no, and `novelty` come next; last, if
    they were asked for, the nearest training images.
    """
    top = max((len(item.ranked) for item in predictions), default=1)
    ranks = ["" if rank == 1 else f"_{rank}" for rank in range(1, top + 1)]
    multilabel = any(item.labels is not None for item in predictions)
    columns = ["path", "status", "error", *(["labels"] if multilabel else [])]
    sets = ["prediction_set"] if any(item.prediction_set is not None for item in predictions) else []
    last = ["unknown", "novelty"] if any(item.novelty is not None for item in predictions) else []
    near = range(1, 1 + max((len(item.nearest) for item in predictions), default=0))
    nearest = [f"nearest_{number}{what}" for number in near for what in ("", "_label", "_id", "_similarity")]
    lines = [[*columns, *(f"{name}{rank}" for rank in ranks for name in ("label", "percent")), *sets, *last, *nearest]]
    for item in predictions:
        ranked = [value for label, share in item.ranked for value in (label, f"{100 * share:.6g}")]
        predicted = [item.label] if multilabel else []
        ranked += [""] * (2 * top - len(ranked))
        ranked += [LABEL_SEPARATOR.join(item.prediction_set or ())] if sets else []
        ranked += _unknown(item) if last else []
        like = [text for each in item.nearest for text in (each.path, each.label, each.id, f"{each.similarity:.6g}")]
        like += [""] * (len(nearest) - len(like))
        lines.append([item.path, item.status, item.error, *predicted, *ranked, *like])
    return csv_text(lines, formulas=formulas)


def _unknown(item: Prediction) -> list[str]:
    return ["", ""] if item.novelty is None else ["yes" if item.unknown else "no", f"{item.novelty:.6g}"]
