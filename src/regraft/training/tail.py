"""The tail: the network above the cut, what it says of its inputs, its stages, and its training with a head on top.

Its weights have their channels last while it runs, which is the layout that
convolutions are fastest in. In which order tail and head are trained is left
to `phases`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from regraft.core import plugins
from regraft.core.errors import UsageError
from regraft.core.files import writing
from regraft.core.machine import keep_freed_memory
from regraft.core.progress import Advance, log, progress
from regraft.training import heads, loop, mixed_precision
from regraft.training.checkpoint import Checkpoint
from regraft.training.devices import device_of
from regraft.training.examples import Examples
from regraft.training.history import History
from regraft.training.hooks import Hooks
from regraft.training.lr_find import Sweep, lr_find
from regraft.training.optimizers import Group
from regraft.training.options import FitOptions

_BatchNorm = nn.modules.batchnorm._BatchNorm
_NUMBERED = re.compile(r"(?:[^.\d]+\.)*[^.]*\d[^.]*")  # a path up to the first part with a number in it

ROWS = 32  # that the tail sees at once without learning


def output_shape(tail: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that `tail` gives for one input of `shape`."""
    with torch.no_grad():
        return tuple(tail.eval()(torch.zeros(1, *shape, device=device_of(tail))).shape[1:])


def build(tail: nn.Module, shape: tuple[int, ...], n_outputs: int, options: FitOptions) -> nn.Sequential:
    """Return the tail with an untrained head on top: inputs (n, *shape), as the trunk gives them, → logits."""
    with loop.seeded(options.seed, "head"):
        head = plugins.load(heads, options.head).build(output_shape(tail, shape), n_outputs, options.head_settings)
    return nn.Sequential(tail, head)


def pooled(tail: nn.Module, examples: Examples, *, bfloat16: bool = False) -> Examples:
    """Return the examples, with their views, as the tail shows them in eval mode: (n, *its output shape) float32.

    They lie in a temporary file without a name, so that memory stays flat; it is gone with the process. What is
    augmented anew in every epoch is left out: the rows as they are stand for it.

    bfloat16: compute products in it.
    Raises StoreError if the disk refuses.
    """
    given = dataclasses.replace(examples, views=(), fresh=None)
    parts = [dataclasses.replace(given, inputs=inputs) for inputs in examples.all_inputs]
    with progress("features of the tail", len(parts) * len(examples)) as advance, _channels_last(tail):
        inputs, *views = (_pooled(tail.eval(), part, advance, bfloat16=bfloat16) for part in parts)
    return dataclasses.replace(given, inputs=inputs, views=tuple(views), finite=False)


def _pooled(tail: nn.Module, examples: Examples, advance: Advance, *, bfloat16: bool) -> np.memmap:
    shape = output_shape(tail, examples.shape)
    with torch.no_grad(), writing(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
        for inputs, _ in examples.batches(ROWS):
            outputs = mixed_precision.forward(tail, torch.from_numpy(inputs), bfloat16=bfloat16)
            file.write(outputs.cpu().numpy().tobytes())
            advance(len(inputs))
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(len(examples), *shape))  # holds the file when it is closed


def stages(tail: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the tail's parameters by stage, from the cut up, in the order of computation if it was traced.

    A stage begins at a module with a number in its path, and is named by the path up to that: `blocks.5`, `layer4`,
    `Mixed_7a`, `features.28`, `stages.2`. Whatever has no such path (`conv_head`), or there no weights of two
    dimensions or more (`bn2`), belongs to the stage below it; right above the cut it is one of its own, unless it has
    no such weights at all: then it belongs to the stage above. So does timm group the networks that it has a rule for.
    """
    parameters = _in_order(tail)
    wide = {_numbered(name) for name, parameter in parameters.items() if parameter.ndim >= 2}
    found: dict[str, list[nn.Parameter]] = {}
    stage = ""
    for name, parameter in parameters.items():
        own = _numbered(name)
        stage = own if own and own in wide else stage or name.rpartition(".")[0]
        found.setdefault(stage, []).append(parameter)
    first, second, *_ = [*found, "", ""]
    if second and all(parameter.ndim < 2 for parameter in found[first]):
        found[second] = found.pop(first) + found[second]
    return found


def _numbered(name: str) -> str:
    """Return what a parameter's name says of its stage, or nothing."""
    match = _NUMBERED.match(name.rpartition(".")[0])
    return match[0] if match else ""


def _in_order(tail: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name, in the order of computation if the tail was traced, else as they are defined."""
    nodes = tail.graph.nodes if isinstance(tail, fx.GraphModule) else ()
    called = [f"{node.target}." for node in nodes if node.op in ("call_module", "get_attr")]

    def place(name: str) -> int:
        return next((place for place, path in enumerate(called) if f"{name}.".startswith(path)), -1)

    return dict(sorted(tail.named_parameters(), key=lambda named: place(named[0])))


def groups(module: nn.Sequential, options: FitOptions) -> list[Group]:
    """Return what is trained of a tail with its head, from the top down, each with its rate and its first epoch.

    The head is the top stage, at the full rate. With `layer_decay` each stage further down learns at this times the
    rate of the one above (Howard and Ruder 2018, arXiv:1801.06146; Clark et al. 2020, arXiv:2003.10555). With
    `unfreeze_every` the head and the topmost stage of the tail begin, and every so many epochs one stage more.
    """
    tail, head = module
    every = options.unfreeze_every or 0
    found = [Group(list(head.parameters()))]
    for depth, parameters in enumerate(reversed(stages(tail).values()), start=1):
        found.append(Group(parameters, options.layer_decay**depth, 1 + every * (depth - 1)))
    return found


def train(
    module: nn.Sequential,
    train: Examples,
    validation: Examples | None,
    options: FitOptions,
    *,
    pretrained: bool = True,
    bfloat16: bool = False,
    checkpoint: Checkpoint | None = None,
    start: History | None = None,
    hooks: Hooks | None = None,
) -> History:
    """Train a tail and the head on top of it together by `loop.train`, with the options' rate and epochs for a tail.

    BatchNorm keeps the statistics that came with pretrained weights, unless the options say otherwise; those of random
    weights are learnt. In a stage that is still frozen they never move.

    bfloat16: compute products in it, which pays where the processor is built for it; what is learnt stays float32.
    start:    the history of what was trained before.

    Raises what `loop.train` raises; UsageError for a batch size of 1 where BatchNorm is to learn.
    """
    own, found = _own(options), groups(module, options)
    if late := sum(group.from_epoch > own.epochs for group in found):
        log.warning(
            "The lowest %d of the tail's %d stages stay frozen: --tail-epochs is too few.", late, len(found) - 1
        )
    frozen_norms = _frozen_norms(module, options, pretrained=pretrained)
    keep_freed_memory()
    with _channels_last(module):
        return loop.train(
            module,
            train,
            validation,
            own,
            checkpoint=checkpoint,
            frozen_norms=frozen_norms,
            bfloat16=bfloat16,
            groups=found,
            start=start,
            phase="tail",
            hooks=hooks,
        )


def sweep(
    module: nn.Sequential, train: Examples, options: FitOptions, *, pretrained: bool = True, bfloat16: bool = False
) -> Sweep:
    """Return what the loss of a tail and its head does while the rate rises, all stages trained; see `lr_find`."""
    found = [dataclasses.replace(group, from_epoch=1) for group in groups(module, options)]
    frozen_norms = _frozen_norms(module, options, pretrained=pretrained)
    with _channels_last(module):
        return lr_find(module, train, _own(options), frozen_norms=frozen_norms, bfloat16=bfloat16, groups=found)


def _frozen_norms(module: nn.Module, options: FitOptions, *, pretrained: bool) -> Sequence[nn.Module]:
    """Return the parts that keep their statistics; raise UsageError where others can't learn theirs."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    if pretrained and options.batchnorm == "keep":
        return norms
    if norms and options.batch_size == 1:
        raise UsageError("--batch-size is 1; expected 2 or more, because BatchNorm is to learn from each batch.")
    return ()


def _own(options: FitOptions) -> FitOptions:
    """Return the options as they are for a tail: its rate, its epochs, its schedule."""
    return dataclasses.replace(
        options,
        learning_rate=options.tail_learning_rate,
        epochs=options.tail_epochs,
        schedule="onecycle" if options.schedule == "auto" else options.schedule,
    )


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
