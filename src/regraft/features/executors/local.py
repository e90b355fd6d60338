"""This process: one unit after the other, each on all of its cores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.data.shards import Unit


@contextlib.contextmanager
def opened(address: str | None) -> Iterator[None]:  # noqa: ARG001 - there is nothing to reach
    """Make ready what computes."""
    yield


def run(work: Any, units: Sequence[Unit]) -> Iterator[Any]:
    """Yield the outcome of each unit, or why it could not be read."""
    yield from map(work, units)
