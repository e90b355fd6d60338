"""How a frozen dataclass becomes flags, help and a function's signature.

Each default and each help text is written once, with `option`, in the
dataclass of the step that uses it. A command's options hold one such
dataclass a step (`step`); in Python and on the command line they are flat:
an option that several steps share, such as the seed, is one word for all.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import os
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

from regraft.core.errors import UnknownName, UsageError
from regraft.core.text import shorten

T = TypeVar("T")

# The headings of a command's help, in their order: what most people need comes first.
GROUPS = (
    "Main options",
    "Images",
    "Network",
    "Augmentation",
    "Head and loss",
    "Optimizer",
    "Stopping",
    "Fine-tuning",
    "Search",
    "Engine and store",
    "Many machines",
    "Server",
)


def option(default: Any, help: str, group: str = "") -> Any:
    """Return a dataclass field with a default and its help text, in one line.

    group: the heading of GROUPS under which a command's help lists it; "": the one of its class.
    """
    return dataclasses.field(default=default, metadata={"help": help, "group": group})


def step(kind: type[T]) -> T:
    """Return a dataclass field that holds the options of one step."""
    return dataclasses.field(default=kind())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all options: when one is made, the type of each value is checked, then what `check` asks for.

    Raises UsageError for a value of a wrong type. A text where a path is expected becomes a Path.

    GROUP: the heading under which a command's help lists them.
    """

    GROUP: ClassVar[str] = GROUPS[0]

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not _is_step(field):
                value = _checked(field.name, getattr(self, field.name), _types(type(self))[field.name])  # type: ignore[arg-type]
                object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Raise UsageError for values out of range, or that do not go together."""


# Options of several steps, seen as one flat list


class Field(NamedTuple):
    """What is known of one option."""

    default: Any
    type: Any
    help: str
    group: str


def fields(kind: type) -> dict[str, Field]:
    """Return the options by name, those of the steps included."""
    return dict(_walk(kind))


def make(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make options from flat keyword arguments; a value goes to every step that has an option of this name.

    Raises UnknownName for a name that none of them has, UsageError for a value that does not fit.
    """
    known = fields(kind)
    for name in values:
        if name not in known:
            raise UnknownName.of("option", name, known)
    return _make(kind, values)


def flat(made: Any) -> dict[str, Any]:
    """Return all values by name, those of the steps included."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(made):
        value = getattr(made, field.name)
        values |= flat(value) if _is_step(field) else {field.name: value}
    return values


def change(made: T, **values: Any) -> T:
    """Return the options with some values changed, whichever step they belong to."""
    return make(type(made), {**flat(made), **values})


def words(kind: type, values: Mapping[str, Any]) -> list[str]:
    """Return the command line's words for those of flat `values` that are options of `kind` and not its defaults."""
    known = fields(kind)
    changed = {name: value for name, value in values.items() if name in known and value != known[name].default}
    return [word for name, value in changed.items() for word in _words_of(flag(name), value)]


def _words_of(flag: str, value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [word for name, own in value.items() for word in _words_of(f"{flag}.{name}", own)]
    return [flag] if value is True else [flag, "none" if value is None else str(value)]


def select(kind: type[T], made: Any) -> T:
    """Return the options of `kind` with the values that options of another kind have for them."""
    values, known = flat(made), fields(kind)
    return make(kind, {name: value for name, value in values.items() if name in known})


def _walk(kind: Any) -> Iterator[tuple[str, Field]]:
    for field in dataclasses.fields(kind):
        if _is_step(field):
            yield from _walk(type(field.default))
        else:
            help, group = field.metadata.get("help", ""), str(field.metadata.get("group") or getattr(kind, "GROUP", ""))
            yield field.name, Field(field.default, _types(kind)[field.name], help, group)


def _make(kind: type[T], values: Mapping[str, Any]) -> T:
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if _is_step(field):
            arguments[field.name] = _make(type(field.default), values)
        elif field.name in values:
            arguments[field.name] = values[field.name]
    return kind(**arguments)


def _is_step(field: dataclasses.Field[Any]) -> bool:
    return dataclasses.is_dataclass(field.default)


# Functions and estimators that take options


def takes_options(kind: type) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Let a function with an argument `options` take them flat, as keywords; its signature and help list each of them.

    `options=` itself is taken as well, made already.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(function)
        def flattened(*arguments: Any, options: Any = None, **values: Any) -> T:
            own = {name: values.pop(name) for name in list(values) if name in others}
            return function(*arguments, **own, options=make(kind, values) if options is None else options)

        signature = inspect.signature(function)
        others = {name: parameter for name, parameter in signature.parameters.items() if name != "options"}
        signature = signature.replace(parameters=[*others.values(), *parameters(kind)])
        flattened.__signature__ = signature  # type: ignore[attr-defined]
        flattened.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\nOptions:\n\n{describe(kind)}"
        return flattened

    return decorate


def parameters(kind: type) -> list[inspect.Parameter]:
    """Return the options as keyword-only parameters of a signature."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, keyword, default=field.default, annotation=field.type)
        for name, field in fields(kind).items()
    ]


def describe(kind: type) -> str:
    """Return each option with its help text, one after the other, for a docstring."""
    return "\n".join(
        textwrap.fill(f"{name}: {field.help}", 100, subsequent_indent="    ", break_on_hyphens=False)
        for name, field in fields(kind).items()
    )


def store_options(estimator: Any, values: Mapping[str, Any]) -> None:
    """Set an estimator's options as its attributes, as scikit-learn wants it; the signature gives the defaults."""
    bound = inspect.signature(type(estimator)).bind(**values)
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        setattr(estimator, name, value)


def estimator_options(kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give an estimator's `__init__(self, **options)` the signature of flat options."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        self_parameter, *_ = inspect.signature(function).parameters.values()
        signature = inspect.Signature([self_parameter, *parameters(kind)])
        function.__signature__ = signature  # type: ignore[attr-defined]
        return function

    return decorate


# Checks

_UNIONS = (types.UnionType, typing.Union)


def flag(name: str) -> str:
    """Return the command line's spelling of an option: `batch_size` → `--batch-size`, `continue_` → `--continue`."""
    return "--" + name.strip("_").replace("_", "-")


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise UsageError unless `condition` holds."""
    if not condition:
        raise UsageError(f"{flag(name)} is {shorten(repr(value), 200)}; expected {expected}.")


def require_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise UnknownName unless `value` is one of `choices`."""
    if value not in choices:
        raise UnknownName.of(f"value of {flag(name)}", str(value), choices)


@functools.cache
def _types(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Return the value as the type hint has it; raise UsageError if it is of another type."""
    alternatives = typing.get_args(hint) if typing.get_origin(hint) in _UNIONS else (hint,)
    for alternative in alternatives:
        fits, converted = _converted(value, alternative)
        if fits:
            return converted
    only_words = all(hint is type(None) or typing.get_origin(hint) is Literal for hint in alternatives)
    if isinstance(value, str) and only_words:
        raise UnknownName.of(f"value of {flag(name)}", value, _words(alternatives))
    raise UsageError(
        f"{flag(name)} is {shorten(repr(value), 200)}; expected {' or '.join(map(_spelled, alternatives))}."
    )


def _words(alternatives: Sequence[Any]) -> list[str]:
    """Return the words that a value may be."""
    return [word for hint in alternatives if typing.get_origin(hint) is Literal for word in typing.get_args(hint)]


def _converted(value: Any, hint: Any) -> tuple[bool, Any]:
    """Return whether a value is of a type, and the value as that type."""
    if hint is Any or (hint is type(None) and value is None):
        return True, value
    if typing.get_origin(hint) is Literal:
        return isinstance(value, str) and value in typing.get_args(hint), value
    if hint is bool:
        return isinstance(value, bool), value
    if hint is int or hint is float:
        valid = isinstance(value, numbers.Integral if hint is int else numbers.Real) and not isinstance(value, bool)
        plain = type(value) in (int, float) or not valid
        return valid, value if plain else hint(value)  # NumPy's numbers become Python's
    if hint is Path:
        return isinstance(value, str | os.PathLike), Path(value) if isinstance(value, str | os.PathLike) else value
    return isinstance(value, typing.get_origin(hint) or hint), value


def _spelled(hint: Any) -> str:
    """Return a type in words."""
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    words = {int: "a whole number", float: "a number", str: "text", bool: "True or False", Path: "a path"}
    return "none" if hint is type(None) else words.get(typing.get_origin(hint) or hint, "a dictionary")
