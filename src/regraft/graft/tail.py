"""The tail: the network above the cut is trained together with a new head, through the one loop."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from regraft.core import plugins
from regraft.core.errors import UsageError
from regraft.graft import heads, loop
from regraft.graft.examples import Examples, check
from regraft.graft.history import Fitted
from regraft.graft.options import FitOptions

_BatchNorm = nn.modules.batchnorm._BatchNorm


def output_shape(tail: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that `tail` gives for one input of `shape`."""
    with torch.no_grad():
        return tuple(tail.eval()(torch.zeros(1, *shape)).shape[1:])


def build(tail: nn.Module, shape: tuple[int, ...], n_classes: int, options: FitOptions) -> nn.Sequential:
    """Return the tail with an untrained head on top: inputs (n, *shape), as the trunk gives them, → logits."""
    with loop.seeded(options.seed, "head"):
        head = plugins.load(heads, options.head).build(output_shape(tail, shape), n_classes, options.head_settings)
    return nn.Sequential(tail, head)


def fit(
    tail: nn.Module,
    shape: tuple[int, ...],
    train: Examples,
    validation: Examples | None,
    n_classes: int,
    options: FitOptions,
    *,
    pretrained: bool = True,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train `tail` itself, in place, and a head on top of it; `Fitted.module` is the two in a row.

    BatchNorm keeps the statistics that came with pretrained weights; those of random weights are learnt.
    Raises what `loop.train` raises; UsageError for a batch size of 1 where BatchNorm is to learn.
    """
    check(train, validation, n_classes)
    module = build(tail, shape, n_classes, options)
    norms = [part for part in tail.modules() if isinstance(part, _BatchNorm)]
    if norms and not pretrained and options.batch_size == 1:
        raise UsageError("--batch-size is 1; expected 2 or more, because BatchNorm of random weights learns from each.")
    history = loop.train(module, train, validation, options, checkpoint=checkpoint, still=norms if pretrained else ())
    return Fitted.by_epochs(module, history)
