"""A folder of features as a source to train on: its rows become an index, its features go to the store, once.

More features than the memory may hold are left where they are, and read there in each pass.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.core import remote
from regraft.core.errors import DataError
from regraft.core.progress import log, progress
from regraft.data import read as reading
from regraft.data.index import Index, Row
from regraft.data.read import SourceOptions
from regraft.data.sources._layout import label_rows
from regraft.data.sources.folder import FileLocation

if TYPE_CHECKING:
    from regraft.features.store.shelf import Shelf
    from regraft.features.unit_shelf import UnitShelf
    from regraft.features.units import Folder, Record
    from regraft.inference.runner import CutNetwork
    from regraft.network.trunk import Trunk


def find(source: Any) -> Folder | None:
    """Return the folder of features that a source is; None if it is another kind of source."""
    from regraft.features.units import MANIFEST, Folder

    if not isinstance(source, str | os.PathLike):
        return None
    if not remote.is_url(str(source)) and not (Path(source) / MANIFEST).is_file():
        return None
    folder = Folder(remote.storage_path(str(source)))
    return folder if folder.manifest() else None


def read(
    folder: Folder, store: Path | None, options: SourceOptions, memory: float
) -> tuple[CutNetwork, Index, list[UnitShelf]]:
    """Return what computed a folder's features, the index of its rows, and what reads the features.

    store:  the folder of the feature store, into which they are put; None: the user's.
    memory: gigabytes; more features than this are not put there, but read where they are.
    Raises DataError if there are no units, or no labels; StoreError, RefusedFile.
    """
    from regraft.features.job import open_trunks
    from regraft.features.store.store import Store
    from regraft.inference.runner import CutNetwork, Runner

    manifest, trunks = folder.manifest() or {}, open_trunks(folder)
    records = folder.committed()
    if len(records) < manifest["units"]:
        log.warning("%d of %d units of %s are there.", len(records), manifest["units"], folder.path)
    if not records:
        raise DataError(f"{folder.path} holds no features yet; give the command again that was to write them.")
    shelves = [Store(store).shelf(trunk.digest, trunk.describe(), trunk.stored) for trunk in trunks]
    in_place = _in_place(folder, shelves, trunks) if _bytes(records.values(), trunks) > memory * 1e9 else []
    rows: list[Row] = []
    with progress("units", len(records)) as advance:
        for name, table in zip(sorted(records), folder.tables(), strict=True):
            unit_rows = _rows(table, str(manifest["source"]))
            if in_place:
                in_place[0].add(name, ((at, row.key) for at, row in enumerate(unit_rows) if row.status == "used"))
            else:
                _fill(shelves, table, unit_rows, trunks)
            rows += unit_rows
            advance(1)
    index = Index(tuple(_labelled(rows, str(folder.path), options.label_from)), str(folder.path))
    return CutNetwork(Runner(trunks)), reading.resolve_conflicts(index, options.conflicts), in_place


def _bytes(records: Iterable[Record], trunks: Sequence[Trunk]) -> int:
    numbers = sum(math.prod(trunk.output_shape) for trunk in trunks)  # of one image
    return 4 * numbers * sum(record.counts["used"] for record in records)


def _in_place(folder: Folder, shelves: Sequence[Shelf], trunks: Sequence[Trunk]) -> list[UnitShelf]:
    """Return what reads each trunk's features where they are."""
    from regraft.features.unit_shelf import UnitShelf

    whole = UnitShelf(folder.path, shelves[0].folder)
    ends = np.cumsum([math.prod(trunk.output_shape) for trunk in trunks])
    starts = [0, *ends[:-1]]
    pieces = zip(shelves, starts, ends, strict=True)
    return [whole.columns(shelf.folder, int(start), int(end)) for shelf, start, end in pieces]


def _labelled(rows: list[Row], name: str, pattern: str | None) -> Iterator[Row]:
    """Yield the rows with labels: those of the pattern, or their own; one that has none is ignored."""
    if pattern:
        yield from label_rows(rows, name, pattern)
    elif not any(row.label for row in rows):
        raise DataError(f"The images of {name} have no labels; --label-from says where they are in the files' names.")
    else:
        for row in rows:
            yield row if row.label or row.status != "used" else row.marked("ignored", "it has no label")


def _rows(table: Any, source: str) -> list[Row]:
    return [
        Row(
            path=values["path"],
            location=FileLocation(f"{source}/{values['path']}"),
            id=values["id"] or "",
            label=values["label"],
            part=values["part"],
            status=values["status"],
            reason=values["error"] or "",
            rules=values["rules"],
        )
        for values in table.drop_columns(["features", "prediction"]).to_pylist()
    ]


def _fill(shelves: Sequence[Shelf], table: Any, rows: list[Row], trunks: Sequence[Trunk]) -> None:
    """Put those features of a unit into the store that it lacks; those of several trunks stand side by side."""
    used = [row for row in rows if row.status == "used"]
    if not used:
        return
    values = table["features"].drop_null().combine_chunks().flatten().to_numpy().reshape(len(used), -1)
    start = 0
    for shelf, trunk in zip(shelves, trunks, strict=True):
        stop = start + math.prod(trunk.output_shape)
        missing = set(shelf.missing([row.key for row in used]))
        chosen = [number for number, row in enumerate(used) if row.key in missing]
        if chosen:
            features = np.ascontiguousarray(values[chosen, start:stop]).reshape(-1, *trunk.output_shape)
            shelf.put([used[number].key for number in chosen], features)
        start = stop
