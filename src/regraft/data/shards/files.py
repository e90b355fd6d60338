"""Image files in class folders: a unit is a stretch of the listing. Labels and parts come of the folders' names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from regraft.core import remote
from regraft.core.errors import DataError
from regraft.core.remote import StoragePath
from regraft.core.text import printable
from regraft.data.formats import HEAD
from regraft.data.index import Location, Row
from regraft.data.shards import File, Unit
from regraft.data.sources._layout import HIDDEN, is_hidden, label_rows
from regraft.data.sources.folder import FileLocation


@dataclass(frozen=True, slots=True)
class RemoteLocation:
    """One file on an object store."""

    file: StoragePath

    def head(self) -> bytes:
        """Return the first bytes; raise OSError if they are not available."""
        with remote.refusals(self.file), self.file.system.open_input_stream(self.file.path) as stream:
            return bytes(stream.read(HEAD))

    def read(self) -> bytes:
        """Return the bytes; raise OSError if they are not available."""
        data = remote.read(self.file)
        if data is None:
            raise FileNotFoundError(2, "No such file or directory")
        return data

    def stamp(self) -> int:
        """Return 0: whether an object has changed is told by its bytes."""
        return 0


def units(folder: StoragePath, files: list[File], unit_rows: int) -> Iterator[Unit]:
    """Yield the units of files, those that are hidden or in no class folder too; labels where folders tell them."""
    rows = _labelled(folder, [_row(folder, file.path) for file in files])
    for start in range(0, len(files), unit_rows):
        part = rows[start : start + unit_rows]
        yield Unit(
            "files",
            tuple(files[start : start + unit_rows]),
            labels=tuple(row.label for row in part),
            parts=tuple(row.part for row in part),
        )


def rows(unit: Unit, folder: StoragePath) -> Iterator[Row]:
    """Yield a row for each file."""
    for file, label, part in zip(unit.files, unit.labels, unit.parts, strict=True):
        yield replace(_row(folder, file.path), label=label, part=part)


def _row(folder: StoragePath, path: str) -> Row:
    file = folder / path
    location: Location = FileLocation(file.path) if folder.is_local else RemoteLocation(file)
    row = Row(path=printable(path), location=location)
    return row.marked("ignored", HIDDEN) if is_hidden(row.path) else row


def _labelled(folder: StoragePath, rows: list[Row]) -> list[Row]:
    """Return the rows with labels and parts, or as they are where no folder tells them."""
    try:
        return list(label_rows(rows, str(folder)))
    except DataError:
        return rows
