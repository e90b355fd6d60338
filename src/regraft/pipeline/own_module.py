"""A torch module of a user's own as the backbone of a function's options, beside how an image enters it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from regraft.core.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


def takes_module(function: Callable[..., T]) -> Callable[..., T]:
    """Let a function whose options have a backbone take a torch module as it, with an argument `preprocess`."""

    @functools.wraps(function)
    def with_module(*arguments: Any, preprocess: Any = None, **values: Any) -> T:
        backbone = values.get("backbone")
        if backbone is not None and not isinstance(backbone, str):
            values["backbone"] = _own(backbone, preprocess)
        elif preprocess is not None:
            raise UsageError("preprocess is for a backbone that is a torch module; a name brings its own.")
        return function(*arguments, **values)

    signature = inspect.signature(function)
    parameter = inspect.Parameter("preprocess", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Any)
    named = list(signature.parameters.values())
    position = next(number for number, one in enumerate(named) if one.kind is inspect.Parameter.KEYWORD_ONLY)
    named.insert(position, parameter)
    with_module.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]
    return with_module


def _own(module: Any, preprocess: Any) -> Any:
    from torch import nn

    from regraft.network.own_backbone import own_backbone

    if not isinstance(module, nn.Module):
        raise UsageError(f"backbone is a {type(module).__name__}; expected a name, or a torch module.")
    return own_backbone(module, preprocess)


def module_of(backbone: str) -> nn.Module | None:
    """Return the module that a backbone of options is, None where it is a name."""
    network: nn.Module | None = getattr(backbone, "network", None)
    return network
