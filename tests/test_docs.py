"""The pages for those who come from other libraries: every command and every flag on them is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from regraft import cli
from regraft.network import catalog
from regraft.network.cut import list_cuts

ROOT = Path(__file__).parents[1]
PAGES = ("coming-from-keras.md", "coming-from-torchvision.md")
COMMANDS = ("train", "extract", "evaluate", "predict", "inspect", "backbones", "compare", "tune")


def text_of(page):
    return (ROOT / "docs" / page).read_text("utf-8")


def commands(page):
    blocks = re.findall(r"^```sh\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def tables(page):
    return [line for line in text_of(page).splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("line", [line for page in PAGES for line in commands(page)])
def test_every_command_is_understood_with_all_its_options(line):
    program, *words = shlex.split(line)
    assert program == "regraft"
    cli.app.parse_args(words, exit_on_error=False, print_error=False)  # the options check themselves


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_a_page_names_is_there(page, capsys):
    for command in COMMANDS:
        assert cli.main([command, "--help"]) == 0
    known = capsys.readouterr().out
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours(page))):
        assert flag in known, flag


def ours(page):
    """What a page says of regraft: the second column of its tables."""
    return "\n".join(line.split(" | ", 1)[-1] for line in tables(page))


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_names_is_there(page):
    named = set(re.findall(r"`regraft ([a-z-]+)", text_of(page)))
    assert named <= set(cli.app)


@pytest.mark.parametrize("page", PAGES)
def test_every_cut_on_a_page_is_one_of_some_network(page):
    keras = {layer.name for entry in catalog.families() for layer in entry.layers}
    known = keras | {"input", *list_cuts(catalog.build("resnet50"))}
    for name in re.findall(r"--(?:cut|end) ([\w.-]+)", text_of(page)):
        assert name in known or re.fullmatch(r"-?\d+|top-\d-stages?", name), name


@pytest.mark.parametrize("page", PAGES)
def test_every_augmentation_on_a_page_is_one(page):
    from regraft.features.augmentation import find

    for policy in re.findall(r"--augmentation ([\w=.,]+)", text_of(page)):
        find(policy)


@pytest.mark.parametrize("page", [*PAGES, "../examples/README.md"])
def test_every_file_that_a_page_points_to_is_there(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", text_of(page)):
        assert (ROOT / "docs" / page).parent.joinpath(target).exists(), target


def test_the_extraction_on_the_page_for_keras_gives_vgg19s_own_layer(photos, tmp_path, monkeypatch):
    import numpy as np

    (line,) = [line for line in commands(PAGES[0]) if " extract " in line]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    assert cli.main([*shlex.split(line)[1:], "--engine", "torch", "--store", str(tmp_path / "store")]) == 0
    with np.load(tmp_path / "block4_pool.npz") as saved:
        assert saved["features"].shape == (36, 512, 4, 4)
