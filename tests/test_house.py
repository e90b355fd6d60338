"""The house rules of ARCHITECTURE.md, checked on the source itself."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import regraft

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "regraft"
LAYERS = (
    "core",
    "data",
    "network",
    "features",
    "training",
    "model",
    "evaluation",
    "audit",
    "report",
    "pipeline",
    "estimator",
    "demo",
    "cli",
)
FOLDERS = LAYERS[:6]
APART = ({"estimator", "cli"}, {"estimator", "demo"})  # these meet only in the pipeline
HEAVY = (
    *("torch", "timm", "sklearn", "scipy", "numpy", "PIL", "matplotlib", "pandas", "lmdb", "jinja2"),
    *("openvino", "nncf", "simplejpeg"),
)
MODULES = sorted(SOURCE.rglob("*.py"))


def layer_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported_layers(path: Path) -> set[str]:
    """Return the layers of regraft that a module imports anywhere in it, by a reading of its own."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "regraft":
                found |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("regraft."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("regraft.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_its_own_folder_and_those_above_it_only(path):
    layer = layer_of(path)
    if layer in ("__init__", "__main__"):
        return
    found = imported_layers(path)
    assert found <= set(LAYERS[: LAYERS.index(layer) + 1])
    assert not any({layer, *found} >= pair for pair in APART)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_has_a_docstring_and_at_most_400_lines(path):
    text = path.read_text("utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert text.count("\n") <= 400


def test_functions_are_small():
    lengths = sorted(
        node.end_lineno - node.lineno + 1
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    )
    assert statistics.median(lengths) <= 10
    assert lengths[int(len(lengths) * 0.95)] <= 40


def test_the_public_names_are_these():
    assert sorted(regraft.__all__) == [
        "Classifier",
        "FeatureClassifier",
        "Features",
        "Index",
        "Model",
        "RegraftError",
        "Report",
        "__version__",
        "compare",
        "evaluate",
        "extract",
        "fit",
        "inspect",
        "load",
        "lr_find",
        "predict",
        "read",
        "split",
        "train",
        "tune",
    ]
    for name in regraft.__all__:
        assert getattr(regraft, name) is not None


def test_no_heavy_library_is_imported_by_the_package_or_the_help():
    script = (
        "import sys, regraft, regraft.cli; regraft.cli.main(['train', '--help']);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stderr.strip() == "[]"


def option_classes() -> list[type]:
    """Return every options dataclass of the source, found by reading its files."""
    found = []
    for path in MODULES:
        if re.search(r"^class \w*Options", path.read_text("utf-8"), re.MULTILINE):
            name = ".".join(("regraft", *path.relative_to(SOURCE).with_suffix("").parts))
            module = importlib.import_module(name)
            found += [
                kind
                for kind in vars(module).values()
                if inspect.isclass(kind) and kind.__module__ == name and kind.__name__.endswith("Options")
            ]
    return found


def test_every_option_is_frozen_has_a_default_and_a_help_text():
    kinds = option_classes()
    assert len(kinds) >= 6
    for kind in kinds:
        assert kind.__dataclass_params__.frozen
        for field in dataclasses.fields(kind):
            assert field.kw_only
            assert field.default is not dataclasses.MISSING, (kind, field.name)
            assert field.metadata.get("help"), (kind, field.name)


def test_each_default_is_written_once():
    """No option name is declared by two dataclasses that one command merges, and the estimator writes none."""
    from regraft.pipeline.options import TrainOptions

    declared = [name for kind in TrainOptions.__mro__ for name in vars(kind).get("__annotations__", {})]
    assert len(declared) == len(set(declared))
    signature = inspect.signature(regraft.Classifier)
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == {
        field.name: field.default for field in dataclasses.fields(TrainOptions)
    }


def test_no_path_of_one_machine_stands_in_the_tree():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".txt", ".html", ""} and path != Path(__file__):
            assert not re.search(r"/(home|Users|work)/\w+", path.read_text("utf-8", errors="ignore")), name
