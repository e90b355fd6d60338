import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.network.workaround_torchvision_nms import import_timm


def run(script, folder):
    """Run a script in a fresh interpreter, which takes torchvision from `folder` if it is there: no operator that
    torch.library declares can be taken back."""
    command = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, sys.argv[1])\n{script}", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def without_compiled_part(tmp_path_factory):
    """A folder with the installed torchvision, but for its compiled part: as where that was built for another torch."""
    installed = Path(importlib.util.find_spec("torchvision").origin).parent
    unwanted = shutil.ignore_patterns("*.so", "*.dylib", "*.pyd", "__pycache__")
    folder = tmp_path_factory.mktemp("packages")
    shutil.copytree(installed, folder / "torchvision", ignore=unwanted)
    return folder


@pytest.mark.slow
def test_torchvision_itself_fails_without_its_compiled_part(without_compiled_part):
    """If this fails, torchvision has put it right: see which version did, and what is left to work around."""
    script = """
try:
    import torchvision
except RuntimeError as error:
    assert "operator torchvision::nms does not exist" in str(error), error
else:
    raise AssertionError("it imports")
"""
    run(script, without_compiled_part)


IMPORTED = """
from regraft.network.workaround_torchvision_nms import ensure_torchvision, import_timm
ensure_torchvision()
ensure_torchvision.cache_clear()
ensure_torchvision()
import torchvision.transforms
assert torchvision.__file__.startswith(sys.argv[1])
assert not torchvision.extension._has_ops()
"""


def test_timm_is_imported_beside_a_torchvision_without_its_compiled_part(without_compiled_part):
    run(IMPORTED + 'assert "resnet50" in import_timm().list_models()', without_compiled_part)


@pytest.mark.slow
def test_a_torchvision_that_failed_to_import_is_imported_after_all(without_compiled_part):
    run("try: import torchvision\nexcept RuntimeError: pass\n" + IMPORTED, without_compiled_part)


def test_the_installed_torchvision_is_imported_with_timm():
    assert import_timm() is import_timm()
    assert importlib.import_module("torchvision.transforms")


@pytest.mark.slow
def test_a_torchvision_that_has_its_operators_keeps_them(tmp_path):
    package = """
import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
torch.library.impl("torchvision::nms", "CPU")(lambda dets, scores, threshold: torch.tensor([7]))
torch.library.register_fake("torchvision::nms")(lambda dets, scores, threshold: dets)
"""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(package)
    script = """
from regraft.network.workaround_torchvision_nms import ensure_torchvision
ensure_torchvision()
import torch
assert torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).tolist() == [7]
"""
    run(script, tmp_path)


def test_nothing_is_imported_where_there_is_no_torchvision(tmp_path):
    script = """
import importlib.machinery
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None, real=importlib.machinery.PathFinder.find_spec:
        None if name == "torchvision" else real(name, path, target)
)
from regraft.network.workaround_torchvision_nms import ensure_torchvision
ensure_torchvision()
assert "torch" not in sys.modules
"""
    run(script, tmp_path)


def test_another_error_of_torchvision_is_not_hidden(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('something else')")
    script = """
from regraft.network.workaround_torchvision_nms import ensure_torchvision
try:
    ensure_torchvision()
except RuntimeError as error:
    assert str(error) == "something else"
else:
    raise AssertionError
"""
    run(script, tmp_path)
