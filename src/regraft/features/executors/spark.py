"""Spark: each unit is a task, with one core. What is active is used, else a session is made, here or at an address."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from regraft.core.errors import RegraftError, UsageError, first_line
from regraft.core.progress import preparing

if TYPE_CHECKING:
    from regraft.data.shards import Unit


@contextlib.contextmanager
def opened(address: str | None) -> Iterator[None]:
    """Connect to the master at an address such as spark://head:7077, or start Spark on this machine, and stop it.

    Raises UsageError if Spark or Java is not installed, or the master can't be reached.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise UsageError("--on spark needs Spark and Java: `pip install 'regraft[spark]'`.") from error
    ours = SparkSession.getActiveSession() is None
    if ours:
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        here = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.log.level": "ERROR"}
        builder = SparkSession.builder.appName("regraft").master(address or "local[*]")
        for name, value in ({} if address else here).items():
            builder = builder.config(name, value)
        try:
            with preparing("Starting Spark"):
                builder.getOrCreate()
        except Exception as error:  # Py4J has errors of its own for a missing Java, and for what Java says
            raise UsageError(f"Spark at {address or 'this machine'} can't be reached: {first_line(error)}") from error
    try:
        yield
    finally:
        session: Any = SparkSession.getActiveSession()
        if ours and session:
            session.stop()


def run(work: Any, units: Sequence[Unit]) -> Iterator[Any]:
    """Yield the outcome of each unit, or why it could not be read, when all are done."""
    from pyspark import StorageLevel
    from pyspark.sql import SparkSession

    session: Any = SparkSession.getActiveSession()
    alone = dataclasses.replace(work, cores=1)
    tasks = session.sparkContext.parallelize(units, len(units)).map(functools.partial(_compute, alone))
    outcomes = tasks.persist(StorageLevel.DISK_ONLY)
    outcomes.count()  # computes all at once; they come here one after the other
    for outcome in outcomes.toLocalIterator():
        if isinstance(outcome, RegraftError):
            raise outcome
        yield outcome


def _compute(work: Any, unit: Unit) -> Any:
    """Return what becomes of a unit; an error that concerns all units is returned, as Spark would wrap it."""
    try:
        return _in_this_process(work)(unit)
    except RegraftError as error:
        return error


@functools.lru_cache(maxsize=1)
def _in_this_process(work: Any) -> Any:
    """Return the job whose network this process has opened; each task brings a new one."""
    return work
