"""The processes that train together: those that torchrun started, each running the same program on the same source.

Whatever is summed over them is summed in an order that their number does not change. gloo carries it: on one machine
over loopback, on several over the network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from regraft.core.errors import UsageError, first_line

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and which of them this one is, from 0."""

    size: int
    rank: int

    def in_order(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield `work(item)` of each item in order, in every process; each item is one process's own."""
        from torch import distributed

        for start in range(0, len(items), self.size):
            mine = start + self.rank
            results: list[Any] = [None] * self.size
            distributed.all_gather_object(results, work(items[mine]) if mine < len(items) else None)
            yield from results[: len(items) - start]


ALONE = Processes(1, 0)


def joined() -> Processes | None:
    """Return the processes that this one has joined; None if it trains alone."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return Processes(distributed.get_world_size(), distributed.get_rank())


def join() -> None:
    """Join the processes that torchrun started; raise UsageError if it did not start this one, or they don't answer."""
    if joined():
        return
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        raise UsageError(
            "--on is torchrun, and torchrun did not start this process; expected, for two processes on this machine: "
            "torchrun --nproc-per-node 2 -m regraft train …"
        )
    from torch import distributed

    try:
        distributed.init_process_group("gloo")
    except (RuntimeError, ValueError) as error:
        raise UsageError(f"The processes of torchrun can't be joined: {first_line(error)}") from error
