"""Options of what computes the frozen part; nothing heavy is imported: the command line answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.core import plugins
from regraft.core.options import Options, option, require_choice
from regraft.inference import engines


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    """What computes the frozen part, and in which precision."""

    GROUP = "Engine and store"

    engine: str = option("auto", "auto, openvino or torch")
    precision: Literal["auto", "float32", "bfloat16", "int8"] = option(
        "auto",
        "auto: bfloat16 where the processor is built for it and the features agree with float32, else float32; "
        "int8 loses some accuracy",
    )

    def check(self) -> None:
        """Raise UnknownName for an engine that does not exist."""
        require_choice("engine", self.engine, ("auto", *plugins.names(engines)))
