"""The house rules of ARCHITECTURE.md, checked on the source itself."""

from __future__ import annotations

import ast
import collections
import dataclasses
import functools
import importlib
import inspect
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import regraft
from regraft.core import options

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "regraft"
ROOMS = (
    *("core", "data", "network", "inference", "features", "training", "model", "evaluation", "audit", "report"),
    *("exports", "pipeline", "serving", "mlflow", "estimator", "demo", "cli"),
)
APART = ({"estimator", "cli"}, {"estimator", "demo"})  # these meet only in the pipeline
LARGEST_ROOM = 1 / 5  # of the lines of the source
HEAVY = (
    *("torch", "timm", "sklearn", "scipy", "numpy", "PIL", "matplotlib", "pandas", "lmdb", "jinja2"),
    *("openvino", "nncf", "simplejpeg", "onnx", "onnxruntime", "onnxscript", "starlette", "uvicorn", "coremltools"),
)
MODULES = sorted(SOURCE.rglob("*.py"))


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(("regraft", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def room_of(name: str) -> str:
    return ([*name.split("."), ""])[1]


NAMES = {name_of(path): path for path in MODULES}


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Return the modules of regraft that a module imports anywhere in it, in functions too."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module and node.module.partition(".")[0] == "regraft":
                full = [f"{node.module}.{alias.name}" for alias in node.names]
                modules |= {name if name in NAMES else node.module for name in full}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names if alias.name in NAMES}
    return frozenset(modules - {name_of(path)})


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_its_own_room_and_those_above_it_only(path):
    room = room_of(name_of(path))
    if room in ("", "__main__"):
        return
    rooms = {room_of(name) for name in imports(path)}
    assert rooms <= set(ROOMS[: ROOMS.index(room) + 1])
    assert not any({room, *rooms} >= pair for pair in APART)


def test_no_two_files_import_each_other_in_a_chain_of_any_length():
    waiting = {name: imports(path) & NAMES.keys() for name, path in NAMES.items() if name != "regraft"}
    while waiting:
        ready = [name for name, needed in waiting.items() if not needed & waiting.keys()]
        assert ready, f"these import each other: {sorted(waiting)}"
        for name in ready:
            del waiting[name]


def test_no_room_is_more_than_a_fifth_of_the_source():
    lines = collections.Counter()
    for name, path in NAMES.items():
        lines[room_of(name)] += path.read_text("utf-8").count("\n")
    assert {room: count for room, count in lines.items() if count > LARGEST_ROOM * lines.total()} == {}


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
        "Audit",
        "Classifier",
        "Comparison",
        "Export",
        "FeatureClassifier",
        "Features",
        "Gallery",
        "History",
        "Hooks",
        "Index",
        "Inspection",
        "Model",
        "Prediction",
        "RegraftError",
        "Report",
        "Suggestions",
        "Sweep",
        "TrainingState",
        "Tuned",
        "UnitInspection",
        "__version__",
        "compare",
        "dataset",
        "evaluate",
        "explain",
        "export",
        "extract",
        "extractor",
        "fit",
        "groups",
        "inspect",
        "load",
        "lr_find",
        "predict",
        "read",
        "serve",
        "split",
        "suggest",
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
    """Return every options dataclass of the source, classes by reading its files."""
    classes = []
    for name, path in NAMES.items():
        if re.search(r"^class \w*Options\(Options\)", path.read_text("utf-8"), re.MULTILINE):
            module = importlib.import_module(name)
            kinds = [kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == name]
            classes += [kind for kind in kinds if issubclass(kind, options.Options)]
    return classes


def test_every_option_is_frozen_has_a_default_a_help_text_and_a_known_heading():
    kinds = option_classes()
    assert len(kinds) >= 12
    for kind in kinds:
        assert kind.__dataclass_params__.frozen
        assert all(field.kw_only for field in dataclasses.fields(kind))
        for name, field in options.fields(kind).items():
            assert field.default is not dataclasses.MISSING, (kind, name)
            assert field.help, (kind, name)
            assert field.group in options.GROUPS, (kind, name)


def test_each_default_is_written_once():
    """The steps of a command share no option but the seed, and the estimator writes none."""
    from regraft.pipeline.options import TrainOptions

    names = [field.name for step in steps_of(TrainOptions) for field in dataclasses.fields(step)]
    assert {name for name in names if names.count(name) > 1} == {"seed"}
    signature = inspect.signature(regraft.Classifier)
    assert {name: parameter.default for name, parameter in signature.parameters.items()} == {
        name: field.default for name, field in options.fields(TrainOptions).items()
    }


def steps_of(kind: type) -> list[type]:
    """Return the dataclasses of a command's steps that hold no further steps."""
    below = [type(field.default) for field in dataclasses.fields(kind) if dataclasses.is_dataclass(field.default)]
    return [step for each in below for step in (steps_of(each) or [each])]


def test_no_path_of_one_machine_stands_in_the_tree():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix in {".py", ".md", ".toml", ".txt", ".html", ""} and path != Path(__file__):
            assert not re.search(r"/(home|Users|work)/\w+", path.read_text("utf-8", errors="ignore")), name
