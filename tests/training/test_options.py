import json
import subprocess
import sys

import pytest

from regraft.core.errors import UnknownName, UsageError
from regraft.training.heads import linear, mlp
from regraft.training.options import FitOptions, read_options


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0},
        {"learning_rate": float("inf")},
        {"learning_rate": float("nan")},
        {"epochs": 0},
        {"batch_size": 0},
        {"batch_size": "some"},
        {"patience": 0},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"warm_up": -1},
        {"minimum_gain": -0.1},
        {"minimum_gain": float("nan")},
        {"target_accuracy": 98},
        {"target_accuracy": 0},
        {"minutes": 0},
        {"tail_learning_rate": 0},
        {"tail_epochs": 0},
        {"layer_decay": 0},
        {"layer_decay": 1.1},
        {"unfreeze_every": 0},
        {"schedule_options": {"floor": 0.1}, "schedule": "auto"},
        {"head": "mlp", "head_options": {"hidden": 0}},
        {"head": "mlp", "head_options": {"hidden": "wide"}},
        {"head": "mlp", "head_options": {"hidden": ()}},
        {"head": "mlp", "head_options": {"dropout": 1.0}},
        {"head": "linear", "head_options": {"regularisation": -1}},
        {"head": "linear", "head_options": {"regularisation": "strong"}},
    ],
)
def test_an_invalid_value_is_refused_by_its_flag(wrong):
    name = "schedule" if "schedule" in wrong else next(iter(wrong.get("head_options", wrong))).replace("_", "-")
    with pytest.raises(UsageError, match=f"--{name} is .*expected"):
        FitOptions(**wrong)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ({"head": "liner"}, "linear"),
        ({"optimizer": "adaam"}, "adam"),
        ({"optimizer_options": {"momentun": 0.9}, "optimizer": "sgd"}, "momentum"),
        ({"schedule": "cosin"}, "cosine"),
        ({"schedule": "cosine", "schedule_options": {"flor": 0}}, "floor"),
        ({"loss": "sigmoidal"}, "sigmoid"),
        ({"balance": "weight"}, "weights"),
        ({"watch": "acuracy"}, "accuracy"),
        ({"phases": "head,tial"}, "head,tail"),
        ({"batchnorm": "kep"}, "keep"),
        ({"head": "mlp", "head_options": {"hiden": 3}}, "hidden"),
        ({"head_options": {"dropout": 0.1}}, "regularisation"),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(wrong, near):
    with pytest.raises(UnknownName, match=near):
        FitOptions(**wrong)


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ({"hidden": "256,128"}, mlp.Options(hidden=(256, 128))),
        ({"hidden": "64"}, mlp.Options(hidden=64)),
        ({"hidden": [256, 128]}, mlp.Options(hidden=(256, 128))),
        ({"hidden": (8,), "dropout": "0.25"}, mlp.Options(hidden=(8,), dropout=0.25)),
    ],
)
def test_head_options_are_read_from_words_and_from_json(values, read):
    assert FitOptions(head="mlp", head_options=values).head_settings == read


@pytest.mark.parametrize(("word", "value"), [("none", None), ("None", None), ("1e-3", 0.001), (" 10 ", 10)])
def test_a_word_is_read_as_the_value_that_it_spells(word, value):
    assert read_options(linear.Options, {"regularisation": word}, "option") == linear.Options(regularisation=value)


def test_optimizer_and_schedule_options_are_read_from_words_and_from_json():
    values = {"optimizer_options": {"betas": "0.8,0.9", "amsgrad": "true"}, "schedule": "cosine"}
    options = FitOptions(**values, schedule_options={"floor": "1e-5"})
    assert options.optimizer_settings == {"betas": (0.8, 0.9), "amsgrad": True}
    assert options.schedule_settings.floor == 1e-5
    assert FitOptions(optimizer_options={"betas": [0.8, 0.9]}).optimizer_settings == {"betas": (0.8, 0.9)}


@pytest.mark.parametrize(("size", "rows"), [(32, 32), ("all", 70)])
def test_a_step_takes_as_many_rows_as_the_options_say(size, rows):
    assert FitOptions(batch_size=size).rows_a_step(70) == rows


def test_options_are_json_able_but_for_nothing():
    import dataclasses

    options = FitOptions(head="mlp", head_options={"hidden": [4, 2]}, schedule="step", schedule_options={"every": 3})
    assert FitOptions(**json.loads(json.dumps(dataclasses.asdict(options)))) == options


def test_reading_options_imports_nothing_heavy():
    code = (
        "import sys; from regraft.training.options import FitOptions; FitOptions(head='mlp'); FitOptions();"
        "print([name for name in ('torch', 'sklearn', 'numpy', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
