"""A small network on standardised features: dense layers with ReLU and dropout, trained by the one loop."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.options import option, require
from regraft.graft.history import Fitted

if TYPE_CHECKING:
    from torch import nn

    from regraft.graft.examples import Examples
    from regraft.graft.options import FitOptions


NEEDS_HELD_OUT = True  # the epoch to stop at can't be chosen on the rows that are trained on


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the mlp head."""

    hidden: int | tuple[int, ...] = option(256, "width of the hidden layer, or of several: 256,128")
    dropout: float = option(0.5, "share of hidden values dropped in training, 0 to below 1")

    def __post_init__(self) -> None:
        sizes = self.widths
        fit = len(sizes) > 0 and all(isinstance(size, int) and size >= 1 for size in sizes)
        require(fit, "hidden", self.hidden, "a whole number above 0, or several with commas between")
        require(
            isinstance(self.dropout, int | float) and 0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1"
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the hidden layers, from the features up."""
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,)


def build(shape: tuple[int, ...], n_classes: int, options: Options) -> nn.Module:
    """Return the untrained head: inputs (n, *shape) → logits (n, n_classes)."""
    from torch import nn

    from regraft.graft.standardise import Standardise

    layers: list[nn.Module] = [Standardise(shape)]
    width = math.prod(shape)
    for hidden in options.widths:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(options.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, n_classes))


def fit(
    train: Examples,
    validation: Examples | None,
    n_classes: int,
    options: Options,
    fit_options: FitOptions,
    *,
    checkpoint: Path | None = None,
) -> Fitted:
    """Learn the standardisation from the training rows, then train by `loop.train`; raises what that raises."""
    import torch

    from regraft.graft import loop, standardise
    from regraft.graft.examples import check

    check(train, validation, n_classes)
    with loop.seeded(fit_options.seed, "head"):
        module = build(train.shape, n_classes, options)
    for name, values in zip(("0.mean", "0.scale"), standardise.learn(train), strict=True):
        module.get_buffer(name).copy_(torch.from_numpy(values))
    history = loop.train(module, train, validation, fit_options, checkpoint=checkpoint)
    return Fitted.by_epochs(module, history)
