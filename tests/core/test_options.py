"""Options: a dataclass is the signature, the checks and the names of a step's choices."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from regraft.core.errors import UnknownName, UsageError
from regraft.core.options import (
    Options,
    change,
    estimator_options,
    fields,
    flag,
    flat,
    make,
    option,
    require,
    require_choice,
    select,
    step,
    store_options,
    takes_options,
    words,
)


@dataclass(frozen=True, kw_only=True)
class Bread(Options):
    GROUP = "Images"

    slices: int = option(2, "how many")
    seed: int = option(0, "seed of everything", "Main options")

    def check(self):
        require(self.slices > 0, "slices", self.slices, "one or more")


@dataclass(frozen=True, kw_only=True)
class Filling(Options):
    with_cheese: str = option("brie", "which", "Search")
    seed: int = option(0, "seed of everything", "Main options")

    def check(self):
        require_choice("with_cheese", self.with_cheese, ("brie", "gouda"))


@dataclass(frozen=True, kw_only=True)
class Sandwich(Options):
    bread: Bread = step(Bread)
    filling: Filling = step(Filling)

    def check(self):
        require(self.bread.slices > 1 or self.filling.with_cheese == "brie", "slices", self.bread.slices, "two or more")


@dataclass(frozen=True, kw_only=True)
class Kinds(Options):
    whole: int = option(1, "")
    maybe: int | None = option(None, "")
    number: float = option(0.5, "")
    text: str = option("a", "")
    switch: bool = option(False, "")
    path: Path | None = option(None, "")
    word: Literal["loss", "accuracy"] = option("loss", "")
    either: int | Literal["auto"] = option("auto", "")
    more: dict[str, Any] | None = option(None, "")


def test_options_of_several_steps_are_made_from_flat_values_and_each_step_checks_its_own():
    assert make(Sandwich, {"slices": 3, "with_cheese": "gouda"}).bread.slices == 3
    with pytest.raises(UsageError, match="--slices is 0; expected one or more"):
        make(Sandwich, {"slices": 0})
    with pytest.raises(UnknownName, match="Did you mean 'gouda'"):
        make(Sandwich, {"with_cheese": "guda"})
    with pytest.raises(UsageError, match="--slices is 1; expected two or more"):
        make(Sandwich, {"slices": 1, "with_cheese": "gouda"})


def test_an_option_that_several_steps_have_is_one_word_for_all():
    made = make(Sandwich, {"seed": 7})
    assert (made.bread.seed, made.filling.seed) == (7, 7)
    assert flat(made) == {"slices": 2, "seed": 7, "with_cheese": "brie"}
    assert flat(change(made, seed=8, slices=5)) == {"slices": 5, "seed": 8, "with_cheese": "brie"}


def test_the_options_of_one_kind_are_selected_from_those_of_another():
    assert select(Bread, make(Sandwich, {"slices": 4, "seed": 1})) == Bread(slices=4, seed=1)
    assert select(Sandwich, Filling(with_cheese="gouda", seed=3)).filling.with_cheese == "gouda"


def test_each_option_is_known_with_its_type_its_help_and_its_heading():
    known = fields(Sandwich)
    assert list(known) == ["slices", "seed", "with_cheese"]
    assert known["slices"] == (2, int, "how many", "Images")
    assert [known[name].group for name in known] == ["Images", "Main options", "Search"]


def test_an_option_that_does_not_exist_is_named_with_the_nearest():
    assert make(Bread, {"slices": 3}) == Bread(slices=3)
    with pytest.raises(UnknownName, match=r"No option 'slice'\. Did you mean 'slices'"):
        make(Bread, {"slice": 3})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("whole", "x", "a whole number"),
        ("whole", 2.7, "a whole number"),
        ("whole", 2.0, "a whole number"),
        ("whole", True, "a whole number"),
        ("whole", None, "a whole number"),
        ("maybe", "x", "a whole number or none"),
        ("number", "0.5", "a number"),
        ("number", False, "a number"),
        ("text", 3, "text"),
        ("switch", 1, "True or False"),
        ("path", 3, "a path or none"),
        ("word", 3, "'loss' or 'accuracy'"),
        ("either", 150.5, "a whole number or 'auto'"),
        ("either", "many", "a whole number or 'auto'"),
        ("more", "a=1", "a dictionary or none"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_in_words(name, value, expected):
    with pytest.raises(UsageError) as caught:
        Kinds(**{name: value})
    assert str(caught.value) == f"--{name} is {value!r}; expected {expected}."


def test_a_word_that_is_not_among_the_choices_is_named_with_the_nearest():
    with pytest.raises(UnknownName, match=r"No value of --word 'los'\. Did you mean 'loss'\?"):
        Kinds(word="los")


def test_numbers_of_numpy_become_pythons_and_texts_become_paths():
    kinds = Kinds(whole=np.int64(3), number=np.float32(0.25), maybe=np.uint8(2), path="folder")
    assert (kinds.whole, type(kinds.whole), kinds.number, type(kinds.number)) == (3, int, 0.25, float)
    assert (kinds.maybe, type(kinds.maybe), kinds.path) == (2, int, Path("folder"))
    assert type(Kinds(number=1).number) is int  # as it was given


def test_a_function_takes_options_flat_or_made_and_its_help_explains_each():
    @takes_options(Sandwich)
    def eat(who, *, napkin=False, options):
        """Eat."""
        return who, napkin, options

    assert str(inspect.signature(eat)) == (
        "(who, *, napkin=False, slices: int = 2, seed: int = 0, with_cheese: str = 'brie')"
    )
    made = make(Sandwich, {"slices": 4})
    assert eat("me", slices=4) == ("me", False, made) == eat("me", options=made)
    assert eat("me", napkin=True)[1]
    assert eat.__doc__ == "Eat.\n\nOptions:\n\nslices: how many\nseed: seed of everything\nwith_cheese: which"
    with pytest.raises(UnknownName, match="No option 'slice'"):
        eat("me", slice=1)


def test_an_estimator_shows_and_stores_its_options():
    class Eater:
        @estimator_options(Bread)
        def __init__(self, **options):
            store_options(self, options)

    assert str(inspect.signature(Eater)) == "(*, slices: int = 2, seed: int = 0)"
    assert vars(Eater(slices=3)) == {"slices": 3, "seed": 0}


def test_a_flag_is_spelt_with_dashes():
    assert flag("batch_size") == "--batch-size"
    assert flag("continue_") == "--continue"


def test_the_words_of_options_are_those_that_are_not_defaults_and_give_them_again():
    assert words(Sandwich, flat(Sandwich())) == []
    assert words(Sandwich, {"slices": 3, "with_cheese": "brie", "unknown": 1}) == ["--slices", "3"]


def test_a_flag_an_absent_value_and_a_plug_ins_own_options_have_their_words():
    from regraft.pipeline.options import TrainOptions

    values = {"tail": True, "patience": None, "head": "mlp", "head_options": {"hidden": 256, "dropout": None}}
    assert words(TrainOptions, values) == [
        *("--tail", "--patience", "none", "--head", "mlp"),
        *("--head-options.hidden", "256", "--head-options.dropout", "none"),
    ]


def test_a_value_of_any_length_is_refused_in_a_short_line():
    with pytest.raises(UsageError) as caught:
        make(Sandwich, {"slices": ["many"] * 10_000})
    assert len(str(caught.value)) < 300 and str(caught.value).endswith("expected a whole number.")
