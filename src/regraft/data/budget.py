"""How much memory the images that are decoded at once may take, in all threads of the process.

A number of bytes is taken before an image is decoded, and given back when its pixels are no longer needed; who would
exceed AT_ONCE waits, unless nobody else holds any. So small images go on side by side, large ones one at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

AT_ONCE = 1 << 29  # bytes of all images, and
LIMIT = 1 << 30  # of a single one, which then is alone


class Budget:
    """Bytes that threads take and give back; a request that fits in no more waits until others are done."""

    def __init__(self, limit: int = AT_ONCE) -> None:
        self.limit = limit
        self._taken = 0
        self._turn = threading.Lock()  # held by the one that waits: nobody overtakes a large request
        self._released = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[Taken]:
        """Take bytes for as long as the `with` lasts: wait until so many are left, or nobody holds any."""
        taken = Taken(self, size)
        with self._turn, self._released:
            self._released.wait_for(lambda: self._taken == 0 or self._taken + size <= self.limit)
            self._taken += size
        try:
            yield taken
        finally:
            taken.keep(0)

    def give_back(self, size: int) -> None:
        """Let others have bytes that were taken."""
        with self._released:
            self._taken -= size
            self._released.notify_all()


class Taken:
    """Bytes that one thread holds."""

    def __init__(self, budget: Budget, size: int) -> None:
        self._budget, self._size = budget, size

    def keep(self, size: int) -> None:
        """Give back all but so many."""
        self._budget.give_back(self._size - size)
        self._size = size
