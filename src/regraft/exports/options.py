"""Options of an export; nothing heavy is imported: the command line answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regraft.core import plugins
from regraft.core.options import Options, option, require_choice
from regraft.exports import formats


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """What a model becomes."""

    to: str = option("onnx", f"{', '.join(plugins.names(formats))}")
    precision: Literal["float32", "float16", "int8"] = option(
        "float32",
        "of the weights; float16 halves the file; int8 computes in whole numbers, smaller and faster, and needs "
        "images to calibrate on",
    )
    runtime: Path | None = option(None, "for web: the folder of onnxruntime-web, as npm has it")
    overwrite: bool = option(False, "replace an earlier export in the folder")

    def check(self) -> None:
        """Raise UnknownName for a format that does not exist."""
        require_choice("to", self.to, plugins.names(formats))
