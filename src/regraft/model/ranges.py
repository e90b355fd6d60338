"""The numbers of a model's description, each in its range, before anything is built of them.

Checksums tell an accident; whoever edits a folder can write them again. A number out of range asks for a network, or
for arrays, that no memory holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from regraft.core.errors import RefusedFile
from regraft.core.text import shorten
from regraft.network.preprocess import LARGEST
from regraft.training.losses import Loss


class Range(NamedTuple):
    """What a number may be."""

    least: float
    greatest: float
    whole: bool = False
    none: bool = False  # whether it may be missing: null

    def has(self, value: object) -> bool:
        """Whether a value is a number of the range."""
        if value is None:
            return self.none
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        return number and self.least <= value <= self.greatest  # type: ignore[operator]

    def __str__(self) -> str:
        """Return the range in words."""
        kind = "a whole number" if self.whole else "a number"
        return f"{kind} from {self.least:g} to {self.greatest:g}{' or null' if self.none else ''}"


COUNT = Range(0, 1e9, whole=True)
FRACTION = Range(0, 1)
LENGTH = Range(1, 1 << 24, whole=True)

# The first pattern that fits the path of a value says its range; a number that none fits may be any of usual size.
RANGES = {
    "format_version": COUNT,
    "trunk.preprocess.size": Range(1, LARGEST, whole=True),
    "trunk.preprocess.crop_share": Range(0, 2),
    "trunk.preprocess.background.*": Range(0, 255),
    "trunk.preprocess.mean.*": Range(-1000, 1000),
    "trunk.preprocess.std.*": Range(1e-6, 1000),
    "trunk.model_args.in_chans": Range(3, 3, whole=True),
    "trunk.output_shape.*": LENGTH,
    "trunk.tail_output_shape.*": LENGTH,
    "scales.*": Range(1e-30, 1e30),
    "temperature": Range(1e-3, 1e3),
    "thresholds.*": FRACTION,
    "options.seed": Range(-(2**63), 2**64, whole=True),
    "history.*.epoch": COUNT,
    "history.*.images": COUNT,
    "history.*.loss": Range(-1e30, 1e30),
    "history.*.loss_error": Range(0, 1e30),
    "history.*.accuracy": FRACTION,
    "history.*.learning_rate": Range(0, 1e30, none=True),
    "history.*.seconds": Range(0, 1e12),
    "measures.*.confusion.*": COUNT,
}
JOINED = re.compile(r"joined\.\d+\.")  # further trunks, whose numbers are as those of the first
USUAL = Range(-1e30, 1e30)
ADVICE = "Train the model again, or copy it again."
MOST = 1 << 28  # numbers in the features of one image


def check(file: Path, description: Mapping[str, Any]) -> None:
    """Raise RefusedFile for the first number of a model's description, read from `file`, that is out of its range."""
    for path, value in _leaves(description, ""):
        name = JOINED.sub("trunk.", path)
        expected = next((RANGES[pattern] for pattern in RANGES if fnmatchcase(name, pattern)), None)
        number = isinstance(value, int | float) and not isinstance(value, bool) and value == value  # not NaN
        if not expected.has(value) if expected else number and not USUAL.has(value):
            raise RefusedFile(f"{file} has {path} = {repr(value)[:40]}; expected {expected or USUAL}. {ADVICE}")
    trunk, further = description["trunk"], description.get("joined", [])
    for shape in (trunk.get("tail_output_shape"), *(each.get("output_shape") for each in (trunk, *further))):
        if math.prod(shape or ()) > MOST:
            raise RefusedFile(f"{file} has features of shape {shape}; expected at most {MOST:,} numbers. {ADVICE}")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each value of nested JSON that holds no others, with its path: "trunk.preprocess.mean.0"."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
        return
    for name, item in inner:
        yield from _leaves(item, f"{path}.{name}" if path else str(name))


def scales(values: Any, count: int) -> tuple[float, ...]:
    """Return the scales of so many trunks; raise RefusedFile if they are not that many numbers above 0."""
    if len(values) != count or not all(isinstance(value, float) and 0 < value < math.inf for value in values):
        raise RefusedFile(
            f"The scales are {shorten(repr(values), 200)}; expected a number above 0 for each of {count} backbones."
        )
    return tuple(values)


def thresholds(values: Any, count: int) -> tuple[float, ...] | None:
    """Return the thresholds of so many labels, if there are any; raise RefusedFile if they are off."""
    if values is not None and (len(values) != count or not all(0 <= value <= 1 for value in values)):
        raise RefusedFile(
            f"The thresholds are {shorten(repr(values), 200)}; expected one from 0 to 1 for each of {count} labels."
        )
    return None if values is None else tuple(map(float, values))


def loss(description: Mapping[str, Any]) -> Loss:
    """Return the loss that a description names; raise RefusedFile if it names another one."""
    name, multilabel = description.get("name", "softmax"), description.get("several", False)
    if name not in ("softmax", "sigmoid") or not isinstance(multilabel, bool):
        raise RefusedFile(f"The loss is {name!r}; expected softmax or sigmoid.")
    return Loss(name, multilabel)


def check_classes(classes: tuple[Any, ...], least: int) -> None:
    """Raise RefusedFile for names of classes that are too few, equal, or not text."""
    if len(classes) < least or len(set(classes)) < len(classes) or not all(isinstance(name, str) for name in classes):
        raise RefusedFile(f"The classes are {shorten(repr(classes), 200)}; expected {least} or more different names.")
