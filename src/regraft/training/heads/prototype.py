"""Nearest prototypes: the mean direction of the features of each class; the class with the largest cosine is taken.

It learns from one image of a class on. The logits are the cosines by one scale, and the logarithm of how frequent the
class is. The scale has the lowest log loss on images each of which is compared with prototypes made without it and its
copies. Where an image may have several labels, each label has two prototypes, of the images with it and without it.

It is one linear layer on directions. Source: Snell et al. 2017, arXiv:1703.05175; centred and of unit length as in Wang
et al. 2019, arXiv:1911.04623 ("SimpleShot").
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from regraft.core.options import option, require
from regraft.training.history import Fitted

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from regraft.training.checkpoint import Checkpoint
    from regraft.training.examples import Examples
    from regraft.training.hooks import Hooks
    from regraft.training.losses import Loss
    from regraft.training.options import FitOptions

DEFAULT = 10.0  # the scale where a class has a single image, and before any row is seen
NEEDS_HELD_OUT = False
TRAINABLE = True


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the prototype head."""

    scale: float | None = option(None, "by which the cosines are multiplied; none: chosen, each image left out in turn")

    def __post_init__(self) -> None:
        value = self.scale
        fit = value is None or (isinstance(value, int | float) and 0 < value < math.inf)
        require(fit, "scale", value, "a number above 0, or none to have it chosen")


def build(shape: tuple[int, ...], n_outputs: int, options: Options) -> nn.Sequential:  # noqa: ARG001 (all heads alike)
    """Return the untrained head: inputs (n, *shape) → logits (n, n_outputs)."""
    from torch import nn

    from regraft.training.layers import Direction

    return nn.Sequential(Direction(math.prod(shape)), nn.Linear(math.prod(shape), n_outputs))


def logits(weights: Mapping[str, np.ndarray], inputs: np.ndarray, options: Options) -> np.ndarray:  # noqa: ARG001
    """Return the logits (n, n_outputs) of inputs (n, *shape) without PyTorch; `weights` is the head's state_dict."""
    from regraft.training.directions import directions

    result: np.ndarray = directions(inputs, weights["0.mean"]) @ weights["1.weight"].T + weights["1.bias"]
    return result


def fit(
    train: Examples,
    validation: Examples | None,
    n_classes: int,
    options: Options,
    fit_options: FitOptions,
    *,
    checkpoint: Checkpoint | None = None,  # noqa: ARG001 (all heads alike)
    hooks: Hooks | None = None,  # noqa: ARG001 (all heads alike)
    device: str = "cpu",  # noqa: ARG001 (all heads alike)
) -> Fitted:
    """Return the prototypes, of the images as they are and of their views; the scale is chosen unless options give it.

    The validation part is measured and chooses nothing. With `balance`, weights or oversample, all classes are taken
    for equally frequent.
    Raises DataError for a class without a training row, or inputs that are not finite; UsageError for a loss that
    does not fit the labels.
    """
    import numpy as np

    from regraft.training import losses
    from regraft.training.directions import choose_scale, read
    from regraft.training.examples import check
    from regraft.training.solved import history_of

    check(train, validation, n_classes)
    loss = losses.of(fit_options, train.labels)
    began = time.perf_counter()
    mean, rows = read(train)
    members, combine = _members(train.labels, n_classes, loss)
    sums = np.tile(members, (len(train.all_inputs), 1)).T @ rows  # (prototypes, width)
    prototypes = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    frequent = members.sum(axis=0) if loss.weights is None else np.ones(n_classes)
    bias = combine @ np.log(np.maximum(frequent, 0.5) / max(len(train), 1))
    if options.scale is None:
        cosines = _left_out(train, rows, members, sums, prototypes)
        chosen = choose_scale(cosines @ combine.T, bias, train.labels, loss, DEFAULT)
    else:
        chosen = {"scale": float(options.scale), "how": "given"}
    weight = chosen["scale"] * combine @ prototypes
    arrays = {"0.mean": mean, "1.weight": weight.astype(np.float32), "1.bias": bias.astype(np.float32)}
    seconds = time.perf_counter() - began
    history = history_of(partial(logits, arrays, options=options), train, validation, loss, seconds)
    return Fitted(arrays, partial(build, train.shape, len(bias), options), history, chosen)


def decided(chosen: Mapping[str, Any], options: Options, fit_options: FitOptions) -> tuple[Options, FitOptions]:
    """Return both options with the scale that was chosen."""
    return dataclasses.replace(options, scale=chosen["scale"]), fit_options


def _members(labels: np.ndarray, n_classes: int, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """Return which prototypes each row belongs to, (n, prototypes), and what makes logits of their cosines.

    That is (outputs, prototypes). Of several labels the prototypes of images without each come last.
    """
    import numpy as np

    one = np.eye(n_classes, dtype=np.float32)
    if loss.multilabel:
        return np.concatenate([labels, 1 - labels], axis=1), np.concatenate([one, -one], axis=1)
    return one[labels], one[1:] - one[:1] if loss.outputs(n_classes) == 1 else one


def _left_out(
    train: Examples, rows: np.ndarray, members: np.ndarray, sums: np.ndarray, prototypes: np.ndarray
) -> np.ndarray:
    """Return the cosines (n, prototypes) of the images with prototypes made without their groups, NaN without any."""
    import numpy as np

    from regraft.training.directions import groups

    views = rows.reshape(-1, len(train), rows.shape[1])  # the images as they are, then each view
    group_of = groups(train)
    cosines: np.ndarray = views[0] @ prototypes.T
    for number, total in enumerate(sums):
        own = np.flatnonzero(members[:, number])
        _, group = np.unique(group_of[own], return_inverse=True)
        of_group = np.zeros((group.max(initial=-1) + 1, rows.shape[1]), np.float32)
        for view in views:
            np.add.at(of_group, group, view[own])
        left = (total - of_group)[group]
        lengths = np.linalg.norm(left, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines[own, number] = np.einsum("nw,nw->n", views[0][own], left) / lengths
        if len(of_group) < 2:
            cosines[own, number] = np.nan
    return cosines
