"""What is probably wrong with a command's words, as a sentence that can be acted on.

An error and the words that led to it enter; its message leaves, with what a
look at the words and at the disk adds to it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyclopts import MissingArgumentError, UnusedCliTokensError

from regraft.core.errors import DataError, RefusedFile, RegraftError

MODEL_FILE = "model.json"


def message(error: Exception, words: Sequence[str]) -> str:
    """Return an error's message, on one line where it is about words, with a hint where the words give one."""
    text = str(error) if isinstance(error, RegraftError) else " ".join(str(error).split())
    if isinstance(error, UnusedCliTokensError):
        text = f"More words than expected: {' '.join(error.unused_tokens or [])}."
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        text = _missing(error)
    return " ".join((text, *_hints(error, list(words))))


def _missing(error: MissingArgumentError) -> str:
    """Return what a command lacks, and what that is, in its own words of help."""
    about = error.argument
    assert about is not None
    command, names = " ".join(("regraft", *(error.command_chain or ()))), " or ".join(reversed(about.names))
    lacks = f"a value after {error.keyword}" if error.keyword else names
    return f"`{command}` needs {lacks}: {about.parameter.help or ''} See `{command} --help`."


def _hints(error: Exception, words: list[str]) -> Iterator[str]:
    if path := _split_path(words):
        yield f'A path with spaces needs quotes: "{path}".'
    elif isinstance(error, UnusedCliTokensError):
        yield "A path with spaces needs quotes; `--help` lists the words."
    if isinstance(error, DataError):
        for word in words:
            if set("*?[") & set(word) and "{label}" not in word and not _exists(word):
                yield f"{word!r} is taken as the name of a file; leave out its quotes, or give the folder."
    if isinstance(error, RefusedFile) and (swapped := _swapped(words)):
        yield f"The model comes first: `{shlex.join(['regraft', *swapped])}`."


def _split_path(words: Sequence[str]) -> str:
    """Return words that together are the path of something, and apart are not; the longest first."""
    for start, word in enumerate(words):
        for end in range(len(words), start + 1, -1):
            path = " ".join(words[start:end])
            if not word.startswith("-") and not _exists(word) and _exists(path):
                return path
    return ""


def _swapped(words: list[str]) -> list[str]:
    """Return the words with the model before the source, if they have it after; else none."""
    if words[:1] not in (["evaluate"], ["predict"]) or len(words) < 3:
        return []
    command, first, second, *others = words
    if (Path(first) / MODEL_FILE).exists() or not (Path(second) / MODEL_FILE).exists():
        return []
    return [command, second, first, *others]


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, a null byte
        return False
