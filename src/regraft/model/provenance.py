"""What a model remembers of its run: the images, what it was measured by, and the digest by which it is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core.version import versions
from regraft.network.tensors import hash_tensors

if TYPE_CHECKING:
    import numpy as np

    from regraft.data.index import Index
    from regraft.features.extract import Features
    from regraft.model.calibration import Calibrations


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model was measured by: the probabilities that each image of the part was given.

    ids:           (n,) sha256 of the images' bytes.
    probabilities: (n, n_classes) float64.
    calibrations:  what these were calibrated by; None in models of before it was kept.
    """

    ids: tuple[str, ...]
    probabilities: np.ndarray
    calibrations: Calibrations | None = None


def record_images(index: Index) -> dict[str, tuple[str, str]]:
    """Return what a model remembers of the images of its run: id → (label, part); without parts all were trained on.

    A picture of several parts counts as trained on if any copy was.
    """
    rows = sorted(index.used, key=lambda row: (row.part or "train") == "train")
    return {row.id: (row.label or "", row.part or "train") for row in rows}


def run_digest(features: Features, options: Mapping[str, Any], start: Mapping[str, Any] | None = None) -> str:
    """Return the sha256 of all that decides a training: images, labels, parts, groups, weights, options, versions.

    start: the head's weights of the model to continue from.
    """
    rows = sorted((row.key, row.label or "", row.part or "", row.group or "", row.version_of) for row in features.rows)
    tail = features.tail
    digests = [trunk.digest for trunk in features.runner.trunks]
    decides: list[Any] = [rows, digests if digests[1:] else digests[0], dict(options), versions()]
    decides += [tail.end, tail.pool, hash_tensors(tail.network.tensors())] if tail else []
    decides += [hash_tensors(start)] if start else []
    decides += ["square roots"] if features.runner.roots else []
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
