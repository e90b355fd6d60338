"""The choices of the fit step, and how a head's own choices are read.

Values as a caller or a command line gives them enter; checked options leave.
Nothing heavy is imported here: `regraft --help` reads this module.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from regraft.core import plugins
from regraft.core.errors import UnknownName
from regraft.core.options import option, require, require_choice
from regraft.core.rng import SeedOptions
from regraft.graft import heads, optimizers

T = TypeVar("T")

_WORDS = {"none": None, "true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class FitOptions(SeedOptions):
    """Choices of the fit step; the optimizer's and the epochs' hold for whatever goes through the loop."""

    head: str = option("linear", "what is trained on the features: linear or mlp")
    head_options: dict[str, Any] | None = option(None, "the head's own, such as --head-options.hidden 256 for mlp")
    optimizer: str = option("adam", f"{', '.join(optimizers.NAMES)}; the linear head alone needs none")
    learning_rate: float = option(1e-3, "learning rate, per step")
    epochs: int = option(100, "most epochs, passes over the training part")
    batch_size: int | Literal["all"] = option(32, "images a step; all: the whole training part")
    batchnorm: Literal["keep", "train"] = option(
        "keep", "BatchNorm's statistics above the cut: keep the pretrained ones, or train them too"
    )
    patience: int | None = option(10, "stop after so many epochs without a lower loss; none: never stop early")

    def __post_init__(self) -> None:
        require_choice("head", self.head, plugins.names(heads))
        require_choice("optimizer", self.optimizer, optimizers.NAMES)
        require(0 < self.learning_rate <= 1e6, "learning_rate", self.learning_rate, "a number above 0, at most 1e6")
        require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        size = self.batch_size
        require(size == "all" or (isinstance(size, int) and size >= 1), "batch_size", size, "1 or more, or all")
        require_choice("batchnorm", self.batchnorm, ("keep", "train"))
        require(self.patience is None or self.patience >= 1, "patience", self.patience, "1 or more, or none")
        _ = self.head_settings  # a head's options are checked with the rest, not when it is first fitted

    def rows_a_step(self, rows: int) -> int:
        """Return how many of so many training rows go into one step."""
        return max(1, rows) if self.batch_size == "all" else self.batch_size

    @property
    def head_settings(self) -> Any:
        """The head's own checked Options, made from `head_options`."""
        return read_options(plugins.load(heads, self.head).Options, self.head_options or {}, f"option of {self.head}")


def read_options(kind: type[T], values: Mapping[str, Any], what: str) -> T:
    """Make the options dataclass `kind` from `values`; strings of a command line and lists of JSON are converted.

    Raises UnknownName for a name that is no field of `kind`; `kind` itself refuses unfit values.
    """
    types = {field.name: field.type for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in types:
            raise UnknownName.of(what, name, types)
    return kind(**{name: value if types[name] == "str" else _literal(value) for name, value in values.items()})


def _literal(value: Any) -> Any:
    """Return what a string spells ("256,128" → (256, 128)), or the string where it spells nothing."""
    if isinstance(value, list):
        return tuple(value)
    if not isinstance(value, str):
        return value
    if value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return value
