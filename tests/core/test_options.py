"""Options: a dataclass is the signature, the checks and the names of a step's choices."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pytest

from regraft.core.errors import UnknownName, UsageError
from regraft.core.options import flag, make, merged, option, require, require_choice, takes_options


@dataclass(frozen=True, kw_only=True)
class Bread:
    slices: int = option(2, "how many")

    def __post_init__(self):
        require(self.slices > 0, "slices", self.slices, "one or more")


@dataclass(frozen=True, kw_only=True)
class Filling:
    with_cheese: str = option("brie", "which")

    def __post_init__(self):
        require_choice("with_cheese", self.with_cheese, ("brie", "gouda"))


@merged
@dataclass(frozen=True, kw_only=True)
class Sandwich(Bread, Filling):
    """Both."""


def test_a_merged_dataclass_makes_every_step_check_its_own():
    assert Sandwich(slices=1, with_cheese="gouda").slices == 1
    with pytest.raises(UsageError, match="--slices is 0; expected one or more"):
        Sandwich(slices=0)
    with pytest.raises(UnknownName, match="Did you mean 'gouda'"):
        Sandwich(with_cheese="guda")


def test_a_merged_dataclass_knows_its_annotations_as_types():
    assert inspect.signature(Sandwich).parameters["slices"].annotation is int


def test_an_option_that_is_not_there_is_named_with_the_nearest():
    assert make(Bread, {"slices": 3}) == Bread(slices=3)
    with pytest.raises(UnknownName, match=r"No option 'slice'\. Did you mean 'slices'"):
        make(Bread, {"slice": 3})


def test_a_function_shows_the_options_it_takes():
    @takes_options(Bread)
    def eat(who, **options):
        return who, options

    assert str(inspect.signature(eat)) == "(who, *, slices: 'int' = 2)"
    assert eat("me", slices=4) == ("me", {"slices": 4})


def test_a_flag_is_spelt_with_dashes():
    assert flag("batch_size") == "--batch-size"
