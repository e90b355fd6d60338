"""Parquet files with images: a unit is some row groups of one of them.

The bytes are in a column `bytes` or `image` (bytes, or Hugging Face's struct of bytes and path), or the files' paths,
from the Parquet file's folder on, in `path`. Optional are `label` (text, or a number whose names Hugging Face's
metadata has) and `part` or `split`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from regraft.core.errors import DataError, first_line
from regraft.core.remote import StoragePath
from regraft.core.text import listed, printable
from regraft.data.index import Location, Row
from regraft.data.labels import PART_NAMES, as_label
from regraft.data.shards import File, Unit
from regraft.data.shards.files import RemoteLocation
from regraft.data.sources.folder import FileLocation
from regraft.data.sources.pictures import BytesLocation

BYTES = ("image", "bytes")
LABELS, PARTS = ("label", "class"), ("part", "split")
BATCH = 64  # rows that are in memory at once


def units(folder: StoragePath, files: list[File], unit_rows: int) -> Iterator[Unit]:
    """Yield the units: as many row groups as reach `unit_rows`."""
    for file in files:
        with _opened(folder / file.path) as parquet:
            sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
        first = rows = 0
        for number, size in enumerate(sizes):
            rows += size
            if rows >= unit_rows or number + 1 == len(sizes):
                yield Unit("parquet", (file,), first, number + 1)
                first, rows = number + 1, 0


def rows(unit: Unit, folder: StoragePath) -> Iterator[Row]:
    """Yield a row for each row of the table; raise DataError if it has no images or is damaged."""
    [file] = unit.files
    with _opened(folder / file.path) as parquet:
        names = parquet.schema_arrow.names
        columns = [name for name in (*BYTES, "path", *LABELS, *PARTS) if name in names]
        label_names = _label_names(parquet.schema_arrow)
        number = sum(parquet.metadata.row_group(group).num_rows for group in range(unit.first))
        if not {*BYTES, "path"} & set(columns):
            expected = "image or bytes, with the files' bytes, or path"
            raise DataError(f"{folder / file.path} has the columns {listed(names)}; expected {expected}.")
        groups = list(range(unit.first, unit.stop))
        for batch in parquet.iter_batches(BATCH, row_groups=groups, columns=columns):
            for values in batch.to_pylist():
                yield _row(values, f"{file.path}/{number}", folder / file.path, label_names)
                number += 1


@contextlib.contextmanager
def _opened(path: StoragePath) -> Iterator[Any]:
    """Yield the opened Parquet file; what is wrong with its bytes is a DataError."""
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path.path, filesystem=path.system) as file:
            yield file
    except FileNotFoundError:
        raise
    except (ArrowException, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} is no Parquet file, or damaged: {first_line(error)}") from error


def _row(values: dict[str, Any], name: str, file: StoragePath, label_names: Sequence[str]) -> Row:
    content: Any = _first(values, BYTES)
    path = values.get("path")
    if isinstance(content, dict):
        content, path = content.get("bytes"), content.get("path") or path
    row = Row(path=printable(name), location=BytesLocation(content if isinstance(content, bytes) else b""))
    if not isinstance(content, bytes):
        row = replace(row, location=_beside(file, path)) if path else row.marked("broken", "no bytes and no path")
    part = _first(values, PARTS)
    return replace(row, label=_label(_first(values, LABELS), label_names), part=PART_NAMES.get(str(part).casefold()))


def _first(values: dict[str, Any], names: Sequence[str]) -> Any:
    return next((values[name] for name in names if values.get(name) is not None), None)


def _beside(file: StoragePath, path: str) -> Location:
    """Return the file that a path names; none is outside of the Parquet file's folder."""
    parent = StoragePath(file.system, file.path.rpartition("/")[0], file.url.rpartition("/")[0])
    target = parent / "/".join(piece for piece in str(path).split("/") if piece not in ("", ".", ".."))
    return FileLocation(target.path) if file.is_local else RemoteLocation(target)


def _label(value: Any, names: Sequence[str]) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return as_label(names[value])
    return None if value is None else as_label(str(value)) or None


def _label_names(schema: Any) -> list[str]:
    """Return the classes that Hugging Face's metadata names, in the order of their numbers."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for column in LABELS if column in features for name in features[column].get("names", [])]
    except (KeyError, ValueError, TypeError, AttributeError):
        return []
