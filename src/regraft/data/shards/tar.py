"""Tar shards as WebDataset writes them: members that share a name up to its first dot are one sample.

A sample's images (`.jpg`, …) are rows; its label is in `.cls`, in `.json` under `label` or `class`, or in `.txt`. Where
there is none of these, a folder in the tar is the label: `cat/1.jpg`. A tar is one unit, and is read forward, once.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple

from regraft.core import remote
from regraft.core.errors import DataError
from regraft.core.remote import StoragePath
from regraft.core.text import printable
from regraft.data.formats import has_image_name
from regraft.data.index import Row
from regraft.data.labels import as_label
from regraft.data.shards import File, Unit
from regraft.data.sources import _tar
from regraft.data.sources.folder import MAX_BYTES
from regraft.data.sources.pictures import BytesLocation

BUFFER = 1 << 20  # bytes read ahead
SIDECARS = ("cls", "json", "txt")  # the first that a sample has gives its label
MAX_SIDECAR = 1 << 20  # bytes


class _Member(NamedTuple):
    key: str
    ending: str
    row: Row | None
    text: bytes


def units(folder: StoragePath, files: list[File], unit_rows: int) -> Iterator[Unit]:  # noqa: ARG001
    """Yield a unit for each tar."""
    yield from (Unit("tar", (file,)) for file in files)


def rows(unit: Unit, folder: StoragePath) -> Iterator[Row]:
    """Yield a row for each image of each sample; raise DataError where the tar is damaged or cut short."""
    [file] = unit.files
    path = folder / file.path
    with remote.refusals(path), path.system.open_input_file(path.path) as raw:
        stream = io.BufferedReader(raw, BUFFER)
        try:
            for _, members in groupby(_members(stream, file.path), key=lambda member: member.key):
                yield from _sample(list(members))
        except _tar.TarError as error:
            raise DataError(f"{path} is damaged or cut short: {error}.") from error


def _members(stream: io.BufferedReader, name: str) -> Iterator[_Member]:
    for member in _tar.members(stream):
        path = printable(member.name)
        head, _, last = path.rpartition("/")
        stem, _, ending = last.partition(".")
        key = f"{head}/{stem}"
        if member.kind == "file" and ending.lower() in SIDECARS:
            yield _Member(key, ending.lower(), None, _content(stream, member, MAX_SIDECAR))
        elif has_image_name(path) and member.kind == "file" and member.size <= MAX_BYTES:
            location = BytesLocation(_content(stream, member, MAX_BYTES))
            yield _Member(key, ending, Row(path=f"{name}/{path}", location=location), b"")
        elif has_image_name(path) and member.kind != "folder":
            broken = Row(path=f"{name}/{path}", location=BytesLocation(b"")).marked("broken", _reason(member))
            yield _Member(key, ending, broken, b"")


def _reason(member: _tar.Member) -> str:
    too_large = f"larger than {MAX_BYTES >> 20} MiB"
    return too_large if member.kind == "file" else f"a {member.kind} member of the tar, not a file"


def _content(stream: io.BufferedReader, member: _tar.Member, most: int) -> bytes:
    stream.seek(member.offset)
    return stream.read(min(member.size, most))


def _sample(members: list[_Member]) -> Iterator[Row]:
    label = _label(members)
    for member in members:
        if member.row is not None:
            yield replace(member.row, label=label or as_label(member.key.rpartition("/")[0].rpartition("/")[2]) or None)


def _label(members: Iterable[_Member]) -> str | None:
    texts = {member.ending: member.text for member in members if member.row is None}
    for ending in SIDECARS:
        if ending in texts and (label := _text(ending, texts[ending])):
            return label
    return None


def _text(ending: str, content: bytes) -> str:
    text = content.decode("utf-8", "replace")
    if ending != "json":
        return as_label(text.strip())
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    values_of = (values.get(name) for name in ("label", "class", "cls")) if isinstance(values, dict) else ()
    return next((as_label(str(value)) for value in values_of if isinstance(value, str | int)), "")
