"""Photographs copied into a folder for each label, with a CSV of what went where.

Predictions and the index of their photographs enter. What went where is planned before anything is written, and the
plan is the first file: a run that was killed goes on from there. Nothing is ever moved, replaced or deleted.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from regraft.core import files
from regraft.core.errors import StoreError, UsageError
from regraft.core.progress import log, progress
from regraft.core.text import count, csv_text
from regraft.data.index import Index, Row
from regraft.model.predict import Prediction

UNSURE, UNKNOWN = "_unsure", "_unknown"
PLAN = "sorted.csv"
COLUMNS = ("path", "status", "error", "label", "percent", "file", "id")
LONGEST = 100  # characters of a name, of a file and of a folder
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]')  # on some system
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows


class Sorted(NamedTuple):
    """What became of one photograph: `file` is where its copy is in the folder, "" if there is none."""

    prediction: Prediction
    row: Row
    file: str

    def cells(self) -> tuple[str, ...]:
        """Return its line of the plan."""
        item = self.prediction
        percent = f"{100 * item.ranked[0][1]:.6g}" if item.ranked else ""
        return (item.path, item.status, item.error, item.label, percent, self.file, self.row.id)


def sort_into(
    folder: Path, index: Index, predictions: Sequence[Prediction], classes: Sequence[str], unsure: float
) -> list[Sorted]:
    """Copy photographs into a folder of their label in `folder`, and return what went where.

    unsure: probability below which a photograph goes to _unsure; unknown ones go to _unknown.
    Raises UsageError for a folder that holds anything else, StoreError if the disk refuses.
    """
    plan = planned(index, predictions, classes, unsure)
    text = csv_text([COLUMNS, *(each.cells() for each in plan)])
    check_target(folder)
    _check_outside(folder, index)
    _check_same(folder, text)
    copies = {each.file: each.row for each in plan if each.file}
    missing = {file: row for file, row in copies.items() if not _is_there(folder / file, row)}
    files.write_file(folder / PLAN, text.encode("utf-8", "surrogateescape"))
    with progress("Copying", len(missing)) as advance:
        for file, row in missing.items():
            files.write_file(folder / file, _content(row))
            advance(1)
    listed = Counter(file.partition("/")[0] for file in copies)
    log.info(
        "%s in %s: %s. %s says what went where.",
        count(len(copies), "copy", "copies"),
        folder,
        ", ".join(f"{number:,} {name}" for name, number in listed.most_common()) or "none",
        folder / PLAN,
    )
    return plan


def planned(index: Index, predictions: Sequence[Prediction], classes: Sequence[str], unsure: float) -> list[Sorted]:
    """Return what is to go where; of two names that are equal on some system both are kept apart by their bytes."""
    folders = _folders(classes)
    plain = [_plain(row, item, folders, unsure) for row, item in zip(index, predictions, strict=True)]
    owners: dict[str, set[str]] = {}
    for row, file in zip(index, plain, strict=True):
        owners.setdefault(file.casefold(), set()).add(row.id)
    names = [
        _distinct(file, row) if len(owners[file.casefold()]) > 1 else file
        for row, file in zip(index, plain, strict=True)
    ]
    return [Sorted(*each) for each in zip(predictions, index, names, strict=True)]


def _plain(row: Row, item: Prediction, folders: dict[str, str], unsure: float) -> str:
    if item.status != "ok":
        return ""
    name = UNKNOWN if item.unknown else UNSURE if item.ranked[0][1] < unsure else folders[item.label]
    return f"{name}/{safe(PurePosixPath(row.path).name)}"


def _distinct(file: str, row: Row) -> str:
    path = PurePosixPath(file)
    return str(path.with_name(f"{path.stem}-{row.id[:12]}{path.suffix}")) if file else ""


def _folders(classes: Sequence[str]) -> dict[str, str]:
    """Return the folder of each class: its name, made safe, and a number where another has that name already."""
    taken, folders = {UNSURE, UNKNOWN, PLAN}, {}
    for label in classes:
        name, number = safe(label), 2
        while name.casefold() in taken:
            name, number = f"{safe(label)}-{number}", number + 1
        taken.add(name.casefold())
        folders[label] = name
    return folders


def safe(name: str) -> str:
    """Return a name that a file or folder may have on every system, as much like this one as can be."""
    name = _UNSAFE.sub("_", name).strip(" ").rstrip(". ")
    name = f"_{name.lstrip('.')}" if name.startswith(".") or not name else name
    name = f"_{name}" if _RESERVED.match(name) else name
    path = PurePosixPath(name)
    ending = path.suffix if len(path.suffix) <= 10 else ""
    return name if len(name) <= LONGEST else name[: LONGEST - len(ending)] + ending


def _check_outside(folder: Path, index: Index) -> None:
    target = folder.resolve()
    for row in index:
        path = getattr(row.location, "path", "")
        if path and Path(path).resolve().is_relative_to(target):
            raise UsageError(f"{row.path} is inside {folder}, into which it is to be copied. Name a folder elsewhere.")


def check_target(folder: Path, inputs: Sequence[str] = ()) -> None:
    """Raise UsageError if photographs must not be sorted into a folder, such as one inside of the inputs' folders."""
    for name in inputs:
        if Path(name).is_dir() and folder.resolve().is_relative_to(Path(name).resolve()):
            raise UsageError(f"{folder} is inside {name}, whose photographs are to be copied. Name a folder elsewhere.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} already exists and is not a folder. Name another one.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / PLAN).is_file():
        raise UsageError(f"{folder} already exists and is not a folder that regraft has sorted into. Name another one.")


def _check_same(folder: Path, plan: str) -> None:
    """Raise UsageError if an earlier run has sorted otherwise into this folder."""
    if not (folder / PLAN).is_file():
        return
    lines = list(csv.reader(io.StringIO((folder / PLAN).read_text("utf-8", "surrogateescape"), newline="")))
    if not lines or any(len(line) != len(COLUMNS) for line in lines) or tuple(lines[0]) != COLUMNS:
        raise UsageError(f"{folder / PLAN} was not written by regraft. Name another folder.")
    wanted = {tuple(line[-2:]) for line in csv.reader(io.StringIO(plan, newline=""))}
    others = [line[-2] for line in lines[1:] if line[-2] and tuple(line[-2:]) not in wanted]
    if others:
        raise UsageError(
            f"{folder} holds another sorting, in which there is {others[0]}; nothing was copied. Name another folder."
        )


def _is_there(file: Path, row: Row) -> bool:
    """Whether a copy is there already; raises UsageError if something else is."""
    if not file.is_symlink() and not file.exists():
        return False
    if not file.is_file() or files.sha256_file(file) != row.id:
        raise UsageError(f"{file} already exists and is not a copy of {row.path}; nothing was copied. Move it away.")
    return True


def _content(row: Row) -> bytes:
    try:
        content = row.location.read()
    except OSError as error:
        raise StoreError(f"Can't read {row.path} any more: {files.disk_reason(error)}") from error
    if row.has_changed(content):
        raise StoreError(f"{row.path} was changed while it was sorted. The same command goes on from there.")
    return content
