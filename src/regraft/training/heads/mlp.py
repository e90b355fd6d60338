"""A small network on standardised features: dense layers with ReLU and dropout, trained by `loop`.

Without a hidden layer it is a softmax regression, trained by any of the optimizers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core.errors import Diverged
from regraft.core.options import option, require
from regraft.training.history import Fitted

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from regraft.training.checkpoint import Checkpoint
    from regraft.training.examples import Examples
    from regraft.training.hooks import Hooks
    from regraft.training.options import FitOptions


STATISTICS = ("0.mean", "0.scale")  # the standardisation's, of the training rows
WIDEST = 1 << 16  # hidden layer
TRAINABLE = True
NEEDS_HELD_OUT = True  # the best epoch can't be chosen by the rows that are trained on


@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of the mlp head."""

    hidden: int | tuple[int, ...] | None = option(
        256, "width of the hidden layer, or of several: 256,128; none: no hidden layer"
    )
    dropout: float = option(0.5, "fraction of hidden values dropped in training, 0 to below 1")

    def __post_init__(self) -> None:
        sizes = self.widths
        fit = self.hidden != () and all(type(size) is int and 1 <= size <= WIDEST for size in sizes)
        expected = f"a whole number from 1 to {WIDEST:,}, several with commas between, or none"
        require(fit, "hidden", self.hidden, expected)
        require(
            isinstance(self.dropout, int | float) and 0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1"
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths of the hidden layers, from the features up."""
        if self.hidden is None:
            return ()
        return self.hidden if isinstance(self.hidden, tuple) else (self.hidden,)


def build(shape: tuple[int, ...], n_outputs: int, options: Options) -> nn.Sequential:
    """Return the untrained head: inputs (n, *shape) → logits (n, n_outputs)."""
    from torch import nn

    from regraft.training.layers import Standardise

    layers: list[nn.Module] = [Standardise(shape)]
    width = math.prod(shape)
    for hidden in options.widths:
        layers += [nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(options.dropout)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, n_outputs))


def logits(weights: Mapping[str, np.ndarray], inputs: np.ndarray, options: Options) -> np.ndarray:
    """Return the logits (n, n_outputs) of inputs (n, *shape) without PyTorch; `weights` is the head's state_dict."""
    import numpy as np

    flat = inputs.reshape(len(inputs), -1).astype(weights["0.mean"].dtype, copy=False)
    values: np.ndarray = (flat - weights["0.mean"]) / weights["0.scale"]
    layers = [1 + 3 * number for number in range(len(options.widths) + 1)]  # each with its ReLU and dropout
    for layer in layers:
        values = values @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        if layer != layers[-1]:
            values = np.maximum(values, 0)
    return values


def fit(
    train: Examples,
    validation: Examples | None,
    n_classes: int,
    options: Options,
    fit_options: FitOptions,
    *,
    checkpoint: Checkpoint | None = None,
    hooks: Hooks | None = None,
    device: str = "cpu",
    start: nn.Module | None = None,
) -> Fitted:
    """Return the trained head: standardised by the training rows, trained by `loop.train`; raises what that raises.

    device: where it is trained, such as "cuda"; it comes back to the CPU.
    start:  a trained head of the same architecture to continue from, whose standardisation stays.
    """
    from regraft.training import loop
    from regraft.training.devices import on

    module, body, train, validation = prepare(train, validation, n_classes, options, fit_options, start)
    try:
        with on(module, device):
            history = loop.train(body, train, validation, fit_options, checkpoint=checkpoint, hooks=hooks)
    except Diverged as error:
        error.kept = error.kept and Fitted.by_epochs(module.eval(), error.kept.history)
        raise
    return Fitted.by_epochs(module.eval(), history)


def decided(chosen: Mapping[str, Any], options: Options, fit_options: FitOptions) -> tuple[Options, FitOptions]:
    """Return both options with the number of epochs that was chosen."""
    from regraft.training.options import EPOCHS_ALONE

    return options, dataclasses.replace(fit_options, **EPOCHS_ALONE, epochs=chosen["best_epoch"])


def prepare(
    train: Examples,
    validation: Examples | None,
    n_classes: int,
    options: Options,
    fit_options: FitOptions,
    start: nn.Module | None = None,
) -> tuple[nn.Sequential, nn.Sequential, Examples, Examples | None]:
    """Return the head with its standardisation, the layers that the loop trains, and the examples for these.

    The examples are standardised as they are read, so that rows in memory are standardised once, not in every step.
    """
    import torch
    from torch import nn

    from regraft.training import loop, losses, standardise
    from regraft.training.examples import check

    check(train, validation, n_classes)
    with loop.seeded(fit_options.seed, "head"):
        module = build(train.shape, losses.of(fit_options, train.labels).outputs(n_classes), options)
    if start is None:
        for name, values in zip(STATISTICS, standardise.mean_and_scale(train), strict=True):
            module.get_buffer(name).copy_(torch.from_numpy(values))
    else:
        module.load_state_dict(start.state_dict())
    statistics = [module.get_buffer(name).numpy() for name in STATISTICS]
    train, validation = standardise.apply(train, *statistics), validation and standardise.apply(validation, *statistics)
    return module, nn.Sequential(*list(module)[1:]), train, validation
