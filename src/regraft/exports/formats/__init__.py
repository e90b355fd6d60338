"""The formats: one file each, its name the value of `--to`.

A file has PRECISIONS, those that it can be written in; MODULES, what it imports beyond regraft's own needs, and EXTRA,
the extra of regraft that installs these; VERSIONS, the packages whose versions its certificate names; `write` and
`load`. What else stands in its folder, README and example, are the files of `templates/<name>/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from regraft.data.index import Row
    from regraft.exports.whole import Whole
    from regraft.model.model import Model

Run = Callable[["np.ndarray"], "np.ndarray"]  # pixels (H, W, 3) uint8 → probabilities (n_classes,)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be written.

    model, card: the model, and what there is to say of it, as Markdown.
    whole:       the model as a module.
    precision:   one of the format's PRECISIONS.
    about:       the classes, the preprocessing, versions: what `export.json` says, JSON-able.
    calibration: images for int8, which can be decoded.
    runtime:     the folder of a runtime that is to be written beside it.
    """

    model: Model
    card: str
    whole: Whole
    precision: str
    about: dict[str, Any]
    calibration: Sequence[Row] = ()
    runtime: Path | None = None


class Format(Protocol):
    """What a file of this folder is."""

    PRECISIONS: Sequence[str]
    MODULES: Sequence[str]
    EXTRA: str
    VERSIONS: Sequence[str]

    def check(self, runtime: Path | None) -> None:
        """Raise UsageError if the folder of the runtime is not what is needed; one that needs none has no `check`."""

    def write(self, plan: Plan, folder: Path) -> None:
        """Write the model into a folder."""

    def load(self, folder: Path) -> Run:
        """Return what runs the written model, in a runtime of the format's own."""
