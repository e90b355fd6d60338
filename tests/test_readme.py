"""Every example of the README runs, in a folder as the README describes it."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
import shutil
from pathlib import Path

import pytest

from regraft import cli
from tests.conftest import write_photo, write_photos

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """`photos`, `new.jpg` and `new-photos`, side by side."""
    folder = tmp_path_factory.mktemp("readme")
    photos = write_photos(folder / "photos")
    (photos / "red" / "notes.txt").write_text("taken in May")
    (photos / "red" / "half.png").write_bytes((photos / "red" / "000.png").read_bytes()[:2000])
    photo = write_photo(folder / "new.png", (30, 60, 200), seed=5000)
    photo.rename(folder / "new.jpg")  # without a JPEG's loss, which makes of noise a picture of another kind
    write_photos(folder / "new-photos", per_class=2, seed=6000)
    return folder


def test_the_commands_work_as_written(described, monkeypatch, capsys):
    monkeypatch.chdir(described)
    run(blocks("sh")[0])
    assert "blue" in capsys.readouterr().out
    assert (described / "report.html").exists() and (described / "predictions.csv").exists()


@pytest.mark.slow
def test_the_commands_for_more_work_as_written(described, monkeypatch, capsys):
    monkeypatch.chdir(described)
    run(blocks("sh")[1])
    assert "Would more photographs help?" in capsys.readouterr().out
    assert all((described / name).exists() for name in ("suspects.html", "compare.html", "tuned", "best"))


def run(block):
    for line in block.splitlines():
        program, *words = shlex.split(line, comments=True)
        assert program == "regraft"
        assert cli.main(words) == 0, line


def test_the_python_examples_work_as_written(described, monkeypatch, capsys):
    monkeypatch.chdir(described)
    shutil.rmtree(described / "my-model", ignore_errors=True)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "100.0%" in printed and "new.jpg  blue" in printed and "['blue']" in printed


def test_the_promised_number_of_lines_is_kept():
    shell, python = blocks("sh"), blocks("python")
    assert len(shell[0].splitlines()) == 5
    assert len(python[0].splitlines()) <= 10


def test_every_file_that_the_readme_points_to_is_there():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_flag_that_the_readme_names_exists(capsys):
    for command in ("train", "evaluate", "backbones", "inspect", "compare", "tune", "predict"):
        cli.main([command, "--help"])
    known = capsys.readouterr().out
    for flag in set(re.findall(r"--[a-z][a-z-]+", README)) - {"--help"}:
        assert flag in known, flag


def test_every_exit_code_is_in_the_pages():
    from regraft.core import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RegraftError)]
    page = (ROOT / "docs" / "options.md").read_text("utf-8").partition("## Exit codes")[2]
    listed = set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE))
    assert listed == {str(kind.exit_code) for kind in kinds} | {"0", "130"}


def with_examples():
    return [path for path in sorted((ROOT / "src" / "regraft").rglob("*.py")) if ">>>" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", with_examples(), ids=lambda path: path.stem)
def test_the_examples_in_docstrings_work(path, described, monkeypatch):
    monkeypatch.chdir(described)
    name = ".".join(("regraft", *path.relative_to(ROOT / "src" / "regraft").with_suffix("").parts))
    results = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert results.failed == 0 and results.attempted > 0
