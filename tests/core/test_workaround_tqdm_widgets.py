from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

# What tqdm asks for to know that it is in a notebook.
IN_A_NOTEBOOK = """
import sys, types
shell = types.ModuleType("IPython")
shell.get_ipython = lambda: None
sys.modules.update({"ipykernel.zmqshell": types.ModuleType("ipykernel.zmqshell"), "IPython": shell})
"""


def output_in_a_notebook(script, package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    command = [sys.executable, "-c", IN_A_NOTEBOOK + script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


@pytest.mark.skipif(importlib.util.find_spec("ipywidgets") is not None, reason="ipywidgets are installed")
def test_tqdm_itself_warns_in_a_notebook_without_widgets():
    """If this fails, tqdm has put it right: see which version did, and what is left to work around."""
    assert "IProgress not found" in output_in_a_notebook("import tqdm.auto", "tqdm")


@pytest.mark.parametrize(
    ("package", "script"),
    [
        ("timm", "from regraft.network.workaround_torchvision_nms import import_timm; import_timm()"),
        ("huggingface_hub", "from regraft.network.weights import hub; hub._find('timm/none', '', ['none'])"),
        ("optuna", "from regraft.pipeline.tune_search import load_optuna; load_optuna()"),
    ],
    ids=["timm", "hub", "optuna"],
)
def test_nothing_that_regraft_imports_warns_in_a_notebook(package, script):
    assert output_in_a_notebook(f"{script}; assert 'tqdm.auto' in sys.modules", package) == ""
