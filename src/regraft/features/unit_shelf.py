"""The features of a folder of units, read where they are: for folders that are too large to be copied into the store.

Keys of images enter, as for a shelf of the store; their features leave. Of a unit only the row groups are read in which
the wanted rows are. That its file is as it was written was checked when its rows were read.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from regraft.core import remote
from regraft.core.errors import StoreError, first_line
from regraft.core.remote import StoragePath

_ROW = 1 << 32  # a location is the number of a unit times this, and the number of a row


class UnitShelf:
    """The features of used rows by their keys; several threads may read them at once.

    units:  the folder of the units.
    folder: of the trunk's shelf in the store, where they would be else.
    """

    def __init__(self, units: StoragePath, folder: Path) -> None:
        self.path, self.folder = units, folder
        self._units: list[str] = []
        self._locations: dict[str, int] = {}
        self._columns = slice(None)

    def columns(self, folder: Path, start: int, stop: int) -> UnitShelf:
        """Return what reads a part of the same rows: one trunk's, where several stand side by side."""
        part = copy.copy(self)
        part.folder, part._columns = folder, slice(start, stop)
        return part

    def add(self, name: str, keys: Iterable[tuple[int, str]]) -> None:
        """Add a unit's rows: the number of each in its table, and its key; of copies the first counts."""
        start = len(self._units) * _ROW
        self._units.append(name)
        for number, key in keys:
            self._locations.setdefault(key, start + number)

    def read(self, ids: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
        """Return the features, (len(ids), *shape) float32; raise StoreError for a file that is lost or damaged."""
        units, rows = np.divmod(np.fromiter((self._locations[id] for id in ids), np.int64, len(ids)), _ROW)
        features = np.empty((len(ids), math.prod(shape)), np.float32)
        for unit in np.unique(units):
            here = units == unit
            features[here] = self._read_unit(self.path / f"part-{self._units[unit]}.parquet", rows[here])[
                :, self._columns
            ]
        return features.reshape(len(ids), *shape)

    def _read_unit(self, path: StoragePath, rows: np.ndarray) -> np.ndarray:
        from pyarrow import ArrowInvalid, parquet

        try:
            with remote.refusals(path), path.system.open_input_file(path.path) as source:
                file = parquet.ParquetFile(source, pre_buffer=not path.is_local)
                sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
                ends = np.cumsum(sizes)
                groups, group_of = np.unique(np.searchsorted(ends, rows, side="right"), return_inverse=True)
                column = file.read_row_groups(groups, columns=["features"], use_threads=False)["features"]
        except (ArrowInvalid, FileNotFoundError) as error:
            raise StoreError(f"{path} is missing or damaged: {first_line(error)}. Copy or extract it again.") from error
        starts = np.cumsum(np.take(sizes, groups)) - np.take(sizes, groups)  # of the groups that were read
        positions = starts[group_of] + rows - (ends - sizes)[groups][group_of]
        used = np.cumsum(column.is_valid().to_numpy()) - 1  # those that have features lie side by side
        values = column.combine_chunks().flatten().to_numpy()
        result: np.ndarray = values.reshape(used[-1] + 1, -1)[used[positions]]
        return result
