"""From the paths of a source's files to their labels and parts.

Rows without labels enter, in the source's order; the same rows leave with a
label and a part, or ignored and why. Only names are looked at: what a file is
is left to `read`.

A folder that holds class folders works, one that holds part folders (`train`,
`training`, `val`, `valid`, `validation`, `test`, in any case) that hold class
folders works, and either works below folders that hold nothing else, as in
most archives. What is nested below a class folder belongs to the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from regraft.core.errors import DataError
from regraft.core.text import listed
from regraft.data.formats import has_image_name
from regraft.data.index import Row
from regraft.data.labels import PART_NAMES, as_label

WORKING_LAYOUTS = (
    "Expected one folder per class (cat/1.jpg, dog/2.jpg), or such folders below train, validation and test "
    "(train/cat/1.jpg), or a CSV file with the columns path and label."
)

HIDDEN = "hidden or system file"

_SYSTEM_NAMES = frozenset(["__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"])


def is_hidden(path: str) -> bool:
    """Tell whether a file, or a folder that it is in, is hidden or one of the system's own."""
    return any(name.startswith(".") or name.casefold() in _SYSTEM_NAMES for name in path.split("/"))


def label_rows(rows: Sequence[Row], name: str) -> Iterator[Row]:
    """Yield the rows with labels and parts; raise DataError if no file is in a class folder, or parts are unclear."""
    paths = [tuple(row.path.split("/")) for row in rows if row.status != "ignored"]
    if not paths:
        raise DataError(f"{name} holds no files{_apart_from(rows)}. {WORKING_LAYOUTS}")
    wrapper = _wrapper(paths)
    below = [path[len(wrapper) :] for path in paths if path[: len(wrapper)] == wrapper]
    has_parts = _has_parts(below, "/".join((name, *wrapper)))
    if not any(_placed(path, has_parts) for path in below):
        raise DataError(f"{name} holds {len(paths)} files ({_some(paths)}), none in a class folder. {WORKING_LAYOUTS}")
    for row in rows:
        yield _labelled(row, wrapper, has_parts) if row.status == "used" else row


def _labelled(row: Row, wrapper: tuple[str, ...], has_parts: bool) -> Row:
    path = tuple(row.path.split("/"))
    placed = _placed(path[len(wrapper) :], has_parts) if path[: len(wrapper)] == wrapper else None
    if placed is None:
        return row.marked("ignored", "not in a class folder")
    part, label = placed
    return dataclasses.replace(row, part=part, label=label)


def _placed(path: tuple[str, ...], has_parts: bool) -> tuple[str | None, str] | None:
    """Return the part and the label that a path says, or None if it is in no class folder."""
    part = PART_NAMES.get(path[0].casefold()) if has_parts else None
    if has_parts:
        if part is None:
            return None
        path = path[1:]
    return (part, as_label(path[0])) if len(path) > 1 else None


def _wrapper(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the folders to enter first: those that hold one folder, no images, and are no part."""
    tops = {path[0] for path in paths if len(path) > 1}
    loose_images = any(len(path) == 1 and has_image_name(path[0]) for path in paths)
    if len(tops) != 1 or loose_images:
        return ()
    [top] = tops
    below = [path[1:] for path in paths if len(path) > 1]
    holds_folders = any(len(path) > 1 for path in below)
    holds_images = any(len(path) == 1 and has_image_name(path[0]) for path in below)
    if top.casefold() in PART_NAMES or holds_images or not holds_folders:
        return ()
    return (top, *_wrapper(below))


def _has_parts(paths: Sequence[tuple[str, ...]], name: str) -> bool:
    """Tell whether the top folders are parts; raise DataError if only some of them are."""
    tops = {path[0] for path in paths if len(path) > 1}
    parts = sorted(top for top in tops if top.casefold() in PART_NAMES)
    others = sorted({path[0] for path in paths if len(path) > 1 and has_image_name(path[-1])}.difference(parts))
    if parts and others:
        raise DataError(
            f"{name} holds folders named as parts ({listed(parts)}) beside other folders with images "
            f"({listed(others)}). Move every class folder into a part's folder, or move {listed(parts)} elsewhere; "
            "if it is the name of a class, rename it, or list the images in a CSV file with the columns path and label."
        )
    return bool(parts)


def _some(paths: Sequence[tuple[str, ...]]) -> str:
    return ", ".join("/".join(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")


def _apart_from(rows: Sequence[Row]) -> str:
    return f" apart from {len(rows)} ignored ones ({rows[0].path}: {rows[0].reason})" if rows else ""
