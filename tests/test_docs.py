"""The pages of docs/: their commands, flags, cuts, links and Python examples are real ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import regraft
from regraft import cli
from regraft.network import catalog
from regraft.network.cut import list_cuts
from tests.conftest import PLAIN, write_photo
from tests.test_house import ROOMS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
COMING_FROM = ("coming-from-keras.md", "coming-from-torchvision.md")
TERMS = (
    *("epoch", "cut", "head", "augmentation", "calibration", "part", "backbone", "features"),
    *("cross-validation", "confidence interval"),
)


def text_of(page):
    return (DOCS / page).read_text("utf-8")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def commands(page):
    return [line for block in blocks(page, "sh") for line in block.splitlines()]


@pytest.mark.parametrize("line", sorted({line for page in PAGES for line in commands(page)}))
def test_every_command_is_understood_with_all_its_options(line):
    program, *words = shlex.split(line, comments=True)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    else:
        words = words[words.index("regraft") + 1 :] if program == "torchrun" else words
        assert program in ("regraft", "torchrun")
        cli.app.parse_args(words, exit_on_error=False, print_error=False)  # the options check themselves


def help_of_all_commands(capsys):
    for command in cli.app:
        if not command.startswith("-"):
            assert cli.main([command, "--help"]) == 0
    return capsys.readouterr().out


def ours(page):
    """Return what a page says of regraft: in those for users of other libraries, the second column of the tables."""
    if page not in COMING_FROM:
        return text_of(page)
    return "\n".join(line.split(" | ", 1)[-1] for line in text_of(page).splitlines() if line.startswith("| "))


def test_every_flag_that_a_page_names_exists(capsys):
    known = help_of_all_commands(capsys) + " --only --nproc-per-node"  # the examples' own, and torchrun's
    for page in PAGES:
        for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", ours(page))) - {"--help"}:
            assert re.search(rf"{flag}(?![\w-])", known), (page, flag)


def test_every_command_that_a_page_names_exists():
    for page in PAGES:
        assert set(re.findall(r"`regraft ([a-z-]+)", text_of(page))) <= set(cli.app), page


def test_every_cut_on_a_page_is_one_of_some_network():
    keras = {layer.name for entry in catalog.families() for layer in entry.layers}
    known = keras | {"input", "pooled", "C"}  # `--cut C` stands for any
    known |= {name for backbone in ("resnet50", "efficientnet_lite0") for name in list_cuts(catalog.build(backbone))}
    for page in PAGES:
        for names in re.findall(r"--(?:cuts?|end) ([\w.,-]+)", text_of(page)):
            for name in names.split(","):
                assert name in known or re.fullmatch(r"-?\d+|top-\d-stages?", name), (page, name)


def test_every_augmentation_on_a_page_is_one():
    from regraft.features.augmentation import find

    for page in PAGES:
        for policy in re.findall(r"--augmentation ([\w=.,]*\w)", text_of(page)):
            find(policy)


@pytest.mark.parametrize("page", [*PAGES, "../examples/README.md", "../benchmarks/README.md"])
def test_every_file_that_a_page_points_to_exists(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text_of(page)):
        assert (DOCS / page).parent.joinpath(target).exists(), target


def test_every_page_is_in_the_navigation_of_the_site():
    assert sorted(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)) == PAGES


def test_the_map_of_the_code_has_every_room_in_its_order():
    rows = re.findall(r"^\| (`.+?) \|", (ROOT / "ARCHITECTURE.md").read_text("utf-8"), re.MULTILINE)
    rooms = [name for row in rows for name in re.findall(r"`([a-z]+)", row)]
    assert tuple(rooms) == ROOMS


def test_each_term_is_explained_once():
    headings = [heading.lower() for heading in re.findall(r"^#+ (.+)$", text_of("terms.md"), re.MULTILINE)]
    assert [headings.count(term) for term in TERMS] == [1] * len(TERMS)


def test_the_reference_has_every_public_name():
    named = re.findall(r"^::: regraft\.(\w+)$", text_of("reference.md"), re.MULTILINE)
    assert sorted(named) == sorted(set(regraft.__all__) - {"__version__"})


@pytest.mark.parametrize("name", sorted(set(regraft.__all__) - {"__version__"}))
def test_no_docstring_holds_what_the_site_would_take_for_a_link_to_nowhere(name):
    assert "][" not in (getattr(regraft, name).__doc__ or "")


@pytest.fixture(scope="module")
def described(photos, tmp_path_factory):
    """Return a folder as the pages describe it: `photos`, `new.jpg` and a model of them."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "photos").symlink_to(photos)
    write_photo(folder / "new.jpg", (30, 60, 200), seed=5000)
    regraft.train(folder / "photos", folder / "my-model", size=96, views=0, **PLAIN)
    return folder


def pages_with_python():
    """Return the pages with examples; each export has tests of its own, and README the steps of the first model."""
    pages = [page for page in PAGES if blocks(page, "python")]
    slow = ("guide/exporting.md", "guide/first-model.md")
    return [pytest.param(page, marks=pytest.mark.slow) if page in slow else page for page in pages]


@pytest.mark.parametrize("page", pages_with_python())
def test_the_python_examples_of_a_page_work_as_written(page, described, monkeypatch, capsys):
    monkeypatch.chdir(described)
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), {})
    assert "blue" in capsys.readouterr().out


@pytest.mark.slow
def test_the_extraction_on_the_page_for_keras_gives_vgg19s_own_layer(photos, tmp_path, monkeypatch):
    import numpy as np

    (line,) = [line for line in commands("coming-from-keras.md") if " extract " in line]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(photos)
    assert cli.main([*shlex.split(line)[1:], "--engine", "torch", "--store", str(tmp_path / "store")]) == 0
    with np.load(tmp_path / "block4_pool.npz") as saved:
        assert saved["features"].shape == (36, 512, 4, 4)


def test_an_argument_of_a_docstring_becomes_one_of_the_reference():
    pytest.importorskip("griffe", reason="the reference is made by mkdocstrings: make docs")
    import importlib.util

    specification = importlib.util.spec_from_file_location("griffe_arguments", ROOT / "tools" / "griffe_arguments.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    text = (
        "Return it.\n\nfolder: where it is,\n    or was.\nname: what it is.\nRaises DataError.\n\nNote that it works."
    )
    assert module.rewritten(text, "Args") == (
        "Return it.\n\nArgs:\n    folder: where it is,\n        or was.\n    name: what it is.\n\n"
        "Raises DataError.\n\nNote that it works."
    )
