"""Stored features as one file: `.npz` for NumPy and everything that reads it, `.parquet` for tables.

`.npz` has the arrays `features` (n, …) float32, and `ids`, `paths`, `labels`, `parts` (n,) text, row by row alike;
besides, `view_1`, `view_2`, … (m, …) float32, where augmented views are stored: of the m rows of the training part, or
of all rows if there are no parts.

`.parquet` has the columns `id`, `path`, `label`, `part`, `features` and `view_1`, `view_2`, …, with null for what a row
does not have. Features are flat lists of float32; the file's metadata tells their `shape`, as JSON.

Both are written a stretch at a time, so that memory stays flat.
"""

from __future__ import annotations

import importlib.util
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regraft.core import files, outputs
from regraft.core.errors import UsageError

ROWS = 256  # read and written at a time

_TEXTS = ("id", "path", "label", "part")


def write(features: Any, path: Path, *, overwrite: bool = False) -> None:
    """Write features with their ids, paths, labels and parts; the file appears whole or not at all.

    features: `Features` of `extract`.

    overwrite: replace a file of this name, if regraft wrote it.
    Raises UsageError as `check` does, StoreError if the disk refuses.
    """
    check(path, overwrite=overwrite)
    with files.replacing_file(path) as fresh:
        _WRITERS[path.suffix.lower()](features, fresh)


def check(path: Path, *, overwrite: bool = False) -> None:
    """Raise UsageError if a file of this name must not be written; to be asked before anything is computed for it."""
    outputs.check(path, list(_WRITERS), overwrite=overwrite)
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"{path} needs pyarrow: `pip install 'regraft[parquet]'`, or name a file that ends in .npz.")


def _with_views(features: Any) -> Any:
    """Return those rows that have views: the training part, or all if there are no parts."""
    return features.part("train") if any(row.part for row in features.rows) else features


def _write_npz(features: Any, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = outputs.MARKS[".npz"][0]
        _write_array(archive, "features", features)
        for number, view in enumerate(_with_views(features).views, start=1):
            _write_array(archive, f"view_{number}", view)
        for name in _TEXTS:
            with archive.open(f"{name}s.npy", "w") as member:
                np.save(member, np.array([getattr(row, name) or "" for row in features.rows], dtype=np.str_))


def _write_array(archive: zipfile.ZipFile, name: str, features: Any) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": features.shape}
        np.lib.format.write_array_header_2_0(member, header)
        for start in range(0, len(features), ROWS):
            member.write(features[start : start + ROWS].astype("<f4", copy=False).tobytes())


def _write_parquet(features: Any, path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    views = _with_views(features).views
    numbers = ["features", *(f"view_{number}" for number in range(1, len(views) + 1))]
    schema = pyarrow.schema(
        [
            *((name, pyarrow.string()) for name in _TEXTS),
            *((name, pyarrow.list_(pyarrow.float32())) for name in numbers),
        ],
        metadata={"shape": json.dumps(features.shape[1:]), "writer": outputs.MARKS[".parquet"][0].decode()},
    )
    with parquet.ParquetWriter(path, schema, use_dictionary=["label", "part"]) as writer:
        for columns in _stretches(features, views):
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))


def _stretches(features: Any, views: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield the columns of a stretch of rows after the other."""
    rows = set(_with_views(features).rows)
    viewed = np.array([row in rows for row in features.rows], bool)
    before = np.append(0, np.cumsum(viewed))  # of each row: how many before it have views
    for start in range(0, len(features), ROWS):
        stop = min(start + ROWS, len(features))
        yield [
            *([getattr(row, name) for row in features.rows[start:stop]] for name in _TEXTS),
            _lists(features[start:stop], np.ones(stop - start, bool)),
            *(_lists(view[before[start] : before[stop]], viewed[start:stop]) for view in views),
        ]


def _lists(values: np.ndarray, present: np.ndarray) -> Any:
    """Return a column of flat lists: `values` (m, …), one after the other, for the m rows that are `present` (n,)."""
    import pyarrow

    ends = np.cumsum(present) * math.prod(values.shape[1:])
    offsets = np.append(0, ends).astype(np.int32)
    return pyarrow.ListArray.from_arrays(offsets, values.ravel(), mask=pyarrow.array(~present))


_WRITERS = {".npz": _write_npz, ".parquet": _write_parquet}
