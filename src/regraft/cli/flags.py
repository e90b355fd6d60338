"""From options dataclasses to flags: a command's options are flat flags, each under its heading in the help."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cyclopts import App, Group, Parameter, convert

from regraft.core import options

if TYPE_CHECKING:
    from cyclopts.token import Token

F = TypeVar("F", bound=Callable[..., None])

MAIN = Group(options.GROUPS[0], sort_key=0)


def command(app: App, *kinds: type, **settings: Any) -> Callable[[F], F]:
    """Register a command whose argument `options` takes the options of this kind; of several kinds, one of each."""

    def register(function: F) -> F:
        flags: Any = _flags(kinds)

        @functools.wraps(function)
        def run(*arguments: Any, options: Any = None, **values: Any) -> None:
            made = (options or flags()).made
            function(*arguments, options=made[0] if len(kinds) == 1 else made, **values)

        run.__annotations__ = {**function.__annotations__, "options": Annotated[flags | None, Parameter(name="*")]}
        app.command(run, **settings)
        return function

    return register


def _flags(kinds: Sequence[type]) -> type:
    """Return the dataclass of the flags, flat; an instance has `made`: the options of each kind, checked."""
    known = {name: field for kind in kinds for name, field in options.fields(kind).items()}
    fields = [
        (name, _annotated(field), dataclasses.field(default=field.default, metadata={"help": field.help}))
        for name, field in known.items()
    ]

    def make(self: Any) -> None:
        values = vars(self).copy()
        made: list[Any] = [options.make(kind, {name: values[name] for name in options.fields(kind)}) for kind in kinds]
        object.__setattr__(self, "made", made)

    namespace = {"__post_init__": make, "__module__": __name__}  # by default it is `types`, which cyclopts takes whole
    return dataclasses.make_dataclass("Flags", fields, frozen=True, kw_only=True, namespace=namespace)


def _annotated(field: options.Field) -> Any:
    group = Group(field.group, sort_key=options.GROUPS.index(field.group))
    return Annotated[field.type, Parameter(group=group)]


def converted(kind: Any, tokens: Sequence[Token] | Mapping[str, Sequence[Token]]) -> Any:
    """Convert a flag's text as cyclopts does, but refuse a fraction for a whole number, which cyclopts would round."""
    kinds = typing.get_args(kind) or (kind,)
    whole = int in kinds and float not in kinds and not isinstance(tokens, Mapping)
    if whole and any("." in token.value for token in tokens):  # type: ignore[union-attr]
        raise ValueError("expected a whole number.")
    return convert(kind, tokens)  # type: ignore[arg-type]


def show_default(value: Any) -> str:
    """Return a default as the help shows it."""
    return "none" if value is None else ("on" if value else "off") if isinstance(value, bool) else str(value)


class PlainHelp:
    """Help in aligned columns, without boxes; rich is imported only when help is asked for."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Print a panel: its title, and a line for each option."""
        from cyclopts.help import DefaultFormatter, PanelSpec
        from rich.box import Box

        plain = PanelSpec(box=Box("    \n" * 8), padding=(0, 0), title_align="left", border_style="none")
        DefaultFormatter(panel_spec=plain)(console, options, panel)

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:  # noqa: ARG002
        """Print the line of usage."""
        console.print(f"Usage: {usage}", markup=False, highlight=False)
