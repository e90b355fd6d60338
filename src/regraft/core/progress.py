"""What is said while work goes on: a logger, and a progress line with the time left, or without a terminal some lines.

Everything goes to stderr. The command line sets the logger's level from
`-q` and `-v`; in Python it is silent below warnings unless the caller asks.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator

from regraft.core.text import printable_lines

EVERY = 20.0  # seconds between two lines where there is no terminal

log = logging.getLogger("regraft")


class Printable(logging.Formatter):
    """A line of the log for a terminal, which the names of files and classes in it don't steer."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with what steers a terminal escaped."""
        return printable_lines(super().format(record))


Advance = Callable[[int], None]


@contextlib.contextmanager
def progress(title: str, total: int) -> Iterator[Advance]:
    """Yield a function that advances a line by so many steps of `total`; without a terminal it logs how far it is."""
    if total == 0 or not log.isEnabledFor(logging.INFO):
        yield lambda _steps: None
        return
    if not sys.stderr.isatty():
        yield _logged(title, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as line:
        task = line.add_task(title, total=total)
        yield lambda steps: line.advance(task, steps)


def _logged(title: str, total: int) -> Advance:
    """Return a function that logs how far it is, at most every EVERY seconds."""
    done, last = 0, time.monotonic()

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            log.info("%s: %s of %s", title, f"{done:,}", f"{total:,}")

    return advance


@contextlib.contextmanager
def preparing(title: str) -> Iterator[None]:
    """Show on a terminal, while the block runs, that something without steps is under way: an import, a conversion."""
    if not sys.stderr.isatty() or not log.isEnabledFor(logging.INFO):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{title} …"):
        yield
