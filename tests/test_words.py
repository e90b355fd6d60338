"""The check of words: what it reports, and what it leaves alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "words.py"


@pytest.fixture(scope="module")
def tool():
    specification = importlib.util.spec_from_file_location("words", TOOL)
    module = importlib.util.module_from_spec(specification)
    sys.modules["words"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["words"]


def words(tool, monkeypatch, folder, text, name="module.py"):
    monkeypatch.setattr(tool, "ROOT", folder)
    (folder / name).write_text(text, "utf-8")
    return [(hit.line, hit.word) for hit in tool.hits(folder / name)]


@pytest.mark.parametrize(
    "text",
    [
        "found = 1\n",
        "def f(judged_rows): ...\n",
        "self.shares = 1\n",
        "class FilePlace: ...\n",
        "for told in []: ...\n",
        "with open(a) as given: ...\n",
        "import numpy as said\n",
        "[f(squares) for squares in a]\n",
    ],
)
def test_a_private_word_in_a_name_is_reported_where_the_name_is_bound(tool, monkeypatch, tmp_path, text):
    assert [line for line, _ in words(tool, monkeypatch, tmp_path, text)] == [1]


@pytest.mark.parametrize(
    "text",
    [
        "replaced = found.place\n",
        "sum_of_squares = f(given=1)\n",
        "x = 'The file was not found; several are given, as said. It is still in place.'\n",
        "def test_what_is_found_is_said(): ...\n",
        "# a sum of squares, the squares of the weights\n",
    ],
)
def test_plain_english_and_names_of_others_are_left_alone(tool, monkeypatch, tmp_path, text):
    assert words(tool, monkeypatch, tmp_path, text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\ny = f'{x} leads ' 'out of it'\n", (2, "leads out of")),
        ("x = 1\n# what the\n# trunk says\n", (3, "trunk says")),
        ("def test_it_is_judged(): ...\n", (1, "judged")),
    ],
)
def test_a_private_phrase_is_reported_in_strings_comments_and_test_names(tool, monkeypatch, tmp_path, text, expected):
    assert words(tool, monkeypatch, tmp_path, text) == [expected]


def test_a_phrase_is_reported_over_the_end_of_a_line_of_markdown(tool, monkeypatch, tmp_path):
    assert words(tool, monkeypatch, tmp_path, "Some\ncan't be\nhad.\n", "page.md") == [(2, "can't be had")]
