"""Threads that work ahead, and are left alone on Ctrl-C; what a forked process, which has none of them, does first."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor


@contextlib.contextmanager
def pool(count: int, name: str = "", start: Callable[[], object] | None = None) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of so many threads; at the end of the `with` what has begun is waited for, and nothing else begins.

    On KeyboardInterrupt nothing is waited for: a thread may be in the middle of a large image.
    start: what each thread does first.
    """
    executor = ThreadPoolExecutor(count, name, initializer=start)
    wait = True
    try:
        yield executor
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        executor.shutdown(wait=wait, cancel_futures=True)


def after_fork(action: Callable[[], None]) -> Callable[[], None]:
    """Have `action`, which this decorates, called first in each process that is forked from this one."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)
    return action
