"""Rows in any number, brought together by id on a disk: what decides over copies need not be in memory at once.

Tables of some rows enter, in any order; each is kept sorted by id. The rows leave bucket by bucket: a bucket has all
rows whose ids are in one range, so that all copies of a picture are in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

BUCKET = 100_000  # rows of a bucket, and of a file, about: some 25 MB
GROUP = 4096  # rows that are read together


class RowsById:
    """The rows that were added, in files of a folder.

    folder: an empty one.
    bucket: rows in a bucket, and in a file, about.
    """

    def __init__(self, folder: Path, bucket: int = BUCKET) -> None:
        self.folder, self.bucket = folder, bucket
        self._waiting: list[Any] = []  # tables that are not written
        self._files = self._rows = 0

    def add(self, table: Any) -> None:
        """Keep a table's rows; its column `id` has the sha256 in hex, or an empty text."""
        self._waiting.append(table)
        self._rows += len(table)
        if sum(map(len, self._waiting)) >= self.bucket:
            self._write()

    def _write(self) -> None:
        import pyarrow
        from pyarrow import parquet

        table = pyarrow.concat_tables(self._waiting).sort_by("id")
        parquet.write_table(table, self.folder / f"{self._files}.parquet", compression="zstd", row_group_size=GROUP)
        self._waiting = []
        self._files += 1

    def buckets(self) -> Iterator[Any]:
        """Yield tables that together hold all rows; those of one id are in one table, in no order."""
        from pyarrow import dataset

        if self._waiting:
            self._write()
        if not self._files:
            return
        rows, ids = dataset.dataset(self.folder), dataset.field("id")
        count = max(1, -(-self._rows // self.bucket))
        edges = ["", *(f"{(number << 32) // count:08x}" for number in range(1, count)), "g"]
        for start, stop in pairwise(edges):
            yield rows.to_table(filter=(ids >= start) & (ids < stop), fragment_readahead=1, batch_readahead=1)
