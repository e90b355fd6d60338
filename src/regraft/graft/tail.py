"""The tail: the network above the cut is trained together with a new head, through the one loop.

Its weights have their channels last while it is trained, which is the layout
that convolutions are fastest in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
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
    bfloat16: bool = False,
    checkpoint: Path | None = None,
) -> Fitted:
    """Train `tail` itself, in place, and a head on top of it; `Fitted.module` is the two in a row.

    BatchNorm keeps the statistics that came with pretrained weights, unless the options say otherwise; those of random
    weights are learnt.

    bfloat16: compute products in it, which pays where the processor is built for it; what is learnt stays float32.

    Raises what `loop.train` raises; UsageError for a batch size of 1 where BatchNorm is to learn.
    """
    check(train, validation, n_classes)
    module = build(tail, shape, n_classes, options)
    norms = [part for part in tail.modules() if isinstance(part, _BatchNorm)]
    keep = pretrained and options.batchnorm == "keep"
    if norms and not keep and options.batch_size == 1:
        raise UsageError("--batch-size is 1; expected 2 or more, because BatchNorm is to learn from each batch.")
    with _channels_last(module):
        still = norms if keep else ()
        history = loop.train(module, train, validation, options, checkpoint=checkpoint, still=still, bfloat16=bfloat16)
    return Fitted.by_epochs(module, history)


@contextlib.contextmanager
def _channels_last(module: nn.Module) -> Iterator[None]:
    """Keep the weights of convolutions in this layout for as long as the block lasts."""
    _lay_out(module, torch.channels_last)
    try:
        yield
    finally:
        _lay_out(module, torch.contiguous_format)


def _lay_out(module: nn.Module, layout: torch.memory_format) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
