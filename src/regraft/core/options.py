"""How a frozen dataclass becomes flags, help and an estimator's signature.

Each default and each help text is written once, with `option`, in the
dataclass of the step that uses it. The command line and the estimator read
the dataclasses; they write no default of their own.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from regraft.core.errors import UnknownName, UsageError

T = TypeVar("T")


def option(default: Any, help: str) -> Any:
    """Return a dataclass field with a default and its help text, in one line."""
    return dataclasses.field(default=default, metadata={"help": help})


def flag(name: str) -> str:
    """Return the command line's spelling of an option: `batch_size` → `--batch-size`, `continue_` → `--continue`."""
    return "--" + name.strip("_").replace("_", "-")


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise UsageError unless `condition` holds; used in `__post_init__`."""
    if not condition:
        raise UsageError(f"{flag(name)} is {value!r}; expected {expected}.")


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise UnknownName unless `value` is one of `choices`."""
    if value not in choices:
        raise UnknownName.of(f"value of {flag(name)}", value, choices)


def make(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make an options dataclass from keyword arguments; raise UnknownName for one that it does not have."""
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise UnknownName.of("option", name, known)
    return kind(**values)


def merged(kind: type[T]) -> type[T]:
    """Make a dataclass that inherits the options of several steps check itself by each step's own checks."""

    def check(self: Any) -> None:
        for step in kind.__bases__:
            if hasattr(step, "__post_init__"):
                step.__post_init__(self)

    kind.__post_init__ = check  # type: ignore[attr-defined]
    kind.__init__.__annotations__ = get_type_hints(kind)  # each is written in its step's module, with its imports
    return kind


def takes_options(kind: type) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Give a function that ends in `**options` the true signature of an options dataclass."""

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        added = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in dataclasses.fields(kind)
        ]
        function.__signature__ = signature.replace(parameters=own + added)  # type: ignore[attr-defined]
        return function

    return decorate


def store_options(estimator: Any, options: Mapping[str, Any]) -> None:
    """Set an estimator's options as its attributes, as scikit-learn wants it; the signature gives the defaults."""
    given = inspect.signature(type(estimator)).bind(**options)
    given.apply_defaults()
    for name, value in given.arguments.items():
        setattr(estimator, name, value)
