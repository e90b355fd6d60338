"""Image files in class folders: a unit is a stretch of the listing. Labels and parts come of the folders' names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from regraft.core import remote
from regraft.core.errors import DataError
from regraft.core.remote import StoragePath
from regraft.core.text import printable
from regraft.data.formats import HEAD, has_image_name
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
    labelled = _labelled(folder, files)
    for start in range(0, len(files), unit_rows):
        part = files[start : start + unit_rows]
        rows = [labelled[_kind(file.path)] for file in part]
        yield Unit("files", tuple(part), labels=tuple(row.label for row in rows), parts=tuple(row.part for row in rows))


def rows(unit: Unit, folder: StoragePath) -> Iterator[Row]:
    """Yield a row for each file."""
    for file, label, part in zip(unit.files, unit.labels, unit.parts, strict=True):
        yield replace(_row(folder, file.path), label=label, part=part)


def _row(folder: StoragePath, path: str) -> Row:
    file = folder / path
    location: Location = FileLocation(file.path) if folder.is_local else RemoteLocation(file)
    row = Row(path=printable(path), location=location)
    return row.marked("ignored", HIDDEN) if is_hidden(row.path) else row


def _labelled(folder: StoragePath, files: list[File]) -> dict[tuple[str, str], Row]:
    """Return a row for each kind of file, with label and part, or as they are where no folder tells them."""
    kinds = {_kind(file.path): file.path for file in files}
    rows = [_row(folder, path) for path in kinds.values()]
    with contextlib.suppress(DataError):
        rows = list(label_rows(rows, str(folder)))
    return dict(zip(kinds, rows, strict=True))


def _kind(path: str) -> tuple[str, str]:
    """Return what decides over a file's label: its folder and, unless it is named like an image, its name."""
    folder, _, name = path.rpartition("/")
    return folder, "" if has_image_name(name) and not is_hidden(name) else name
