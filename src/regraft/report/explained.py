"""What a model's answers to a few photographs of an evaluation rest on, as pictures for its page."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from regraft.data.index import Row
from regraft.model import heat_map, predict
from regraft.model.heat_map import Seen
from regraft.model.model import Model
from regraft.model.predict import Neighbour
from regraft.report import heat

NEAREST = 3  # training images beside an answer


class Explained(NamedTuple):
    """The heat map of the predicted label, laid over the photograph, and the training images most like it."""

    heat: bytes | None = None
    nearest: tuple[Neighbour, ...] = ()


def explained(model: Model, rows: Sequence[Row], labels: Sequence[str]) -> list[Explained]:
    """Return what the answer to each row, its label, rests on, as far as PyTorch can tell it here."""
    if not rows or importlib.util.find_spec("torch") is None:
        return [Explained() for _ in rows]
    looked = heat_map.see_rows(model, rows)
    return [
        _of(model, seen, label, row.id) if seen else Explained()
        for row, seen, label in zip(rows, looked, labels, strict=True)
    ]


def _of(model: Model, seen: Seen, label: str, own: str) -> Explained:
    """Return it for a photograph with the id `own`: one that was trained on is not its own neighbour."""
    made = heat_map.quick_heat_map(model, seen, label)
    near = predict.neighbours(model.evidence, model.images, _features(model, seen), NEAREST + 1)
    others = [neighbour for neighbour in near[0] if neighbour.id != own]
    return Explained(heat.overlay(seen.small, made) if made else None, tuple(others[:NEAREST]))


def _features(model: Model, seen: Seen) -> np.ndarray:
    """Return the features of a photograph, (1, …), by PyTorch: no engine has to be started for so few."""
    import torch

    from regraft.inference.engines.torch import run

    pairs = zip(model.trunks, seen.inputs, strict=True)
    return model.runner.join([run(trunk.module, torch.from_numpy(image)) for trunk, image in pairs])
