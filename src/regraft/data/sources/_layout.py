"""From the paths of a source's files to their labels and parts.

Rows without labels enter, in the source's order; the same rows leave with a
label and a part, or ignored with a reason. Only names are used; what a file
holds is left to `read`.

Accepted are a folder of class folders, and a folder of part folders (`train`,
`training`, `val`, `valid`, `validation`, `test`, in any case) that hold class
folders; either may be inside folders that hold nothing else, as in most
archives. Files nested below a class folder belong to the class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from regraft.core.errors import DataError
from regraft.core.text import count, listed
from regraft.data.formats import has_image_name
from regraft.data.index import Row
from regraft.data.labels import PART_NAMES, as_label

WORKING_LAYOUTS = (
    "Expected one folder per class (cat/1.jpg, dog/2.jpg), or such folders below train, validation and test "
    "(train/cat/1.jpg), or a CSV file with the columns path and label."
)

HIDDEN = "hidden or system file"
EMPTY_FOLDER = "an empty folder"

_SYSTEM_NAMES = frozenset(["__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"])


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, is hidden or belongs to the operating system."""
    return any(name.startswith(".") or name.casefold() in _SYSTEM_NAMES for name in path.split("/"))


def label_rows(rows: Sequence[Row], name: str) -> Iterator[Row]:
    """Yield the rows with labels and parts; raise DataError if no file is in a class folder, or parts are unclear."""
    paths = [tuple(row.path.split("/")) for row in rows if row.status != "ignored"]
    if not paths:
        raise DataError(f"{name} holds no files{_except(rows)}. {WORKING_LAYOUTS}")
    wrapper = _wrapper(paths)
    below = [path[len(wrapper) :] for path in paths if path[: len(wrapper)] == wrapper]
    has_parts = _has_parts(below, "/".join((name, *wrapper)))
    if not any(_part_and_label(path, has_parts) for path in below):
        raise DataError(
            f"{name} holds {count(paths, 'file')} ({_examples(paths)}), none in a class folder. {WORKING_LAYOUTS}"
        )
    for row in rows:
        yield _labelled(row, wrapper, has_parts) if row.status == "used" else row


def _labelled(row: Row, wrapper: tuple[str, ...], has_parts: bool) -> Row:
    path = tuple(row.path.split("/"))
    inside = path[: len(wrapper)] == wrapper
    part_and_label = _part_and_label(path[len(wrapper) :], has_parts) if inside else None
    if part_and_label is None:
        return row.marked("ignored", "not in a class folder")
    part, label = part_and_label
    return dataclasses.replace(row, part=part, label=label)


def _part_and_label(path: tuple[str, ...], has_parts: bool) -> tuple[str | None, str] | None:
    """Return the part and the label of a path; None if it is not in a class folder."""
    part = PART_NAMES.get(path[0].casefold()) if has_parts else None
    if has_parts:
        if part is None:
            return None
        path = path[1:]
    return (part, as_label(path[0])) if len(path) > 1 else None


def _wrapper(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the outer folders to skip: they hold one folder and no images, and are not a part's."""
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
    """Whether the top folders are parts; raise DataError if only some of them are."""
    tops = {path[0] for path in paths if len(path) > 1}
    parts = sorted(top for top in tops if top.casefold() in PART_NAMES)
    others = sorted({path[0] for path in paths if len(path) > 1 and has_image_name(path[-1])}.difference(parts))
    if parts and others:
        raise DataError(
            f"{name} holds folders named like parts ({listed(parts)}) beside other folders with images "
            f"({listed(others)}). Move every class folder into a part's folder, or move {listed(parts)} elsewhere; "
            "if it is the name of a class, rename it, or list the images in a CSV file with the columns path and label."
        )
    return bool(parts)


def _examples(paths: Sequence[tuple[str, ...]]) -> str:
    return ", ".join("/".join(path) for path in paths[:3]) + (", …" if len(paths) > 3 else "")


def _except(rows: Sequence[Row]) -> str:
    return f" except {count(rows, 'ignored file')} ({rows[0].path}: {rows[0].reason})" if rows else ""
