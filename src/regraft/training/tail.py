"""The tail: the network above the cut, its features, its stages, and its training with a head on top.

Its weights are stored channels-last while it runs, the layout in which
convolutions are fastest. `finetune` decides the order in which tail and head are
trained.
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

ROWS = 32  # per batch, where the tail is not trained


def output_shape(tail: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that `tail` gives for one input of `shape`."""
    with torch.no_grad():
        return tuple(tail.eval()(torch.zeros(1, *shape, device=device_of(tail))).shape[1:])


def build(tail: nn.Module, shape: tuple[int, ...], n_outputs: int, options: FitOptions) -> nn.Sequential:
    """Return the tail with an untrained head on top: inputs (n, *shape), as the trunk outputs them, → logits."""
    with loop.seeded(options.seed, "head"):
        head = plugins.load(heads, options.head).build(output_shape(tail, shape), n_outputs, options.head_settings)
    return nn.Sequential(tail, head)


def features(tail: nn.Module, examples: Examples, *, bfloat16: bool = False) -> Examples:
    """Return the examples with the tail's outputs in eval mode, also of the views, as inputs: (n, *its output shape).

    They are float32, in a temporary file without a name, so that memory stays flat; it is deleted with the process.
    Augmentations computed for each epoch are left out: the rows as they are stand for them.

    bfloat16: compute products in it.
    Raises StoreError if the disk refuses.
    """
    plain = dataclasses.replace(examples, views=(), fresh=None)
    parts = [dataclasses.replace(plain, inputs=inputs) for inputs in examples.all_inputs]
    with progress("features of the tail", len(parts) * len(examples)) as advance, _channels_last(tail):
        inputs, *views = (_outputs(tail.eval(), part, advance, bfloat16=bfloat16) for part in parts)
    return dataclasses.replace(plain, inputs=inputs, views=tuple(views), finite=False)


def _outputs(tail: nn.Module, examples: Examples, advance: Advance, *, bfloat16: bool) -> np.memmap:
    shape = output_shape(tail, examples.shape)
    with torch.no_grad(), writing(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as file:
        for inputs, _ in examples.batches(ROWS):
            outputs = mixed_precision.forward(tail, torch.from_numpy(inputs), bfloat16=bfloat16)
            file.write(outputs.cpu().numpy().tobytes())
            advance(len(inputs))
        file.flush()
        return np.memmap(file, np.float32, "r", shape=(len(examples), *shape))  # keeps the file after it is closed


def stages(tail: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the tail's parameters by stage, from the cut up, in the order of computation if it was traced.

    A stage begins at a module with a number in its path, and is named by the path up to that: `blocks.5`, `layer4`,
    `Mixed_7a`, `features.28`, `stages.2`. Whatever has no such path (`conv_head`), or no weights of two dimensions or
    more in it (`bn2`), belongs to the stage below; right above the cut it is a stage, unless it has no such weights at
    all: then it belongs to the stage above. timm groups the networks that it has a rule for in the same way.
    """
    parameters = _in_order(tail)
    wide = {_numbered(name) for name, parameter in parameters.items() if parameter.ndim >= 2}
    of_stage: dict[str, list[nn.Parameter]] = {}
    stage = ""
    for name, parameter in parameters.items():
        path = _numbered(name)
        stage = path if path and path in wide else stage or name.rpartition(".")[0]
        of_stage.setdefault(stage, []).append(parameter)
    first, second, *_ = [*of_stage, "", ""]
    if second and all(parameter.ndim < 2 for parameter in of_stage[first]):
        of_stage[second] = of_stage.pop(first) + of_stage[second]
    return of_stage


def _numbered(name: str) -> str:
    """Return the stage in a parameter's name, or nothing."""
    match = _NUMBERED.match(name.rpartition(".")[0])
    return match[0] if match else ""


def _in_order(tail: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters by name, in the order of computation if the tail was traced, else as they are defined."""
    nodes = tail.graph.nodes if isinstance(tail, fx.GraphModule) else ()
    called = [f"{node.target}." for node in nodes if node.op in ("call_module", "get_attr")]

    def position(name: str) -> int:
        return next((number for number, path in enumerate(called) if f"{name}.".startswith(path)), -1)

    return dict(sorted(tail.named_parameters(), key=lambda named: position(named[0])))


def groups(module: nn.Sequential, options: FitOptions) -> list[Group]:
    """Return the parameters of a tail with its head, from the top down, each group with its rate and its first epoch.

    The head is the top group, at the full rate. With `layer_decay` the rate of each stage is this times that of the one
    above (Howard and Ruder 2018, arXiv:1801.06146; Clark et al. 2020, arXiv:2003.10555). With `unfreeze_every` the head
    and the topmost stage of the tail are trained first, and every so many epochs one stage more.
    """
    tail, head = module
    every = options.unfreeze_every or 0
    result = [Group(list(head.parameters()))]
    for depth, parameters in enumerate(reversed(stages(tail).values()), start=1):
        result.append(Group(parameters, options.layer_decay**depth, 1 + every * (depth - 1)))
    return result


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

    BatchNorm keeps the statistics that came with pretrained weights, unless the options choose otherwise; those of
    random weights are trained. In a frozen stage they never change.

    bfloat16: compute products in it, which is faster where the processor supports it; weights stay float32.
    start:    the history of earlier phases.

    Raises what `loop.train` raises; UsageError for a batch size of 1 where BatchNorm is trained.
    """
    tail_options, trained = _tail_options(options), groups(module, options)
    if late := sum(group.from_epoch > tail_options.epochs for group in trained):
        log.warning(
            "The lowest %d of the tail's %d stages stay frozen: --tail-epochs is too few.", late, len(trained) - 1
        )
    frozen_norms = _frozen_norms(module, options, pretrained=pretrained)
    keep_freed_memory()
    with _channels_last(module):
        return loop.train(
            module,
            train,
            validation,
            tail_options,
            checkpoint=checkpoint,
            frozen_norms=frozen_norms,
            bfloat16=bfloat16,
            groups=trained,
            start=start,
            phase="tail",
            hooks=hooks,
        )


def sweep(
    module: nn.Sequential, train: Examples, options: FitOptions, *, pretrained: bool = True, bfloat16: bool = False
) -> Sweep:
    """Return the loss of a tail and its head by the learning rate, all stages trained; see `lr_find`."""
    trained = [dataclasses.replace(group, from_epoch=1) for group in groups(module, options)]
    frozen_norms = _frozen_norms(module, options, pretrained=pretrained)
    with _channels_last(module):
        return lr_find(
            module, train, _tail_options(options), frozen_norms=frozen_norms, bfloat16=bfloat16, groups=trained
        )


def _frozen_norms(module: nn.Module, options: FitOptions, *, pretrained: bool) -> Sequence[nn.Module]:
    """Return the parts that keep their statistics; raise UsageError where others can't be trained."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    if pretrained and options.batchnorm == "keep":
        return norms
    if norms and options.batch_size == 1:
        raise UsageError("--batch-size is 1; expected 2 or more, because BatchNorm is trained on each batch.")
    return ()


def _tail_options(options: FitOptions) -> FitOptions:
    """Return the options with the rate, the epochs and the schedule of a tail."""
    return dataclasses.replace(
        options,
        learning_rate=options.tail_learning_rate,
        epochs=options.tail_epochs,
        schedule="onecycle" if options.schedule == "auto" else options.schedule,
    )


@contextlib.contextmanager
def _channels_last(module: nn.Module) -> Iterator[None]:
    """Store the weights of convolutions in this layout for as long as the block lasts."""
    _set_layout(module, torch.channels_last)
    try:
        yield
    finally:
        _set_layout(module, torch.contiguous_format)


def _set_layout(module: nn.Module, layout: torch.memory_format) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
