"""The processes that train together: those that torchrun started, each running the same program on the same source.

Each process has all options, labels and weights, and reads the rows that are its own. What is summed over the processes
is the same in each of them, and so is what they decide by it. gloo carries it, over loopback or a network.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from regraft.core.errors import RegraftError, UsageError, first_line
from regraft.core.progress import log

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = timedelta(days=7)  # one process may extract for long; where one dies, torchrun ends the others


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and which of them this one is, from 0. All of them call the same methods."""

    size: int
    rank: int

    def own(self, rows: np.ndarray) -> np.ndarray:
        """Return those of a batch's rows that are this process's, in order; there may be none."""
        return rows[self._slice(len(rows))]

    def _slice(self, rows: int) -> slice:
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def in_order(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield `work(item)` of each item in order, in every process; each item is one process's own."""
        if self.size == 1:
            yield from map(work, items)
            return
        from torch import distributed

        for start in range(0, len(items), self.size):
            mine, results = start + self.rank, [None] * self.size
            result = work(items[mine]) if mine < len(items) else None
            with _others():
                distributed.all_gather_object(results, result)
            yield from cast("list[R]", results[: len(items) - start])

    def agreed(self, value: T) -> T:
        """Return the first process's value, in all of them: what they decide by must not differ."""
        if self.size == 1:
            return value
        from torch import distributed

        values = [value]
        with _others():
            distributed.broadcast_object_list(values)
        return values[0]

    def first_alone(self, work: Callable[[], T]) -> T:
        """Return what `work` returns; the others begin when the first is done, and find what it has written."""
        result = work() if self.rank == 0 else None
        self.agreed(None)
        return work() if result is None else result

    def summed(self, *numbers: float) -> list[float]:
        """Return the sums of numbers over the processes."""
        if self.size == 1:
            return list(numbers)
        import torch
        from torch import distributed

        total = torch.tensor(numbers, dtype=torch.float64)
        with _others():
            distributed.all_reduce(total)
        sums: list[float] = total.tolist()
        return sums

    def sum_gradients(self, parameters: Iterable[torch.Tensor]) -> None:
        """Replace each gradient by its sum over the processes."""
        if self.size == 1:
            return
        import torch
        from torch import distributed

        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together, start = torch.cat([gradient.reshape(-1) for gradient in gradients]), 0
        with _others():
            distributed.all_reduce(together)
        for gradient in gradients:
            gradient.copy_(together[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    @contextlib.contextmanager
    def dropout(self, module: nn.Module, rows: int) -> Iterator[None]:
        """Have dropout drop in the rows of this process what it would drop in them in a batch of so many rows."""
        from torch import nn

        parts = module.modules() if self.size > 1 else ()
        layers: list[Any] = [part for part in parts if isinstance(part, nn.Dropout) and part.training]
        for layer in layers:
            layer.forward = functools.partial(_dropped, layer.p, rows, self._slice(rows))
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward


ALONE = Processes(1, 0)


@contextlib.contextmanager
def _others() -> Iterator[None]:
    """Say so where another process does not answer any more."""
    try:
        yield
    except RuntimeError as error:
        raise RegraftError(
            f"Another process of torchrun has ended: {first_line(error)}. The same command goes on from what was kept."
        ) from error


def _dropped(probability: float, rows: int, own: slice, inputs: torch.Tensor) -> torch.Tensor:
    """Return inputs with values dropped: the same random numbers are drawn for the whole batch as by `nn.Dropout`."""
    kept = inputs.new_empty((rows, *inputs.shape[1:])).bernoulli_(1 - probability).div_(1 - probability)
    return inputs * kept[own]


def current() -> Processes:
    """Return the processes that this one has joined; ALONE, itself, if none."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return ALONE
    return Processes(distributed.get_world_size(), distributed.get_rank())


def join() -> Processes:
    """Join the processes that torchrun started with this one, if it did; all but the first keep silent.

    Raises UsageError if they can't be reached.
    """
    if current() is ALONE and "TORCHELASTIC_RUN_ID" in os.environ:
        from torch import distributed

        try:
            distributed.init_process_group("gloo", timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            raise UsageError(f"The processes of torchrun can't be joined: {first_line(error)}") from error
        if current().rank:
            log.setLevel(logging.ERROR)
    return current()
