import subprocess
import sys

import pytest

# Each runs in a fresh interpreter: what torch.library declares can't be taken back.
BROKEN_BEFORE = """
try:
    import torchvision
except RuntimeError:
    pass
from regraft.network.workaround_torchvision_nms import import_timm
assert "resnet50" in import_timm().list_models()
import torchvision
"""
TWICE = """
from regraft.network.workaround_torchvision_nms import ensure_torchvision, import_timm
ensure_torchvision()
ensure_torchvision.cache_clear()
ensure_torchvision()
import torchvision.transforms
assert import_timm() is import_timm()
"""
HEALTHY = """
import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
torch.library.impl("torchvision::nms", "CPU")(lambda dets, scores, threshold: torch.tensor([7]))
from regraft.network.workaround_torchvision_nms import ensure_torchvision
ensure_torchvision()
import torchvision
assert torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).tolist() == [7]
"""
ABSENT = """
import importlib.machinery, sys
importlib.machinery.PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None, real=importlib.machinery.PathFinder.find_spec:
        None if name == "torchvision" else real(name, path, target)
)
from regraft.network.workaround_torchvision_nms import ensure_torchvision
ensure_torchvision()
assert "torch" not in sys.modules
"""
OTHERWISE_BROKEN = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
folder = pathlib.Path(sys.argv[1], "torchvision")
folder.mkdir()
(folder / "__init__.py").write_text("raise RuntimeError('something else')")
from regraft.network.workaround_torchvision_nms import ensure_torchvision
try:
    ensure_torchvision()
except RuntimeError as error:
    assert str(error) == "something else"
else:
    raise AssertionError
"""


@pytest.mark.parametrize("script", [BROKEN_BEFORE, TWICE, HEALTHY, ABSENT, OTHERWISE_BROKEN])
def test_torchvision_is_repaired_only_where_its_operators_are_missing(script, tmp_path):
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
