"""Kinds of units, one file each: a piece of a source that a worker reads by itself.

A kind's file has

    units(folder, files, unit_rows)  yields the units of files, in order
    rows(unit, folder)               yields the unit's rows, in order; their bytes are not yet looked at

`folder` is where the source's files are; a unit names its own within it. The rows of a unit are the same wherever it
is read. One that can't be read to its end raises OSError or DataError: the unit has failed, not a row.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import NamedTuple

from regraft.core.text import printable


class File(NamedTuple):
    """A file of a source: its path within the source's folder, and its bytes' count."""

    path: str
    size: int


@dataclass(frozen=True)
class Unit:
    """A piece of a source.

    kind:  the file of this folder that reads it.
    files: the paths of its files within the source's folder, and their sizes in bytes.
    first, stop: of a Parquet file, which row groups.
    labels, parts: of files that are images, one for each; empty where the kind has its own.
    """

    kind: str
    files: tuple[File, ...]
    first: int = 0
    stop: int = 0
    labels: tuple[str | None, ...] = ()
    parts: tuple[str | None, ...] = ()

    @property
    def digest(self) -> str:
        """The sha256 of all that says what it is."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        """Return what a message calls it."""
        first, more = printable(self.files[0].path), len(self.files) - 1
        rows = f", row groups {self.first} to {self.stop - 1}" if self.stop else ""
        return f"{first}{f' and {more} more' if more else ''}{rows}"
