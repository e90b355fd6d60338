"""Ray: a task for each unit, on any free core of a cluster, or of this machine; a process opens the network once."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from regraft.core.errors import RegraftError, UsageError, first_line
from regraft.core.progress import log, preparing
from regraft.core.text import shorten

if TYPE_CHECKING:
    from regraft.data.shards import Unit

RETRIES = 3  # of a unit whose process or machine is lost
AHEAD = 2  # units that wait for a core
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
                ray.init(
                    address or "local", logging_level=logging.ERROR, log_to_driver=False, **({} if address else here)
                )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = shorten(" ".join(str(error).split()), 300)
            raise UsageError(f"Ray at {address or 'this machine'} can't be reached: {reason}") from error
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
    """Yield the outcome of each unit, or why it could not be read, as they are done.

    A unit whose process or machine is lost is computed again elsewhere; one that ends its process again and again has
    failed.
    """
    import ray as untyped

    ray: Any = untyped
    log.info("%d of Ray's cores compute.", _free_cores())
    compute = ray.remote(num_cpus=1, max_retries=RETRIES)(_compute)
    alone, waiting = dataclasses.replace(work, cores=1), iter(units)
    running: dict[Any, Unit] = {}
    while True:
        for unit in itertools.islice(waiting, max(0, _cores() + AHEAD - len(running))):
            running[compute.remote(alone, unit)] = unit
        if not running:
            return
        [done], _ = ray.wait(list(running))
        outcome = _outcome(done, running.pop(done))
        if isinstance(outcome, RegraftError):
            raise outcome
        yield outcome


def _outcome(done: Any, unit: Unit) -> Any:
    """Return what became of a task; raise RegraftError where Ray itself is lost."""
    import ray as untyped

    ray: Any = untyped
    failed = ray.exceptions
    try:
        return ray.get(done)
    except (failed.WorkerCrashedError, failed.OutOfMemoryError, failed.NodeDiedError) as error:
        return f"{unit}: its process was lost {RETRIES + 1} times: {first_line(error)}"
    except (failed.LocalRayletDiedError, failed.RaySystemError) as error:
        raise RegraftError(
            f"Ray was lost: {first_line(error)} What is committed stays; give the command again to go on."
        ) from error


def _compute(work: Any, unit: Unit) -> Any:
    """Return what becomes of a unit; an error that concerns all units is returned, as Ray would wrap it."""
    try:
        return _in_this_process(work)(unit)
    except RegraftError as error:
        return error


@functools.lru_cache(maxsize=1)
def _in_this_process(work: Any) -> Any:
    """Return the job whose network this process has opened; each task brings a new one."""
    return work


def _free_cores() -> int:
    """Return how many cores the cluster has to give now: a task that waits for one would wait without a word."""
    import ray

    free = int(ray.available_resources().get("CPU", 0))
    if free < 1:
        raise UsageError(f"Ray's cluster has {_cores()} cores and none is free; expected at least one.")
    return free


def _cores() -> int:
    """Return how many cores the cluster has: machines may come and go."""
    import ray

    return int(ray.cluster_resources().get("CPU", 0))
