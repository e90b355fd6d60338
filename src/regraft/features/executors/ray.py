"""Ray: an actor for each core of a cluster, or of this machine; units go to whichever is free."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from regraft.core.errors import RegraftError, UsageError, first_line
from regraft.core.progress import log, preparing

if TYPE_CHECKING:
    from regraft.data.shards import Unit

RESTARTS = 3  # of an actor whose process dies; its unit is computed again
ATTEMPTS = 3  # at a unit whose actor dies
REACHED = 5.0  # seconds


@contextlib.contextmanager
def opened(address: str | None) -> Iterator[None]:
    """Connect to the cluster at an address such as ray://head:10001, or start one on this machine, and leave it.

    Raises UsageError if Ray is not installed, the cluster can't be reached, or has no core to give.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--on ray needs Ray: `pip install 'regraft[ray]'`.") from error
    ours = not ray.is_initialized()
    if ours:
        _check_reachable(address)
        here: dict[str, Any] = {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
        try:
            with preparing("Starting Ray"):
                ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **({} if address else here))
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise UsageError(f"Ray at {address or 'this machine'} can't be reached: {first_line(error)}") from error
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Raise UsageError if nothing answers at the host and port of an address: Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), REACHED).close()
        except (OSError, OverflowError) as error:
            raise UsageError(f"Nothing answers at {address}: {first_line(error)}.") from error


def run(work: Any, units: Sequence[Unit]) -> Iterator[Any]:
    """Yield the outcome of each unit, or why it could not be read, as they are done."""
    import ray
    from ray.util import ActorPool

    count = min(_free_cores(), len(units))
    log.info("%d of Ray's cores compute.", count)
    actor = ray.remote(num_cpus=1, max_restarts=RESTARTS, max_task_retries=ATTEMPTS)(_Actor)
    pool = ActorPool([actor.remote(dataclasses.replace(work, cores=1)) for _ in range(count)])
    send: Any = lambda each, unit: each.compute.remote(unit)  # noqa: E731
    for outcome in pool.map_unordered(send, list(units)):
        if isinstance(outcome, RegraftError):
            raise outcome
        yield outcome


class _Actor:
    """A process of the cluster's, which opens the network once."""

    def __init__(self, work: Any) -> None:
        self.work = work

    def compute(self, unit: Unit) -> Any:
        """Return what becomes of a unit; an error that concerns all units is returned, as Ray would wrap it."""
        try:
            return self.work(unit)
        except RegraftError as error:
            return error


def _free_cores() -> int:
    """Return how many cores the cluster has to give now: an actor that waits for one would wait without a word."""
    import ray as untyped

    ray: Any = untyped
    free = int(ray.available_resources().get("CPU", 0))
    if free < 1:
        total = int(ray.cluster_resources().get("CPU", 0))
        raise UsageError(f"Ray's cluster has {total} cores and none is free; expected at least one.")
    return free
