"""Labels that Python hands over: lists, arrays, tensors, columns of a DataFrame.

What a caller has for labels enters; one label for each image leaves, or a
list of labels where images may have several. Nothing is guessed: what can't
be a label is refused before any image is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from regraft.core.errors import DataError
from regraft.core.text import shorten
from regraft.data.labels import as_label


def one_for_each_image(labels: Any) -> list[Any]:
    """Return the labels in Python's own types: a column as a flat list, one-hot rows as the numbers of their classes.

    labels: list, array (n,) or (n, 1), tensor or Series of labels; lists of labels for multilabel images; one-hot rows
            (n, classes), or rows of 0 and 1 with several 1s for multilabel images.
    Raises DataError for probabilities, rows of 0, text instead of a list, and NaN that has become text.
    """
    no_list = isinstance(labels, str | bytes | Mapping | Set) or getattr(labels, "ndim", 1) == 0
    if no_list or not isinstance(labels, Iterable):
        raise DataError(f"The labels are {_shown(labels)}; expected a list with one label for each path.")
    if hasattr(labels, "to_numpy"):  # a DataFrame would yield the names of its columns
        labels = labels.to_numpy()
    values = [_plain(value) for value in labels]
    if getattr(getattr(labels, "dtype", None), "kind", "") == "U" and "nan" in values:
        raise DataError(
            f"Label number {values.index('nan')} is the text 'nan', which NumPy makes of a missing label in an array "
            "of text. Give each image its label, or leave it out."
        )
    rows = [value for value in values if isinstance(value, list | tuple)]
    if len(rows) < len(values) or not rows:
        return values
    if all(len(row) == 1 for row in rows):
        return [row[0] for row in rows]
    return _of_rows(rows) if _are_numbers(rows) else values


def text_of(value: Any) -> str:
    """Return a label of any type as text: 1 for 1.0; raise DataError for a fraction, a list or a mapping."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float | complex | list | tuple | Mapping | Set):
        raise DataError(f"A label is {_shown(value)}; expected the name or the number of a class.")
    return as_label(str(value))


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, NaT, pandas' NA or an empty text; the text `nan` is a value."""
    return value == "" if isinstance(value, str) else value is None or str(value) in ("nan", "NaT", "<NA>")


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _are_numbers(rows: Sequence[Sequence[Any]]) -> bool:
    """Whether all rows have the same length and hold nothing but numbers, as one-hot rows do."""
    return len({len(row) for row in rows}) == 1 and all(isinstance(value, int | float) for row in rows for value in row)


def _of_rows(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the labels of rows of numbers, all of the same length."""
    if any(value not in (0, 1) for row in rows for value in row):
        if all(isinstance(value, int) for row in rows for value in row):
            return list(rows)  # numbers of classes, several for each image
        raise DataError(
            f"Label number 0 is {_shown(rows[0])}; expected the name or number of a class, or a one-hot row of 0 and "
            "1. For probabilities, give the class of the largest: labels.argmax(axis=1)."
        )
    classes = [[number for number, value in enumerate(row) if value] for row in rows]
    if any(len(numbers) > 1 for numbers in classes):
        return classes
    if [] in classes:
        raise DataError(
            f"Label number {classes.index([])} is a row of zeros, and others have a single 1. Give each image a "
            "class; for images that may have none or several, give lists of names instead."
        )
    return [number for [number] in classes]


def _shown(value: object) -> str:
    return f"{shorten(repr(value), 60)} ({type(value).__name__})"
