"""How mkdocstrings reads our docstrings and signatures.

In the source an argument is described as `name: text`, its further lines indented; griffe knows Google's form, in which
such lines stand indented below `Args:`. A function that takes options gets its signature and the descriptions from the
options classes when it is imported; griffe, which only reads the source, is given both from there.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

DECORATORS = ("takes_options", "estimator_options")
ARGUMENT = re.compile(r"\w+: +\S")
KINDS = {kind: griffe.ParameterKind(kind.description) for kind in inspect._ParameterKind}


class Arguments(griffe.Extension):
    """Give each object its real signature, and its docstring in Google's form."""

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Take signature and docstring of a function with options from the function itself."""
        if any(name in str(decorator.value) for decorator in func.decorators for name in DECORATORS):
            function = imported(func.path)
            func.parameters = parameters(function)
            if func.docstring and function.__doc__:
                func.docstring.value = inspect.cleandoc(function.__doc__)

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one function or class."""
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value, "Attributes" if obj.is_class else "Args")


def imported(path: str) -> Any:
    """Return a function or method by its dotted path."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return getattr(imported(module), name)


def parameters(function: Any) -> griffe.Parameters:
    """Return the parameters of a function's signature, without their types, which the help texts explain."""
    known = inspect.signature(function).parameters.values()
    return griffe.Parameters(
        *(
            griffe.Parameter(
                parameter.name,
                kind=KINDS[parameter.kind],
                default=None if parameter.default is parameter.empty else repr(parameter.default),
            )
            for parameter in known
        )
    )


def rewritten(text: str, section: str) -> str:
    """Return a docstring in which each block of argument lines is a section of Google's form.

    section: the section's name, such as Args.
    """
    return "\n\n".join(_section(block, section) for block in text.split("\n\n"))


def _section(block: str, section: str) -> str:
    """Return a block with its argument lines indented below the section's name; a last line that is none stays."""
    lines = block.splitlines()
    end = next(
        (at for at, line in enumerate(lines) if not ARGUMENT.match(line) and not line.startswith(" ")), len(lines)
    )
    if not end or not ARGUMENT.match(lines[0]):
        return block
    return "\n".join([f"{section}:", *(f"    {line}" for line in lines[:end]), "", *lines[end:]])
