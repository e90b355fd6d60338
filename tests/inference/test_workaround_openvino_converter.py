"""OpenVINO without its converter, until that is asked for."""

import subprocess
import sys

import pytest

from regraft.inference import workaround_openvino_converter
from regraft.inference.workaround_openvino_converter import CONVERTER

pytest.importorskip("openvino")

SETTLED = f"""
import sys
sys.modules.setdefault("openvino_telemetry", None)
from regraft.inference.workaround_openvino_converter import import_without_converter
openvino = import_without_converter()
assert import_without_converter() is openvino
before = {CONVERTER!r} in sys.modules
from openvino import convert_model
assert convert_model is openvino.convert_model is sys.modules[{CONVERTER!r}].convert_model
print(before, hasattr(openvino, "another"))
"""
AS_IT_IS = f"""
import sys
sys.modules.setdefault("openvino_telemetry", None)
import openvino
print({CONVERTER!r} in sys.modules)
"""


def printed(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_the_converter_is_imported_when_it_is_asked_for():
    assert printed(SETTLED) == "False False\n"


@pytest.mark.slow
def test_the_workaround_is_still_needed():
    needed = printed(AS_IT_IS) == "True\n"
    assert needed, f"OpenVINO leaves it out by itself: {workaround_openvino_converter.__name__} can be deleted."
