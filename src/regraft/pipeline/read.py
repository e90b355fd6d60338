"""`regraft.read` and `regraft.split`: from a source to an Index with parts; what the source loses is said once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.core.options import takes_options
from regraft.core.progress import log
from regraft.data import read as reading
from regraft.data import split as splitting
from regraft.data import usable
from regraft.data.index import Index
from regraft.data.read import SourceOptions
from regraft.data.usable import BrokenOptions
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import SplitSourceOptions


@takes_options(SourceOptions)
def read(source: Any, labels: Any = None, *, options: SourceOptions) -> Index:
    """Return the Index of a source; the pixels are looked at later, by `inspect` or `extract`.

    source: a folder of class folders (or of part folders that hold class folders), a .zip or .tar[.gz] of one, a CSV,
            a pandas DataFrame, or a list of paths.
    labels: one per path, if `source` is a list: names or numbers, lists of them for multilabel images, or one-hot rows.
    Raises DataError if the source is not usable as a whole.
    """
    return read_source(source, options, labels=labels)


def read_source(
    source: Any, options: SourceOptions, broken: BrokenOptions | None = None, *, labels: Any = None
) -> Index:
    """Return the index of a source, and log what it loses: classes without images, pictures without labels.

    broken: how many images may be broken; None: any number.
    Raises DataError if more are, by what can be told without decoding them.
    """
    index = reading.read(source, labels, options=options)
    if broken is not None:
        usable.check(index, broken.max_broken)
    if index is not source:
        for note in usable.notes(index):
            log.warning(note)
    return index


@takes_options(SplitSourceOptions)
def split(index: Index, *, keep: Mapping[str, str] | None = None, options: SplitSourceOptions) -> Index:
    """Return the index with a part for every used row; `.train`, `.validation` and `.test` give the parts.

    index: an Index, or a source as for `read`.
    keep:  id → part of an earlier split; images that are in it stay where they were.
    Raises DataError if a class is too small; StoreError if the store, which keeps the fingerprints of near-duplicates,
    refuses.
    """
    return splitting.split(tied(reading.read(index), options.store, options.split), options=options.split, keep=keep)
