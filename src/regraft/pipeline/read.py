"""`regraft.read` and `regraft.split`: from a source to an Index with parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regraft.core.options import takes_options
from regraft.data import read as reading
from regraft.data import split as splitting
from regraft.data.index import Index
from regraft.data.read import SourceOptions
from regraft.data.split import SplitOptions


@takes_options(SourceOptions)
def read(source: Any, labels: Sequence[Any] | None = None, *, options: SourceOptions) -> Index:
    """Return the Index of a source; the pixels are looked at later, by `inspect` or `extract`.

    source: a folder of class folders (or of part folders that hold class folders), a .zip or .tar[.gz] of one, a CSV,
            a pandas DataFrame, or a list of paths.
    labels: one per path, if `source` is a list.
    Raises DataError if nothing in it can be used.
    """
    return reading.read(source, labels, options=options)


@takes_options(SplitOptions)
def split(index: Index, *, keep: Mapping[str, str] | None = None, options: SplitOptions) -> Index:
    """Return the index with a part for every used row; `.train`, `.validation` and `.test` give the parts.

    index: an Index, or a source as for `read`.
    keep:  id → part of an earlier split; images that are in it stay where they were.
    Raises DataError if a class is too small.
    """
    return splitting.split(reading.read(index), options=options, keep=keep)
