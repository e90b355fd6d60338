"""Evidence: training images that a model keeps, by which it tells a picture of none of its classes.

Features and logits enter, a novelty score leaves, higher for what is less like
the training images. Two things make it: how far the features are from their
nearest neighbours among those kept, which is what other things betray
themselves by, and how small the largest logit is, which is what things like the
classes do. Within the distances that are usual for images of the classes the
logit alone counts; what lies beyond them outweighs it.

What is usual is known from rows that the head was not trained on, and from their
scores the threshold of any rate of false alarms. Nothing here needs PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regraft.core.errors import RefusedFile
from regraft.network.tensors import TensorFile

REFERENCES = 1000  # images kept at most; of 1,280 features each they take 2.6 MB
NEIGHBOURS = 5
USUAL = 0.95  # of the images of the classes lie within the usual distance
WEIGHT = 10.0  # of what lies beyond it, in units of how distances spread
ROWS = 1024  # whose distances are computed at once
PART = 256  # references that are float32 at once: the memory of all would be the peak of a prediction's
LARGEST_WEIGHT = 1e20
ID = 32  # bytes of a sha256
MEASURED = ("references", "distances", "logits", "scores")


class Reference(NamedTuple):
    """What names a training image: the sha256 of its bytes, its path in the source, and a small picture or b""."""

    id: str
    path: str
    picture: bytes = b""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a model keeps.

    references: (m, width) float16, the directions of training images' features, of unit length.
    distances:  (n,) float32, rising, of rows that were not trained on, as `distances` gives them.
    logits:     (n,) float32, rising, the largest logit of each of these rows.
    scores:     (n,) float32, rising, their novelty.
    strangers:  (width + 1,) float32, weights and bias of the log-odds that an image is like those of an unknown class,
                where one taught it; they add to the novelty where they are above 0.
    named:      m, what names each reference; empty in models that were trained before it was kept.
    """

    references: np.ndarray
    distances: np.ndarray
    logits: np.ndarray
    scores: np.ndarray
    strangers: np.ndarray | None = None
    named: tuple[Reference, ...] = ()

    def novelty(self, features: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Return (n,) novelty of images by their features (n, …) and logits (n, outputs)."""
        near = directions(features)
        novelty = self._novelty(distances(near, self.references), largest(logits))
        return (
            novelty if self.strangers is None else novelty + likeness(near @ self.strangers[:-1] + self.strangers[-1])
        )

    def threshold(self, false_alarms: float) -> float:
        """Return the score above which an image is unknown, so that of those of the classes so many are, in [0, 1].

        It is infinite where too few rows are known for so low a rate.
        Source: Vovk et al. 2005, "Algorithmic Learning in a Random World" (split conformal prediction).
        """
        rank = math.ceil((len(self.scores) + 1) * (1 - false_alarms))
        return float(self.scores[rank - 1]) if 0 < rank <= len(self.scores) else math.inf

    def _novelty(self, far: np.ndarray, confident: np.ndarray) -> np.ndarray:
        below = np.searchsorted(self.logits, confident, side="right") + 1
        return self._beyond(far) - np.log(below / (len(self.logits) + 1))

    def _beyond(self, far: np.ndarray) -> np.ndarray:
        usual, spread = self._usual
        beyond: np.ndarray = WEIGHT * np.maximum(0, far - usual) / spread
        return beyond

    @cached_property
    def _usual(self) -> tuple[float, float]:
        """The largest usual distance, and how distances spread."""
        middle, usual, most = np.quantile(self.distances, [0.5, USUAL, 0.99])
        return float(usual), max(float(most - middle), 1e-6)

    def nearest(self, features: np.ndarray, count: int) -> list[list[tuple[Reference, float]]]:
        """Return for each of the features (n, …) the `count` most similar references, with their cosine, nearest first.

        They are looked for among those that have a picture, if any has one; equal images count once.
        """
        pictured = [number for number, each in enumerate(self.named) if each.picture]
        numbers = list({self.named[number].id: number for number in pictured or range(len(self.named))}.values())
        similar = directions(features) @ self.references[numbers].astype(np.float32).T
        nearest = zip(similar, np.argsort(-similar, axis=1, kind="stable")[:, :count], strict=True)
        return [[(self.named[numbers[at]], float(row[at])) for at in order] for row, order in nearest]

    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a model folder keeps of it."""
        kept = {name: getattr(self, name) for name in MEASURED}
        kept |= {} if self.strangers is None else {"strangers": self.strangers}
        if not self.named:
            return kept
        ids = np.frombuffer(bytes.fromhex("".join(each.id for each in self.named)), np.uint8).reshape(-1, ID).copy()
        paths = [each.path.encode("utf-8", "surrogateescape") for each in self.named]
        pictures = [each.picture for each in self.named]
        return {**kept, "ids": ids, **_packed("paths", paths), **_packed("pictures", pictures)}


def _packed(name: str, texts: Sequence[bytes]) -> dict[str, np.ndarray]:
    """Return texts one after the other as tensors: their bytes, and where each ends."""
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return {name: np.frombuffer(b"".join(texts), np.uint8).copy(), f"{name}_end": ends}


def _unpacked(tensors: Mapping[str, np.ndarray], name: str, count: int) -> list[bytes]:
    """Return what `_packed` was given; raise ValueError if it is not so many texts."""
    content, ends = tensors[name].astype(np.uint8, casting="safe").tobytes(), tensors[f"{name}_end"].tolist()
    starts = [0, *ends[:-1]]
    if len(ends) != count or ends != sorted(ends) or starts[:1] + ends[-1:] != [0, len(content)]:
        raise ValueError(f"expected {count} {name}")
    return [content[start:end] for start, end in zip(starts, ends, strict=True)]


def _named(tensors: Mapping[str, np.ndarray]) -> tuple[Reference, ...]:
    """Return what names the references, () in models that did not keep it; raise KeyError or ValueError."""
    if "ids" not in tensors:
        return ()
    count = len(tensors["references"])
    ids = tensors["ids"].astype(np.uint8, casting="safe").reshape(count, ID)
    paths = [path.decode("utf-8", "surrogateescape") for path in _unpacked(tensors, "paths", count)]
    pictures = _unpacked(tensors, "pictures", count)
    named = zip(ids, paths, pictures, strict=True)
    return tuple(Reference(row.tobytes().hex(), path, picture) for row, path, picture in named)


def read(path: Path) -> Evidence | None:
    """Return the evidence in a model folder's file, if there is one; raise RefusedFile if it is off."""
    return restore(dict(TensorFile(path)), str(path)) if path.exists() else None


def restore(tensors: Mapping[str, np.ndarray], name: str) -> Evidence:
    """Return the evidence of a model folder's tensors; raise RefusedFile, naming the file, if they are off."""
    try:
        named = _named(tensors)
    except (KeyError, ValueError, TypeError) as error:
        raise RefusedFile(f"{name} does not name its training images ({error}). Train the model again.") from error
    strangers = tensors.get("strangers")
    kept = {key: np.asarray(tensors[key]) for key in MEASURED}
    evidence = Evidence(**kept, strangers=strangers, named=named)
    rows = (evidence.distances, evidence.logits, evidence.scores)
    shapes = evidence.references.ndim == 2 and all(row.shape == evidence.scores.shape == (row.size,) for row in rows)
    finite = all(np.isfinite(tensors[key]).all() and tensors[key].size for key in MEASURED)
    if strangers is not None:
        shapes = shapes and strangers.shape == (evidence.references.shape[1] + 1,)
        finite = finite and bool((np.abs(strangers) < LARGEST_WEIGHT).all())
    if not (shapes and finite and all((np.diff(row) >= 0).all() for row in rows)):
        raise RefusedFile(f"{name} does not hold directions of features and rising numbers. Train the model again.")
    return evidence


def likeness(log_odds: np.ndarray) -> np.ndarray:
    """Return what log-odds of an unknown class (n,) add to the novelty: 0 far below 0, and themselves far above."""
    likely: np.ndarray = np.logaddexp(0, log_odds)
    return likely


def of_rows(
    references: np.ndarray,
    far: np.ndarray,
    logits: np.ndarray,
    taught: tuple[np.ndarray, np.ndarray] | None = None,
) -> Evidence:
    """Return the evidence of references and of rows that were not trained on: their distances (n,) and logits.

    taught: `Evidence.strangers`, and the rows' log-odds (n,) by such weights that these rows had no part in.
    """
    confident = largest(logits)
    known = Evidence(references.astype(np.float16), _rising(far), _rising(confident), np.zeros(len(far), np.float32))
    scores, strangers = known._novelty(far, confident), None
    if taught is not None:
        strangers, scores = taught[0].astype(np.float32), scores + likeness(taught[1])
    return replace(known, scores=_rising(scores), strangers=strangers)


def _rising(values: np.ndarray) -> np.ndarray:
    rising: np.ndarray = np.sort(values).astype(np.float32)
    return rising


def largest(logits: np.ndarray) -> np.ndarray:
    """Return (n,) the largest logit of each row; of the one logit of two classes, how far it is from 0."""
    result: np.ndarray = np.abs(logits[:, 0]) if logits.shape[1] == 1 else logits.max(axis=1)
    return result


def directions(features: np.ndarray) -> np.ndarray:
    """Return features (n, …) as vectors of unit length (n, width) float32, averaged over positions."""
    rows = np.asarray(features, np.float32)
    if rows.ndim > 2:
        rows = rows.mean(axis=tuple(range(2, rows.ndim)))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    result: np.ndarray = rows / np.maximum(lengths, 1e-12)
    return result


def distances(
    rows: np.ndarray, references: np.ndarray, groups: tuple[np.ndarray, np.ndarray] | None = None
) -> np.ndarray:
    """Return (n,) mean cosine distance of directions (n, width) to their nearest neighbours among the references.

    groups: of the rows (n,) and of the references (m,): neighbours of a row's own group do not count.
    """
    count, parts = min(NEIGHBOURS, len(references)), range(0, len(references), PART)
    result = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), ROWS):
        batch = slice(start, start + ROWS)
        similar = np.concatenate(
            [rows[batch] @ references[part : part + PART].astype(np.float32).T for part in parts], axis=1
        )
        if groups is not None:
            similar[groups[0][batch, None] == groups[1]] = -1
        result[batch] = 1 - np.partition(similar, -count, axis=1)[:, -count:].mean(axis=1)
    return result


def choose(labels: np.ndarray, rng: np.random.Generator, count: int = REFERENCES) -> np.ndarray:
    """Return the numbers of the rows that are kept, at most `count`, evenly of all classes (n,), at random."""
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    ranks = np.arange(len(labels)) - starts  # within the class
    return np.sort(by_class[np.argsort(ranks, kind="stable")[:count]])
