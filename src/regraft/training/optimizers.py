"""Optimizers by name, with PyTorch's defaults, but for SGD, whose momentum is the usual 0.9.

Every parameter of PyTorch's optimizer may be set, but for the learning rate,
which is an option of regraft, and those of the implementation: where PyTorch has
one pass over the weights for a whole step ("fused"), it is used.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core.errors import UnknownName, UsageError

if TYPE_CHECKING:
    import torch

_KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "adagrad": ("Adagrad", {"fused": True}),
    "adam": ("Adam", {"fused": True}),
    "adamw": ("AdamW", {"fused": True}),
    "rmsprop": ("RMSprop", {}),
    "sgd": ("SGD", {"momentum": 0.9, "fused": True}),
}
NAMES = tuple(_KINDS)
_FIXED = {"self", "params", "lr", "maximize", "foreach", "fused", "capturable", "differentiable"}


@dataclass(frozen=True)
class Group:
    """Parameters that are trained at the same rate.

    scale:      their learning rate is this times the schedule's.
    from_epoch: the first epoch of the phase, from 1, in which they are trained; before it they are frozen.
    """

    parameters: Sequence[torch.nn.Parameter]
    scale: float = 1.0
    from_epoch: int = 1


def build(
    name: str, groups: Iterable[Group], learning_rate: float, settings: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer `name`, one of NAMES; its `param_groups` carry each group's scale and from_epoch.

    settings: its other parameters by PyTorch's names; raises what PyTorch raises for values that it refuses.
    """
    import torch

    kind, defaults = _KINDS[name]
    parameter_groups = [
        {"params": list(group.parameters), "scale": group.scale, "from_epoch": group.from_epoch} for group in groups
    ]
    optimizer: torch.optim.Optimizer = getattr(torch.optim, kind)(
        parameter_groups, lr=learning_rate, **{**defaults, **(settings or {})}
    )
    return optimizer


def check(name: str, settings: Mapping[str, Any]) -> None:
    """Raise UnknownName for a parameter that the optimizer does not have, UsageError for a value that it refuses."""
    import torch

    known = set(inspect.signature(getattr(torch.optim, _KINDS[name][0])).parameters) - _FIXED
    for setting in settings:
        if setting not in known:
            hint = "Its learning rate is --learning-rate." if setting in ("lr", "learning_rate") else ""
            raise UnknownName.of(f"option of {name}", setting, known, hint)
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    try:
        build(name, [Group([weight])], 0.1, settings).step()
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        values = ", ".join(f"{setting} {value!r}" for setting, value in settings.items())
        reason = str(error).splitlines()[0]
        raise UsageError(f"--optimizer-options of {name}, {values}: {reason}.") from None
