"""One tree of errors; each says what was given, what was expected and what to do next.

RegraftError            1
├── UsageError          2   the command's words, or an option's value
│   └── UnknownName     2   a name that is in no list; the nearest one is suggested
├── DataError           3   the images or labels are not usable as given
├── RefusedFile         4   a model folder or a weights file is not what it should be
├── WeightsMissing      5   weights are not on this machine and can't be fetched
├── StoreError          6   disk or store: no room, no right to write, damaged
└── Diverged            7   training diverged; the last good weights are kept

The number is the exit code of the command line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from regraft.core.text import on_one_screen


class RegraftError(Exception):
    """Base of all errors that regraft raises on purpose; its text is meant for the user."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the text as a screen holds it, whatever long value it names; `args` has it whole."""
        return on_one_screen(super().__str__())


class UsageError(RegraftError, ValueError):
    """An option or an argument has a value that is invalid."""

    exit_code = 2


class UnknownName(UsageError):
    """A name is in no list."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], hint: str = "") -> UnknownName:
        """Return the error for `name`, with the nearest known names, or all of them if they are few."""
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3)
        if near:
            guess = f" Did you mean {' or '.join(map(repr, near))}?"
        else:
            guess = f" Known: {', '.join(known)}." if len(known) <= 12 else ""
        return cls(f"No {kind} {name!r}.{guess}{' ' + hint if hint else ''}")


class DataError(RegraftError, ValueError):
    """The images or labels are not usable as given."""

    exit_code = 3


class RefusedFile(RegraftError):
    """A model folder or a weights file is edited, cut short, foreign or from a later format."""

    exit_code = 4


class WeightsMissing(RegraftError):
    """Weights are not on this machine and can't be fetched."""

    exit_code = 5


class StoreError(RegraftError, OSError):
    """The disk or the store: no room, no right to write, damaged."""

    exit_code = 6


class Diverged(RegraftError, ArithmeticError):
    """The loss became NaN or infinite; the last good weights are kept.

    kept: what they are in: a `Fitted` where the loop is called, a `Model` where the pipeline is.
    """

    exit_code = 7
    kept: Any = None


def first_line(error: Exception) -> str:
    """Return the start of a library's message, or the kind of the error if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
