"""Optimizers by name, each with torch's own defaults; SGD has the momentum that everyone gives it, 0.9.

Every parameter that torch's optimizer has may be given, but for the learning
rate, which is an option of its own, and those that say how it is computed:
where torch has one pass over the weights for a whole step ("fused"), it is taken.
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
_NOT_OPEN = {"self", "params", "lr", "maximize", "foreach", "fused", "capturable", "differentiable"}


@dataclass(frozen=True)
class Group:
    """Parameters that are trained alike.

    scale:      their learning rate is this times the schedule's.
    from_epoch: the epoch of the running phase, from 1, in which they begin to be trained; frozen before.
    """

    parameters: Sequence[torch.nn.Parameter]
    scale: float = 1.0
    from_epoch: int = 1


def build(
    name: str, groups: Iterable[Group], learning_rate: float, settings: Mapping[str, Any] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer `name`, one of NAMES; its `param_groups` carry each group's scale and from_epoch.

    settings: more of its parameters by torch's names; raises what torch raises for values that it refuses.
    """
    import torch

    kind, defaults = _KINDS[name]
    given = [
        {"params": list(group.parameters), "scale": group.scale, "from_epoch": group.from_epoch} for group in groups
    ]
    optimizer: torch.optim.Optimizer = getattr(torch.optim, kind)(
        given, lr=learning_rate, **{**defaults, **(settings or {})}
    )
    return optimizer


def check(name: str, settings: Mapping[str, Any]) -> None:
    """Raise UnknownName for a parameter that the optimizer does not have, UsageError for a value that it refuses."""
    import torch

    known = set(inspect.signature(getattr(torch.optim, _KINDS[name][0])).parameters) - _NOT_OPEN
    for setting in settings:
        if setting not in known:
            hint = "Its learning rate is --learning-rate." if setting in ("lr", "learning_rate") else ""
            raise UnknownName.of(f"option of {name}", setting, known, hint)
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    try:
        build(name, [Group([weight])], 0.1, settings).step()
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        given = ", ".join(f"{setting} {value!r}" for setting, value in settings.items())
        why = str(error).splitlines()[0]
        raise UsageError(f"--optimizer-options of {name}, {given}: {why}.") from None
