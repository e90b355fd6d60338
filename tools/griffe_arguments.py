"""How mkdocstrings reads our docstrings and signatures.

In the source an argument is described as `name: text`, its further lines indented; griffe knows Google's form, in which
such lines stand indented below `Args:`. A function that takes options gets its signature and the descriptions from the
options classes when it is imported; griffe, which only reads the source, is given both from there.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from typing import Any

import griffe

DECORATORS = ("takes_options", "estimator_options")
ARGUMENT = re.compile(r"\w+: +\S")
KINDS = {kind: griffe.ParameterKind(kind.description) for kind in inspect._ParameterKind}


class Arguments(griffe.Extension):
    """Give each object its real signature, and its docstring in Google's form."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Complete one function or class."""
        if isinstance(obj, griffe.Function) and takes_options(obj):
            function = imported(obj.path)
            obj.parameters = parameters(function)
            if obj.docstring and function.__doc__:
                obj.docstring.value = inspect.cleandoc(function.__doc__)
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value, "Attributes" if obj.is_class else "Args")


def takes_options(function: griffe.Function) -> bool:
    """Say whether a function's options are written in options classes."""
    return any(name in str(decorator.value) for decorator in function.decorators for name in DECORATORS)


def imported(path: str) -> Any:
    """Return a function or method by its dotted path."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return getattr(imported(module), name)


def parameters(function: Any) -> griffe.Parameters:
    """Return the parameters of a function's signature."""
    known = inspect.signature(function).parameters.values()
    return griffe.Parameters(*(_parameter(parameter) for parameter in known))


def _parameter(parameter: inspect.Parameter) -> griffe.Parameter:
    annotation = parameter.annotation
    kind = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation).replace("pathlib.", "")
    default = None if parameter.default is parameter.empty else repr(parameter.default)
    return griffe.Parameter(parameter.name, kind=KINDS[parameter.kind], annotation=kind, default=default)


def rewritten(text: str, section: str) -> str:
    """Return a docstring in which each block of argument lines is a section of Google's form.

    section: the section's name, such as Args.
    """
    text, _, options = text.partition("\n\nOptions:\n\n")
    blocks = [_section(block, f"{section}:") for block in text.split("\n\n")]
    return "\n\n".join([*blocks, _section(options, "Keyword Args: Options")] if options else blocks)


def _section(block: str, heading: str) -> str:
    """Return a block with its argument lines indented below a heading; lines after them stay as they are."""
    lines = block.splitlines()
    arguments = list(itertools.takewhile(lambda line: ARGUMENT.match(line) or line.startswith(" "), lines))
    if not arguments or not ARGUMENT.match(arguments[0]):
        return block
    return "\n".join([heading, *(f"    {line}" for line in arguments), "", *lines[len(arguments) :]])
