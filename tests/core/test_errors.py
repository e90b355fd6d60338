"""Errors: the tree, its exit codes, and what a wrong name is answered."""

from __future__ import annotations

import re

import pytest

from regraft.core import errors
from regraft.core.errors import RegraftError, UnknownName

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RegraftError)]


def test_the_tree_drawn_at_the_top_of_the_module_is_the_tree():
    drawn = dict(re.findall(r"^[│├└─ ]*(\w+) +(\d)", errors.__doc__, re.MULTILINE))
    assert drawn == {kind.__name__: str(kind.exit_code) for kind in KINDS}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("liner", "No head 'liner'. Did you mean 'linear'?"),
        ("xyz", "No head 'xyz'. Known: linear, mlp. Try again."),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_or_with_all(name, expected):
    assert str(UnknownName.of("head", name, ["mlp", "linear"], "Try again.")).startswith(expected)


def test_a_long_list_is_not_recited():
    assert (
        str(UnknownName.of("backbone", "zzz", map(str, range(1000)), "List them.")) == "No backbone 'zzz'. List them."
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_fits_on_a_screen_whatever_it_names_and_its_arguments_are_whole(kind):
    message = f"The classes are {', '.join(map(str, range(20_000)))}; expected two."
    error = kind(message)
    assert len(str(error)) < 2500
    assert str(error).startswith("The classes are 0, 1, 2") and str(error).endswith("19999; expected two.")
    assert error.args == (message,)
