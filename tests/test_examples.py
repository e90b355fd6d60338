"""The examples: their options are options, and each runs on a small share of the photographs that it is about."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from regraft.core.options import make
from regraft.network import catalog
from regraft.pipeline.options import TrainOptions

FOLDER = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
DATA = os.environ.get("REGRAFT_DATA", "")
ABOUT = {  # which photographs an example is about
    "bottlenecks_and_middle_layers": "pokemon",
    "dirty_pictures_from_the_web": "pokemon",
    "feature_extraction_then_fine_tuning": "cats-dogs",
    "few_photographs_and_augmentation": "cats-dogs",
    "frozen_features_and_a_dense_head": "cifar10-half",
}
QUICK = {"epochs": 2, "tail_epochs": 1}


@pytest.fixture
def load(monkeypatch):
    """Import a script of the examples, as Python does when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield lambda name: importlib.import_module(name)
    for name in [*NAMES, "_recipe"]:
        sys.modules.pop(name, None)


def share(name: str, folder: Path, per_class: int) -> Path:
    """Write the first images of each class of a zip of photographs into a folder, and return that."""
    path = Path(DATA, f"{name}.zip")
    if not DATA or not path.is_file():
        pytest.skip(f"needs {name}.zip in the folder that REGRAFT_DATA names")
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(path) as archive:
        for member in sorted(name for name in archive.namelist() if not name.endswith("/")):
            folder = member.rpartition("/")[0]
            taken[folder] += 1
            if taken[folder] <= per_class:
                archive.extract(member, folder)
    return folder


def test_every_script_has_its_options_file_and_the_first_lesson_a_notebook():
    assert NAMES == sorted(ABOUT) == sorted(path.stem for path in FOLDER.glob("*.toml"))
    assert [path.stem for path in NOTEBOOKS] == ["frozen_features_and_a_dense_head"]


@pytest.mark.parametrize("name", NAMES)
def test_the_options_of_each_stage_are_options_with_either_weights(name, load):
    recipe = load("_recipe")
    script = str(FOLDER / f"{name}.py")
    for stage in recipe.stages(script):
        own = make(TrainOptions, recipe.options(script, stage, "hub"))
        installed = make(TrainOptions, recipe.options(script, stage))
        network, other = own.features.network, installed.features.network
        assert catalog.find(network.backbone).name == network.backbone
        assert (network.weights, other.weights, other.backbone) == ("hub", "builtin", "efficientnet_lite0")
        assert own.fit.head_options == installed.fit.head_options


def test_changes_win_over_the_file_and_given_weights_over_the_installed_ones(load):
    options = load("_recipe").options
    script = str(FOLDER / "frozen_features_and_a_dense_head.py")
    assert options(script, "frozen", size=64)["size"] == 64
    assert options(script, "frozen", "mine.h5")["weights"] == "mine.h5"
    assert options(script, "frozen", "mine.h5")["backbone"] == "inception_v3"


def test_an_error_is_one_line_without_a_traceback(load, monkeypatch, tmp_path):
    recipe, module = load("_recipe"), load("frozen_features_and_a_dense_head")
    monkeypatch.setattr(sys, "argv", ["example", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit, match=r"^frozen_features_and_a_dense_head\.py: .*nothing"):
        recipe.start(module.__file__, module.__doc__, module.main)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_runs_with_the_installed_weights_on_a_small_share_of_its_photographs(name, load, tmp_path, capsys):
    photographs = share(ABOUT[name], tmp_path / "photographs", per_class=12)
    reports = load(name).main(photographs, views=1, size=64, store=tmp_path / "store", **QUICK)
    assert [*reports] == [*load("_recipe").stages(str(FOLDER / f"{name}.py"))]
    printed = capsys.readouterr().out
    for stage, report in reports.items():
        assert f"{stage}: {report.accuracy:.1%}" in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_runs_with_its_own_network_at_its_own_size(name, load, tmp_path):
    photographs = share(ABOUT[name], tmp_path / "photographs", per_class=6)
    reports = load(name).main(photographs, "random", views=1, store=tmp_path / "store", **QUICK)
    for report in reports.values():
        assert len(report.probabilities) == report.evaluation.n


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_run_in_their_order(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
    assert (tmp_path / "my-model" / "model.json").exists()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_in_the_format_and_can_be_read_with_its_outputs_where_it_lies(path):
    nbformat = pytest.importorskip("nbformat", reason="the format of a notebook is checked by nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(cell.outputs for cell in cells[:-1])
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert not re.search(r"/(home|Users|root|tmp)/", json.dumps(outputs))
