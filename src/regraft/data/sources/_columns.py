"""Which columns of a table mean what: the image's path, its label, its part, its group.

A table's columns enter, by name; the same values leave, by meaning. A column
may have any of the names that such tables have, or be chosen; one that looks
meant and is not read is named in the log.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.core.errors import DataError
from regraft.core.progress import log
from regraft.core.text import listed, printable
from regraft.data.formats import has_image_name
from regraft.data.labels import as_label, as_labels
from regraft.data.sources._layout import part_named

_NAMES = {  # by meaning, the first that exists counts
    "path": (
        *("path", "file_path", "filepath", "image_path", "img_path", "file_name", "filename", "file", "image_file"),
        *(
            "image_name",
            "imagename",
            "img_name",
            "fname",
            "image",
            "images",
            "img",
            "paths",
            "files",
            "picture",
            "photo",
        ),
        *("image_id", "imageid", "img_id", "id"),
    ),
    "label": (
        *(
            "label",
            "labels",
            "class",
            "class_name",
            "classname",
            "category",
            "target",
            "species",
            "breed",
            "label_name",
            "tags",
        ),
        *("ground_truth", "y"),
    ),
    "part": ("part", "split", "subset", "partition", "set", "is_valid", "is_validation", "is_val", "is_test"),
    "group": ("group",),
}
_LIKE_GROUPS = ("patient", "subject", "person", "individual", "session", "group", "lesion", "study", "video")
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}

_LIST, _TAGS, _NUMBER = re.compile(r"\s*\[.*\]\s*", re.DOTALL), re.compile(r"[^;|]*"), re.compile(r"-?\d+(\.\d+)?")
_FOLDS = ("fold", "folds", "kfold")

Table = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class ColumnNames:
    """The columns that the user chose, by meaning; None: by their names."""

    path: str | None = None
    label: str | None = None
    part: str | None = None
    group: None = None


BY_NAME = ColumnNames()


def paths_of(table: Table, chosen: str | None, name: str) -> Sequence[Any]:
    """Return the column of the images' paths, of a table that needs no labels; arguments and errors as `by_meaning`."""
    _check_names(table, name)
    only = next(iter(table)) if len(table) == 1 else None
    column = _column(table, "path", chosen, name) or _with_image_names(table) or only
    if column is None:
        raise DataError(f"{name}: no column path; got {_shown(table)}. Name it so, or choose it with --path-column.")
    return table[column]


def by_meaning(table: Table, chosen: ColumnNames, name: str) -> dict[str, Sequence[Any]]:
    """Return the columns "path" and "label" or "labels", and "part" and "group" where the table has them.

    table: the values of each column, by its name.
    name:  of the table, for messages; it may end with the line of the header.
    Raises DataError if a column is missing or can't be told from others.
    """
    _check_names(table, name)
    columns = {meaning: _column(table, meaning, getattr(chosen, meaning), name) for meaning in _NAMES}
    columns["path"] = columns["path"] or _with_image_names(table)
    part = _parts(table, columns["part"], is_chosen=chosen.part is not None)
    if part is None:
        columns["part"] = None
    rest = [column for column in table if column not in columns.values() and not _is_row_number(column)]
    one_hot: list[str] = []
    if columns["path"] and not columns["label"]:
        one_hot = [column for column in rest if all(_flag(value) is not None for value in table[column])]
        if len(rest) == 1 and not one_hot:
            columns["label"] = rest[0]
            log.info("The labels are read from the column %s.", rest[0])
    if not columns["path"] or not (columns["label"] or len(one_hot) > 1):
        raise _missing(table, columns, name)
    _say_what_is_not_read([column for column in rest if column != columns["label"] and column not in one_hot], columns)
    result = {"path": table[columns["path"]], **_labels(table, columns["label"], one_hot, name)}
    return result | ({"part": part} if part else {}) | ({"group": table[columns["group"]]} if columns["group"] else {})


def _check_names(table: Table, name: str) -> None:
    if any(map(has_image_name, table)):
        raise DataError(f"{name}: got {_shown(table)}; expected the names of the columns first, such as path,label.")


def _column(table: Table, meaning: str, chosen: str | None, name: str) -> str | None:
    if chosen is not None:
        if chosen not in table:
            raise DataError(f"{name}: no column {chosen!r} for --{meaning}-column; got {_shown(table)}.")
        return chosen
    plain = {_plain(column): column for column in table}
    return next((plain[each] for each in _NAMES[meaning] if each in plain), None)


def _plain(column: str) -> str:
    """Return a column's name as the table of names has it: image_id for "Image ID"."""
    return re.sub(r"[\W_]+", "_", column.strip().casefold())


def _is_row_number(column: str) -> bool:
    """Whether pandas has written the numbers of the rows as this column."""
    return _plain(column) in ("", "index", "unnamed_0")


def _with_image_names(table: Table) -> str | None:
    """Return the only column whose every value is named like an image."""
    columns = [name for name, values in table.items() if values and all(has_image_name(str(each)) for each in values)]
    return columns[0] if len(columns) == 1 else None


def _flag(value: Any) -> bool | None:
    return _FLAGS.get(str(value).strip().casefold())


def _parts(table: Table, column: str | None, *, is_chosen: bool) -> list[Any] | None:
    """Return the parts in a column; None if it has none, unless it was chosen or is called `part`."""
    if column is None:
        return None
    values, name = table[column], _plain(column)
    if name.startswith("is_") and all(_flag(value) is not None for value in values):
        part = part_named(name.removeprefix("is_"))
        return [part if _flag(value) else "train" for value in values]
    is_meant = is_chosen or name == "part" or any(part_named(str(value)) for value in values)
    return [part_named(str(value)) or value for value in values] if is_meant else None


def _labels(table: Table, column: str | None, one_hot: Sequence[str], name: str) -> dict[str, Sequence[Any]]:
    if column is None:
        flags = zip(*(map(_flag, table[each]) for each in one_hot), strict=True)
        return _single([[each for each, flag in zip(one_hot, row, strict=True) if flag] for row in flags], is_hot=True)
    values = table[column]
    if _are_texts(values, _LIST):
        return _single([_listed(value) for value in values])
    if _are_texts(values, _TAGS) and _plain(column) == "tags" and any(" " in value for value in values):
        log.info("The tags of an image are those between blanks; call the column label where a label has blanks.")
        return _single([value.split() for value in values])
    if _plain(column) not in ("labels", "tags"):
        return {"label": [_whole(value, name) for value in values] if _are_texts(values, _NUMBER) else values}
    return _single([as_labels(value) if isinstance(value, str) else value for value in values])


def _are_texts(values: Sequence[Any], form: re.Pattern[str]) -> bool:
    """Whether all values are texts of a form, leaving out what is missing, and there are any."""
    if not all(isinstance(value, str) for value in values):
        return False
    return any(values) and all(form.fullmatch(value) for value in values if value)


def _listed(text: str) -> list[str]:
    """Return the labels of a list as pandas or JSON writes it: ['a', 'b']; of what is no such list the text itself."""
    try:
        values = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return [text] if text else []
    return [label for value in values if (label := as_label(str(value)))]


def _whole(text: str, name: str) -> str:
    """Return the number of a class as it is: 1 for 1.0, as pandas writes it beside missing ones."""
    number, _, fraction = text.partition(".")
    if fraction.strip("0"):
        raise DataError(f"{name}: a label is {text}; expected the names or the numbers of classes.")
    return number


def _single(values: Sequence[Any], *, is_hot: bool = False) -> dict[str, Sequence[Any]]:
    """Return the labels of each image; one for each, where none has several (nor, unless of one-hot columns, none)."""
    counts = [len(value) if isinstance(value, list | tuple | set | frozenset) else 0 for value in values]
    if max(counts, default=0) > 1 or (not is_hot and 0 in counts):
        return {"labels": values}
    return {"label": [next(iter(value), "") for value in values]}


def _missing(table: Table, columns: Mapping[str, str | None], name: str) -> DataError:
    missing = [meaning for meaning in ("path", "label") if not columns[meaning]]
    chosen = " and ".join(f"--{meaning}-column" for meaning in missing)
    return DataError(
        f"{name}: no column {' and no '.join(missing)}; got {_shown(table)}, expected path,label. Name it so, or "
        f"choose it with {chosen}."
    )


def _say_what_is_not_read(columns: Iterable[str], read: Mapping[str, str | None]) -> None:
    for column in columns:
        plain = _plain(column)
        meaning = next((meaning for meaning in ("label", "part") if plain in _NAMES[meaning]), None)
        if meaning and read[meaning]:
            log.warning("The column %s is not read, as %s is; --%s-column chooses.", column, read[meaning], meaning)
        elif meaning:
            log.warning(
                "The column %s is not read: its values are no names of parts (train, validation, test).", column
            )
        elif plain in _FOLDS:
            log.warning("The column %s is not read: folds are made by --split, such as --split 5-fold.", column)
        elif plain.startswith(_LIKE_GROUPS) and not read["group"]:
            log.warning("The column %s is not read. Called group, it keeps images of one group in one part.", column)


def _shown(table: Table) -> str:
    return printable(listed([*map(str, table)], 12))[:200] or "nothing"
