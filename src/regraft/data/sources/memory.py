"""Python lists and pandas DataFrames as a source.

Paths and labels enter, rows leave in their order. pandas is never imported
here: whoever passes a DataFrame has imported it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from regraft.core.errors import DataError
from regraft.core.text import printable
from regraft.data.index import PARTS, Row
from regraft.data.labels import LABEL_SEPARATOR, PART_NAMES
from regraft.data.python_labels import is_missing, one_for_each_image, text_of
from regraft.data.sources._columns import BY_NAME, ColumnNames, by_meaning, paths_of
from regraft.data.sources.folder import FileLocation


def rows(
    paths: Iterable[str | os.PathLike[str]],
    labels: Any,
    *,
    parts: Iterable[object] | None = None,
    groups: Iterable[object] | None = None,
) -> Iterator[Row]:
    """Yield one row per path; labels and groups of any type become text.

    labels: one for each path, see `python_labels`; for multilabel images a list, tuple or set of them for each path.
    parts:  one of train, validation, test (or their other common names) per path.
    groups: None, NaN or "" for a path that is in no group.
    Raises DataError if the lengths differ, a label is missing, a part is unknown, or a path is of another type.
    """
    paths = list(paths)
    columns = {"labels": one_for_each_image(labels)}
    if len({isinstance(label, list | tuple | set | frozenset) for label in columns["labels"]}) > 1:
        raise DataError(
            "Some paths have a list of labels and others a single label; expected lists for all paths or for none."
        )
    columns |= {name: list(values) for name, values in (("parts", parts), ("groups", groups)) if values is not None}
    for name, values in columns.items():
        if len(values) != len(paths):
            raise DataError(f"Got {len(paths)} paths and {len(values)} {name}; expected one for each path.")
    if not paths:
        raise DataError("The list of paths is empty; expected at least one image of each class.")
    for number, path in enumerate(paths):
        yield _row(number, path, {name: values[number] for name, values in columns.items()})


def is_frame(source: object) -> bool:
    """Whether `source` is a pandas DataFrame; pandas is not imported for it."""
    return any(
        kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame" for kind in type(source).__mro__
    )


def frame_rows(frame: Any, columns: ColumnNames = BY_NAME) -> Iterator[Row]:
    """Yield one row per row of a DataFrame with a column of paths and one of labels, or more (see `_columns`).

    For multilabel images the column is `labels`: lists, or text separated by `;` or `|`.
    Raises DataError if a column is missing, and as `rows` does.
    """
    names = [str(name) for name in frame.columns]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"The DataFrame has the column {repeated[0]!r} more than once; expected it once.")
    table = {name: frame.iloc[:, at].tolist() for at, name in enumerate(names)}
    meant = by_meaning(table, columns, "The DataFrame")
    labels = meant.get("label") or [() if is_missing(value) else value for value in meant.get("labels", ())]
    yield from rows(meant["path"], labels, parts=meant.get("part"), groups=meant.get("group"))


def frame_inputs(frame: Any, column: str | None = None) -> Iterator[Row]:
    """Yield one row per row of a DataFrame with a column of paths, without labels.

    column: the column of the paths; None: by its name.
    """
    table = {str(name): frame.iloc[:, at].tolist() for at, name in enumerate(frame.columns)}
    for number, path in enumerate(paths_of(table, column, "The DataFrame")):
        yield path_row(path, number)


def path_row(path: str | os.PathLike[str], number: int = 0) -> Row:
    """Return the row of a path, without a label; raise DataError if it is no path."""
    if not isinstance(path, str | os.PathLike):
        raise DataError(f"Path number {number} is {path!r} ({type(path).__name__}); expected the path of an image.")
    location = Path(path)
    return Row(path=printable(location.as_posix()), location=FileLocation(str(location)))


def _row(number: int, path: str | os.PathLike[str], values: dict[str, object]) -> Row:
    row = path_row(path, number)
    where = f"{printable(str(path))} (number {number})"
    labels = _labels(values["labels"], where)
    label = LABEL_SEPARATOR.join(labels) if labels is not None else _label(values["labels"], where)
    group = values.get("groups")
    return dataclasses.replace(
        row,
        label=label,
        labels=labels,
        part=_part(values["parts"], where) if "parts" in values else None,
        group=None if is_missing(group) else str(group),
    )


def _label(value: object, where: str) -> str:
    label = "" if is_missing(value) else text_of(value)
    if not label:
        raise DataError(f"{where} has no label ({value!r}). Give it one, or leave the file out.")
    return label


def _labels(value: object, where: str) -> tuple[str, ...] | None:
    """Return the labels of a multilabel image, sorted, each once; None for a single label."""
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    return tuple(sorted({_label(item, where) for item in value}))


def _part(value: object, where: str) -> str:
    part = PART_NAMES.get(str(value).strip().casefold())
    if part is None:
        raise DataError(f"{where} has the part {value!r}; expected one of {', '.join(PARTS)}.")
    return part
