"""A folder of results, here or on an object store: a Parquet file for each unit, and after it a record, its commit.

    _regraft.json    what is computed and by what: network or model, engine, precision, schema, the listing's digest
    _network/…       what workers need: the frozen part's tensors, or the files of a model
    part-….parquet   a unit's rows; its name is the sha256 of unit and network
    _done/….json     the commit: rows, counts, sha256, bytes
    _SUCCESS         all units are committed

A unit without its record does not exist. A file is written whole or not at all, and the same rows give the same bytes:
two drivers at once agree, and a run that was stopped goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from regraft.core import remote
from regraft.core.errors import RefusedFile, StoreError, UsageError
from regraft.core.remote import StoragePath
from regraft.core.version import __version__
from regraft.data.index import Row
from regraft.data.shards import Unit

FORMAT = 2
MANIFEST, NETWORK, SUCCESS, DONE = "_regraft.json", "_network", "_SUCCESS", "_done"
TEXTS = ("id", "path", "label", "part", "status", "error")
PROBABILITIES = "probabilities"  # the column beside which answers have columns of their own
ROWS = 256  # in a row group, and in memory on the way into the file


class Answer(NamedTuple):
    """What is predicted for an image, beside its probabilities.

    novelty, unknown: see `model.evidence`; None where the model can't tell.
    prediction_set:   None unless a coverage was asked for.
    """

    label: str
    novelty: float | None = None
    unknown: bool | None = None
    prediction_set: Sequence[str] | None = None


class Rows(NamedTuple):
    """Some rows of a unit, in order.

    values:      of those that are used, (n_used, …) float32, in the same order: features, or probabilities.
    predictions: the answer of each of these, where there are probabilities.
    """

    rows: Sequence[Row]
    values: np.ndarray
    predictions: Sequence[Answer] = ()


@dataclass(frozen=True)
class Contents:
    """What a folder of results is of.

    about:  what decides the values, JSON-able; a run that goes on must have the same.
    column: what the values are called: "features" or "probabilities".
    shape:  of one image's values.
    files:  what workers need, by name.
    """

    about: Mapping[str, Any]
    column: str
    shape: tuple[int, ...]
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """The sha256 of what decides the values; it is part of the units' names."""
        return hashlib.sha256(json.dumps(self.about, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Record:
    """The commit of a unit.

    counts: how many rows are used, ignored, broken.
    sha256, bytes: of its Parquet file.
    """

    unit: str
    rows: int
    counts: Mapping[str, int]
    sha256: str
    bytes: int


class Folder:
    """The folder of results of a job."""

    def __init__(self, path: StoragePath) -> None:
        self.path = path
        self._manifest: dict[str, Any] | None = None

    def manifest(self) -> dict[str, Any] | None:
        """Return what the folder says of itself, which is read once; None if it has no manifest.

        Raises RefusedFile for one that is damaged or of another format.
        """
        if self._manifest is None:
            self._manifest = self._read_manifest()
        return self._manifest

    def _read_manifest(self) -> dict[str, Any] | None:
        content = remote.read(self.path / MANIFEST)
        if content is None:
            return None
        try:
            manifest = json.loads(content)
            known = manifest["format"] == FORMAT
        except (ValueError, TypeError, KeyError) as error:
            raise RefusedFile(f"{self.path / MANIFEST} is damaged or not regraft's.") from error
        if not known:
            raise RefusedFile(f"{self.path} is of the format {manifest['format']}; this regraft knows {FORMAT}.")
        return dict(manifest)

    def begin(self, contents: Contents, source: str, listing: str, units: int) -> None:
        """Write the manifest, or check that the one that is there is of the same job.

        source:  what a person calls the source.
        listing: the digest of the plan of units, of which there are so many.
        Raises UsageError if the folder holds another job's results, or something else.
        """
        wanted = {
            "format": FORMAT,
            "made_by": "regraft",
            "version": __version__,
            **contents.about,
            "column": contents.column,
            "shape": list(contents.shape),
            "listing": listing,
            "units": units,
        }
        known = self.manifest()
        if known is None:
            self._check_empty()
            for name, content in contents.files.items():
                remote.write(self.path / NETWORK / name, content)
            remote.write(self.path / MANIFEST, json.dumps({**wanted, "source": source}, indent=2).encode())
        elif changed := [name for name in wanted if known.get(name) != wanted[name]]:
            raise UsageError(
                f"{self.path} holds the results of another job: {' and '.join(changed)} "
                f"{'is' if len(changed) == 1 else 'are'} different. Name another folder, or give that job's options."
            )

    def file(self, name: str) -> bytes:
        """Return one of the files that workers need; raise RefusedFile if it is missing."""
        content = remote.read(self.path / NETWORK / name)
        if content is None:
            raise RefusedFile(f"{self.path / NETWORK / name} is missing.")
        return content

    def _check_empty(self) -> None:
        for name, _ in remote.listing(self.path):
            if not name.startswith(f"{NETWORK}/"):
                raise UsageError(f"{self.path} already holds {name}, which regraft did not write. Name another folder.")

    def committed(self) -> dict[str, Record]:
        """Return the records that are there, by their names; one that is damaged is none."""
        records = {}
        for name, _ in remote.listing(self.path / DONE):
            if record := self._record(name):
                records[name.removesuffix(".json")] = record
        return records

    def _record(self, name: str) -> Record | None:
        try:
            return Record(**json.loads(remote.read(self.path / DONE / name) or b""))
        except (ValueError, TypeError):
            return None

    def commit(self, name: str, unit: Unit, parts: Iterable[Rows], column: str, shape: tuple[int, ...]) -> Record:
        """Write the Parquet file of a unit, and after it its record; `name` is that of `unit_name`."""
        content, counts = encode(parts, column, shape)
        remote.write(self.path / f"part-{name}.parquet", content)
        record = Record(str(unit), sum(counts.values()), counts, hashlib.sha256(content).hexdigest(), len(content))
        remote.write(self.path / DONE / f"{name}.json", json.dumps(asdict(record)).encode())
        return record

    def succeed(self) -> None:
        """Say that all units are committed."""
        remote.write(self.path / SUCCESS, b"")

    def tables(self) -> Iterator[Any]:
        """Yield the committed units' tables, in the order of their names; raise StoreError for one that is damaged."""
        for name, record in sorted(self.committed().items()):
            yield self._table(name, record)

    def _table(self, name: str, record: Record) -> Any:
        from pyarrow import parquet

        content = remote.read(self.path / f"part-{name}.parquet") or b""
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise StoreError(
                f"{self.path / f'part-{name}.parquet'} is missing or damaged. Delete {self.path / DONE / name}.json, "
                "and give the command again: it is computed again."
            )
        return parquet.read_table(io.BytesIO(content))


def unit_name(unit: Unit, digest: str) -> str:
    """Return what a unit's files are called, in a folder whose contents have this digest."""
    return hashlib.sha256(f"{unit.digest} {digest}".encode()).hexdigest()


def encode(parts: Iterable[Rows], column: str, shape: tuple[int, ...]) -> tuple[bytes, dict[str, int]]:
    """Return the Parquet file of rows, and how many of them are used, ignored, broken. Equal rows give equal bytes."""
    import pyarrow
    from pyarrow import parquet

    labels = pyarrow.list_(pyarrow.string())
    answers = zip(Answer._fields[1:], (pyarrow.float32(), pyarrow.bool_(), labels), strict=True)
    schema = pyarrow.schema(
        [
            *((name, pyarrow.string()) for name in TEXTS),
            ("rules", pyarrow.int16()),
            ("prediction", pyarrow.string()),
            (column, pyarrow.list_(pyarrow.float32())),
            *((name, kind) for name, kind in answers if column == PROBABILITIES),
        ],
        metadata={"shape": json.dumps(shape), "writer": "made by regraft"},
    )
    counts: Counter[str] = Counter(used=0, ignored=0, broken=0)
    sink = io.BytesIO()
    how: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["label", "part", "status"]}
    with parquet.ParquetWriter(sink, schema, use_byte_stream_split=[f"{column}.list.element"], **how) as writer:
        for part in _regrouped(parts, math.prod(shape)):
            counts.update(row.status for row in part.rows)
            writer.write_table(pyarrow.table(_columns(part)[: len(schema)], schema=schema), row_group_size=ROWS)
    return sink.getvalue(), dict(counts)


def _regrouped(parts: Iterable[Rows], width: int) -> Iterator[Rows]:
    """Yield the same rows in groups of ROWS, so that the bytes do not depend on how they came."""
    rows: list[Row] = []
    predictions: list[Answer] = []
    values = np.empty((0, width), np.float32)
    for part in parts:
        rows += part.rows
        predictions += part.predictions
        values = np.concatenate([values, part.values.reshape(-1, width)])
        while len(rows) >= ROWS:
            used = sum(row.status == "used" for row in rows[:ROWS])
            yield Rows(rows[:ROWS], values[:used], predictions[:used])
            rows, values, predictions = rows[ROWS:], values[used:], predictions[used:]
    if rows:
        yield Rows(rows, values, predictions)


def _columns(part: Rows) -> list[Any]:
    import pyarrow

    rows = part.rows
    texts = [
        [row.id or None for row in rows],
        [row.path for row in rows],
        [row.label for row in rows],
        [row.part for row in rows],
        [row.status for row in rows],
        [row.reason or None for row in rows],
    ]
    used = np.array([row.status == "used" for row in rows], bool)
    offsets = np.append(0, np.cumsum(used) * part.values.shape[1]).astype(np.int32)
    lists = pyarrow.ListArray.from_arrays(offsets, part.values.ravel(), mask=pyarrow.array(~used))
    answers = iter(part.predictions)
    answered = [next(answers, None) if row.status == "used" else None for row in rows]
    predicted, *more = ([answer and answer[at] for answer in answered] for at in range(len(Answer._fields)))
    return [*texts, [row.rules for row in rows], predicted, lists, *more]
