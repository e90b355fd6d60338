"""Converters print their progress and warn of each other, some from C: none of it is for regraft's user."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what is written to stdout and stderr, by any library, and warnings."""
    streams = {1: sys.stdout, 2: sys.stderr}
    for stream in streams.values():
        stream.flush()
    nothing, kept = os.open(os.devnull, os.O_WRONLY), {number: os.dup(number) for number in streams}
    text = io.StringIO()  # for what is printed from Python, where stdout is not file 1: in notebooks, in tests
    try:
        for number in streams:
            os.dup2(nothing, number)
        with warnings.catch_warnings(), contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        os.close(nothing)
