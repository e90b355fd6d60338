"""The nearest training images by cosine vote, each the more the closer it is.

It keeps directions of training images (see `training/directions`), at most `rows`, and needs one image of a class. How
many neighbours vote, how sharply closeness counts, and how much weight the classes' frequencies have beside the votes
are chosen by the log loss of training images, each predicted without itself and its copies. Views are not used.

    votes of a class = Σ exp(scale · (cosine - largest cosine)) of its images among the neighbours + prior · frequency
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from regraft.core.options import option, require
from regraft.core.rng import generator
from regraft.training.history import Fitted

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from regraft.training.checkpoint import Checkpoint
    from regraft.training.examples import Examples
    from regraft.training.hooks import Hooks
    from regraft.training.losses import Loss
    from regraft.training.options import FitOptions

NEIGHBOURS = (1, 2, 5, 10, 20, 50)  # of which one is chosen
SCALES = (5.0, 10.0, 20.0, 40.0, 80.0)
PRIORS = (0.03, 0.1, 0.3, 1.0)
DEFAULT = {"neighbours": 1, "scale": 10.0, "prior": 1.0}  # where a class has a single image
COMPARED = 1000  # training images by which that is chosen, at most
BLOCK = 256  # images that are compared at once
NEEDS_HELD_OUT = False
TRAINABLE = False  # it has no weights that a gradient could change, and can't stand on a tail that is trained


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the knn head."""

    neighbours: int | None = option(None, "training images that vote; none: chosen, each image left out in turn")
    rows: int = option(5000, "training images that are kept at most; of 2,560 features each they take 51 MB")

    def __post_init__(self) -> None:
        for name, value in (("neighbours", self.neighbours), ("rows", self.rows)):
            fit = (value is None and name == "neighbours") or (type(value) is int and value >= 1)
            require(fit, name, value, "a whole number, 1 or more")


def build(shape: tuple[int, ...], n_outputs: int, options: Options) -> nn.Module:  # noqa: ARG001 (all heads alike)
    """Return the head without rows: inputs (n, *shape) → logits (n, n_outputs); its state_dict brings them."""
    from regraft.training.layers import Neighbours

    return Neighbours(math.prod(shape), n_outputs)


def logits(weights: Mapping[str, np.ndarray], inputs: np.ndarray, options: Options) -> np.ndarray:  # noqa: ARG001
    """Return the logits (n, n_outputs) of inputs (n, *shape) without PyTorch; `weights` is the head's state_dict."""
    import numpy as np

    from regraft.training.directions import directions

    cosines = directions(inputs, weights["mean"]) @ weights["rows"].T
    neighbours = int(weights["neighbours"])
    least = np.partition(cosines, -neighbours, axis=1)[:, -neighbours, None]
    closeness = np.exp(weights["scale"] * (cosines - cosines.max(axis=1, keepdims=True))) * (cosines >= least)
    votes = np.log(closeness @ weights["votes"] + weights["prior"])
    pro, against = np.split(votes, 2, axis=1)
    result: np.ndarray = pro - against
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
    """Return the head; of more training images than `rows`, as many of each class in proportion, drawn by the seed.

    The validation part is measured and chooses nothing. With `balance`, weights or oversample, an image's vote counts
    the more the rarer its class is.
    Raises DataError for a class without a training row, or inputs that are not finite; UsageError for a loss that
    does not fit the labels.
    """
    import numpy as np

    from regraft.training import losses
    from regraft.training.cross_validation import take
    from regraft.training.directions import read
    from regraft.training.examples import check
    from regraft.training.solved import history_of

    check(train, validation, n_classes)
    loss = losses.of(fit_options, train.labels)
    began = time.perf_counter()
    kept = dataclasses.replace(train, views=(), fresh=None)
    if len(train) > options.rows:
        kept = take(kept, _sample(train.labels, options.rows, fit_options.seed))
    mean, rows = read(kept)
    votes, frequency = _votes(kept.labels, n_classes, loss)
    chosen = _chosen(kept, rows, votes, frequency, options, loss, fit_options.seed)
    prior = (chosen["prior"] * frequency).astype(np.float32)
    numbers = {"neighbours": np.array(chosen["neighbours"]), "scale": np.array(chosen["scale"], np.float32)}
    arrays = {"mean": mean, "rows": rows, "votes": votes, "prior": prior, **numbers}
    seconds = time.perf_counter() - began
    history = history_of(partial(logits, arrays, options=options), train, validation, loss, seconds)
    return Fitted(arrays, partial(build, train.shape, votes.shape[1] // 2, options), history, chosen)


def decided(chosen: Mapping[str, Any], options: Options, fit_options: FitOptions) -> tuple[Options, FitOptions]:
    """Return both options with the number of neighbours that was chosen."""
    return dataclasses.replace(options, neighbours=chosen["neighbours"]), fit_options


def _sample(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the numbers of about `count` rows, of each class, or set of labels, in proportion, and at least one."""
    import numpy as np

    random = generator(seed, "knn rows")
    _, kinds = np.unique(labels, axis=0, return_inverse=True)
    of_each = [random.permutation(np.flatnonzero(kinds == kind)) for kind in range(int(kinds.max()) + 1)]
    counts = [max(1, round(count * len(own) / len(labels))) for own in of_each]
    return np.sort(np.concatenate([own[:own_count] for own, own_count in zip(of_each, counts, strict=True)]))


def _votes(labels: np.ndarray, n_classes: int, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """Return for each row its votes for each output, then those against it, (n, 2 outputs), and their mean frequency.

    The mean is never 0: no probability is.
    """
    import numpy as np

    flags = labels if loss.multilabel else np.eye(n_classes, dtype=np.float32)[labels]
    if loss.weights is not None:
        flags = flags * loss.weights[labels][:, None]
    if loss.multilabel:
        pro, against = flags, 1 - flags
    elif loss.outputs(n_classes) == 1:
        pro, against = flags[:, 1:], flags[:, :1]
    else:
        pro, against = flags, np.repeat(flags.sum(axis=1, keepdims=True), n_classes, axis=1)
    votes = np.concatenate([pro, against], axis=1).astype(np.float32)
    return votes, np.maximum(votes.mean(axis=0), 0.5 / len(votes))


def _chosen(
    kept: Examples, rows: np.ndarray, votes: np.ndarray, frequency: np.ndarray, options: Options, loss: Loss, seed: int
) -> dict[str, Any]:
    """Return the neighbours, the scale and the prior with the lowest loss of images predicted without their groups."""
    import numpy as np

    fixed = {"neighbours": min(options.neighbours, len(rows))} if options.neighbours else {}
    known = _known(kept)
    if not len(known):
        return {**DEFAULT, **fixed, "how": "default: a class has too few training images to choose from"}
    compared = known[_sample(kept.labels[known], COMPARED, seed)]
    cosines, nearest = _nearest(rows, kept, compared, max(*NEIGHBOURS, options.neighbours or 1))
    near_votes, labels = votes[nearest], kept.labels[compared]

    def cost(neighbours: int, scale: float, prior: float) -> float:
        near = cosines[:, :neighbours]
        closeness = np.exp(scale * (near - near[:, :1]))
        summed = np.einsum("nk,nkv->nv", closeness, near_votes[:, :neighbours]) + prior * frequency
        pro, against = np.split(np.log(summed), 2, axis=1)
        return float(loss.of_rows(pro - against, labels).mean())

    numbers = [fixed["neighbours"]] if fixed else [number for number in NEIGHBOURS if number < len(rows)]
    neighbours, scale, prior = min(itertools.product(numbers, SCALES, PRIORS), key=lambda choice: cost(*choice))
    how = "lowest log loss of training images, each left out in turn"
    return {"neighbours": neighbours, "scale": scale, "prior": prior, "how": how}


def _known(kept: Examples) -> np.ndarray:
    """Return the numbers of the rows that have another of their class, or set of labels, in another group."""
    import numpy as np

    from regraft.training.directions import groups

    _, kinds = np.unique(kept.labels, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([kinds, groups(kept)]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0])[kinds] > 1)


def _nearest(rows: np.ndarray, kept: Examples, compared: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cosines and numbers, (n, count), of the rows nearest to the compared ones, falling, none of their groups.

    Where there are fewer, the cosine is minus infinity.
    """
    import numpy as np

    from regraft.training.directions import groups

    group_of, count = groups(kept), min(count, len(rows))
    parts = []
    for some in np.split(compared, range(BLOCK, len(compared), BLOCK)):
        cosines = rows[some] @ rows.T
        cosines[group_of[some][:, None] == group_of] = -np.inf
        first = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        largest = np.take_along_axis(cosines, first, axis=1)
        order = np.argsort(-largest, axis=1, kind="stable")
        parts.append((np.take_along_axis(largest, order, axis=1), np.take_along_axis(first, order, axis=1)))
    largest, numbers = zip(*parts, strict=True)
    return np.concatenate(largest), np.concatenate(numbers)
