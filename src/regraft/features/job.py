"""What an executor runs: a unit's rows are read, their features computed, written and committed, by a process alone.

A job is a few texts, so that it can be sent anywhere; each process opens the network once, from the job's own folder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import safetensors.numpy

from regraft.core import remote
from regraft.core.errors import DataError, RefusedFile
from regraft.data import units as listing
from regraft.data.index import Row
from regraft.data.shards import Unit
from regraft.features.store.store import Store
from regraft.features.units import Contents, Folder, Record, Rows, unit_name
from regraft.features.worker import Worker
from regraft.inference.runner import Runner
from regraft.network import build
from regraft.network.trunk import Choice, Trunk

Compute = Callable[[Iterable[Row]], Iterator[Rows]]


class Computing(Protocol):
    """What a job computes of rows."""

    def open(self, folder: Folder, store: Path | None, cores: int | None) -> Compute:
        """Return what computes it in this process, made from the files in the job's folder."""
        ...


@dataclass(frozen=True)
class Job:
    """Computes units.

    source:    the folder of the source's files, a path or a URL.
    output:    the folder of results.
    computing: what is computed.
    digest, column, shape: of the folder's `Contents`.
    store:     the folder of the feature store on the machine where it runs, for the converted network; None: its
               user's.
    cores:     that one process of it may use; None: all of its own.
    """

    source: str
    output: str
    computing: Computing
    digest: str
    column: str
    shape: tuple[int, ...]
    store: Path | None = None
    cores: int | None = None

    def __call__(self, unit: Unit) -> Record | str:
        """Return the record of a unit, once it is committed, or why it can't be read."""
        return listing.attempted(lambda: self._commit(unit))

    def _commit(self, unit: Unit) -> Record:
        parts = self._compute(listing.rows(unit, self._source))
        return self._folder.commit(unit_name(unit, self.digest), unit, parts, self.column, self.shape)

    @cached_property
    def _source(self) -> remote.StoragePath:
        return remote.storage_path(self.source)

    @cached_property
    def _folder(self) -> Folder:
        return Folder(remote.storage_path(self.output))

    @cached_property
    def _compute(self) -> Compute:
        return self.computing.open(self._folder, self.store, self.cores)

    def __getstate__(self) -> dict[str, object]:
        """Leave out what is this process's own."""
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}


@dataclass(frozen=True)
class ComputeFeatures:
    """Features, by the networks in the job's folder."""

    def open(self, folder: Folder, store: Path | None, cores: int | None) -> Compute:
        """Return what computes features of rows."""
        worker = open_worker(open_trunks(folder), store, cores)
        return lambda rows: (Rows(*part) for part in worker.rows(rows))


def open_worker(trunks: Sequence[Trunk], store: Path | None, cores: int | None) -> Worker:
    """Return what computes the features of rows in this process; those of several trunks side by side, as they are."""
    return Worker(Runner(trunks, roots=False), [shelf_folder(trunk, store) for trunk in trunks], cores)


def shelf_folder(trunk: Trunk, store: Path | None) -> Path:
    """Return where a trunk's converted network is kept on this machine."""
    return Store(store).shelf(trunk.digest, trunk.describe(), trunk.stored).folder


def feature_contents(runner: Runner) -> Contents:
    """Return what a folder of features by these trunks is of."""
    about = {"kind": "features", "network": [_about(trunk) for trunk in runner.trunks]}
    files = {_file(at): safetensors.numpy.save(dict(trunk.tensors())) for at, trunk in enumerate(runner.trunks)}
    return Contents(about, "features", runner.output_shape, files)


def _about(trunk: Trunk) -> dict[str, Any]:
    own = {"digest": trunk.digest, "tensors": trunk.frozen.digest}
    return {**trunk.describe(), **own, "engine": trunk.choice.engine, "precision": trunk.choice.precision}


def _file(number: int) -> str:
    return f"network-{number}.safetensors"


def open_trunks(folder: Folder) -> list[Trunk]:
    """Return the networks of a folder of features, in the precision that was settled.

    Raises DataError if it is not such a folder, RefusedFile if a network is not what it should be.
    """
    manifest = folder.manifest()
    if manifest is None or manifest.get("kind") != "features":
        raise DataError(f"{folder.path} is not a folder of features that `regraft extract` wrote.")
    return restore_trunks(manifest, folder.file, str(folder.path))


def restore_trunks(about: Mapping[str, Any], read: Callable[[str], bytes], name: str) -> list[Trunk]:
    """Return the networks that `feature_contents` is about.

    read: returns the file of a name.
    name: of where they are, for messages.
    """
    return [_restored(each, functools.partial(read, _file(at)), name) for at, each in enumerate(about["network"])]


def _restored(about: Mapping[str, Any], read: Callable[[], bytes], name: str) -> Trunk:
    choice = Choice(about["engine"], about["precision"])
    trunk = build.restore(about, lambda: safetensors.numpy.load(read()), choice, digest=about["tensors"])
    if trunk.digest != about["digest"]:
        raise RefusedFile(f"{name} was made by another version of regraft: its features would be others now.")
    return trunk
