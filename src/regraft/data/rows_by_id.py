"""Rows in any number, brought together by id on a disk: what decides over copies need not be in memory at once.

Tables of some rows enter, in any order; each is kept sorted by id. The rows leave bucket by bucket: a bucket has all
rows whose ids are in one range, so that all copies of a picture are in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

BUCKET = 500_000  # rows of a bucket, about: some 100 MB
GROUP = 4096  # rows that are read together


class RowsById:
    """The rows that were added, in files of a folder.

    folder: an empty one.
    bucket: rows in a bucket, about.
    """

    def __init__(self, folder: Path, bucket: int = BUCKET) -> None:
        self.folder, self.bucket = folder, bucket
        self._tables = self._rows = 0

    def add(self, table: Any) -> None:
        """Keep a table's rows; its column `id` has the sha256 in hex, or an empty text."""
        from pyarrow import parquet

        target = self.folder / f"{self._tables}.parquet"
        parquet.write_table(table.sort_by("id"), target, compression="zstd", row_group_size=GROUP)
        self._tables += 1
        self._rows += len(table)

    def buckets(self) -> Iterator[Any]:
        """Yield tables that together hold all rows; those of one id are in one table, in no order."""
        from pyarrow import dataset

        if not self._tables:
            return
        rows, ids = dataset.dataset(self.folder), dataset.field("id")
        count = -(-self._rows // self.bucket)
        edges = ["", *(f"{(number << 32) // count:08x}" for number in range(1, count)), "g"]
        for start, stop in pairwise(edges):
            yield rows.to_table(filter=(ids >= start) & (ids < stop))
