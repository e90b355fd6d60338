"""Python lists and pandas frames as a source.

Paths and labels enter, rows leave in their order. pandas is never imported:
a frame comes with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from regraft.core.errors import DataError
from regraft.data.index import PARTS, Row
from regraft.data.sources._layout import PART_NAMES, as_label, printable
from regraft.data.sources.folder import FilePlace


def rows(
    paths: Iterable[str | os.PathLike[str]],
    labels: Iterable[object],
    *,
    parts: Iterable[object] | None = None,
    groups: Iterable[object] | None = None,
) -> Iterator[Row]:
    """Yield one row per path; labels and groups of any kind become text.

    parts:  one of train, validation, test (or their other common names) per path.
    groups: None, NaN or "" where a path is in no group.
    Raises DataError if the lengths differ, a label is missing, or a part is unknown.
    """
    paths = list(paths)
    columns = {"labels": list(labels)}
    columns |= {name: list(values) for name, values in (("parts", parts), ("groups", groups)) if values is not None}
    for name, values in columns.items():
        if len(values) != len(paths):
            raise DataError(f"There are {len(paths)} paths and {len(values)} {name}; expected one for each path.")
    if not paths:
        raise DataError("The list of paths is empty; expected at least one image per class.")
    for number, path in enumerate(paths):
        yield _row(number, path, {name: values[number] for name, values in columns.items()})


def is_frame(source: object) -> bool:
    """Tell whether `source` is a pandas DataFrame, without importing pandas."""
    return any(
        kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame" for kind in type(source).__mro__
    )


def frame_rows(frame: Any) -> Iterator[Row]:
    """Yield one row per row of a frame with the columns path and label, and part and group if it has them.

    Raises DataError if a column is missing, and as `rows` does.
    """
    columns = [str(name) for name in frame.columns]
    missing = [name for name in ("path", "label") if name not in columns]
    if missing:
        raise DataError(f"The frame has the columns {', '.join(columns)}; expected also {' and '.join(missing)}.")
    repeated = [name for name in ("path", "label", "part", "group") if columns.count(name) > 1]
    if repeated:
        raise DataError(f"The frame has more than one column {repeated[0]!r}; expected one.")
    optional = {name + "s": frame[name].tolist() if name in columns else None for name in ("part", "group")}
    yield from rows(frame["path"].tolist(), frame["label"].tolist(), **optional)


def _row(number: int, path: str | os.PathLike[str], values: dict[str, object]) -> Row:
    try:
        place = Path(path)
    except TypeError:
        raise DataError(f"Path number {number} is {path!r}; expected a file's path.") from None
    where = f"{printable(str(path))} (number {number})"
    label = "" if _is_missing(values["labels"]) else as_label(str(values["labels"]))
    if not label:
        raise DataError(f"{where} has no label: {values['labels']!r}. Give it one, or leave the file out.")
    group = values.get("groups")
    return Row(
        path=printable(place.as_posix()),
        place=FilePlace(place),
        label=label,
        part=_part(values["parts"], where) if "parts" in values else None,
        group=None if _is_missing(group) else str(group),
    )


def _part(value: object, where: str) -> str:
    part = PART_NAMES.get(str(value).strip().casefold())
    if part is None:
        raise DataError(f"{where} has the part {value!r}; expected one of {', '.join(PARTS)}.")
    return part


def _is_missing(value: object) -> bool:
    """Tell None, NaN, NaT, pandas' NA and empty text from a value; a text `nan` is a value."""
    return value == "" if isinstance(value, str) else value is None or str(value) in ("nan", "NaT", "<NA>")
