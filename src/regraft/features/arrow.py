"""Features in a program of one's own: Arrow tables with images enter, the same tables with their features leave.

What computes them is a value that Ray or Spark sends to its processes; each opens the networks once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from regraft.core import remote
from regraft.core.errors import DataError
from regraft.core.text import listed, printable
from regraft.data.index import Location, Row
from regraft.data.shards.files import RemoteLocation
from regraft.data.sources.folder import FileLocation
from regraft.data.sources.pictures import BytesLocation
from regraft.features.job import open_worker, restore_trunks
from regraft.features.units import Contents
from regraft.features.worker import Worker

IMAGES = ("image", "bytes", "content", "path")  # the columns of which the first that is there has the images


class TableExtractor:
    """Adds to a table, for each row, what the image is and its features.

    Columns `image`, `bytes` or `content` have the bytes of the files (or Hugging Face's struct of bytes and path),
    `path` has paths or URLs. Added are `id`, `status`, `error` and `features`, null where an image is not used. For Ray
    it is a function: `dataset.map_batches(extractor, batch_format="pyarrow")`; for Spark `batches` is one:
    `frame.mapInArrow(extractor.batches, f"path string, {extractor.columns}")`.
    """

    columns = "id string, status string, error string, features array<float>"  # that are added, as Spark writes it

    def __init__(self, contents: Contents, store: Path | None = None, cores: int | None = 1) -> None:
        self.contents, self.store, self.cores = contents, store, cores

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TableExtractor) and self.contents.digest == other.contents.digest

    def __hash__(self) -> int:
        return hash(self.contents.digest)

    def __call__(self, table: Any) -> Any:
        """Return the table with the added columns; raise DataError if it has no images."""
        import pyarrow

        if not (names := [name for name in IMAGES if name in table.column_names]):
            raise DataError(
                f"The table has the columns {listed(table.column_names)}; expected one of {listed(IMAGES)}."
            )
        rows = (_row(value, number) for number, value in enumerate(table[names[0]].to_pylist()))
        looked, values = [], []
        for some, features in _worker(self).rows(rows):
            looked += some
            left = iter(features)
            values += [next(left).ravel() if row.status == "used" else None for row in some]
        added = {
            "id": pyarrow.array([row.id or None for row in looked], pyarrow.string()),
            "status": pyarrow.array([row.status for row in looked], pyarrow.string()),
            "error": pyarrow.array([row.reason or None for row in looked], pyarrow.string()),
            "features": pyarrow.array(values, pyarrow.list_(pyarrow.float32())),
        }
        kept = {name: table[name] for name in table.column_names if name not in added}
        return pyarrow.table({**kept, **added})

    def batches(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches with the added columns."""
        import pyarrow

        for batch in batches:
            yield from self(pyarrow.Table.from_batches([batch])).to_batches()


@functools.lru_cache(maxsize=1)
def _worker(extractor: TableExtractor) -> Worker:
    """Return what computes in this process; each task brings an extractor of its own, equal to the one before."""
    contents = extractor.contents
    trunks = restore_trunks(contents.about, contents.files.__getitem__, "the extractor")
    return open_worker(trunks, extractor.store, extractor.cores)


def _row(value: Any, number: int) -> Row:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return Row(path=printable(value), location=_location(value))
    return Row(path=str(number), location=BytesLocation(value or b""))


def _location(path: str) -> Location:
    return RemoteLocation(remote.storage_path(path)) if remote.is_url(path) else FileLocation(path)
