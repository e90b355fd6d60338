"""OpenVINO imports its converter, with its frontends, whenever it is imported: 5 MB that a prediction does not need.

It does without, if the converter is not installed; so it is told that it is
not, and asks for it again when it is used. Then `openvino.convert_model` is what
it always is, for other users of the library in this process too.

Seen with OpenVINO 2026.4. It may go once the test of it says that `import
openvino` leaves the converter out.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

CONVERTER = "openvino.tools.ovc"


def import_without_converter() -> ModuleType:
    """Return OpenVINO; its converter is imported at the first use."""
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    sys.modules[CONVERTER] = None  # type: ignore[assignment]
    try:
        import openvino
    finally:
        del sys.modules[CONVERTER]
    openvino.__getattr__ = _converter
    return openvino  # type: ignore[no-any-return, unused-ignore]


def _converter(name: str) -> Any:
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    from openvino.tools.ovc import convert_model

    return convert_model
