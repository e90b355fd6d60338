import json

import numpy as np
import pytest

from regraft.evaluation.learning_curve import LearningCurve, summarise
from regraft.evaluation.significance import Paired, corrected_t_test
from regraft.training.cross_validation import CurvePoints

LABELS = np.repeat([0, 1], [60, 40])
FOLDS = np.stack([np.random.default_rng(repeat).permutation(np.arange(100) % 5) for repeat in range(4)])


def curve(*recalls, spread=0.02):
    """Return a curve with about these recalls at each size: pairs, one number a class."""
    rng = np.random.default_rng(0)
    right = np.array(
        [[rng.random(100) < np.array(pair)[LABELS] + rng.normal(0, spread) for _ in FOLDS] for pair in recalls]
    )
    return CurvePoints(tuple(10 * 2**at for at in range(len(recalls))), LABELS, FOLDS, right)


def test_it_says_yes_and_for_which_class_where_the_last_doubling_helped():
    summary = summarise(curve((0.5, 0.2), (0.8, 0.3), (0.81, 0.95)), ("cat", "dog"), 100)
    assert summary.halved == 20 and summary.gain.outcome == "better"
    assert list(summary.gains) == ["dog", "cat"]
    assert [pair.outcome for pair in summary.gains.values()] == ["better", "undecided"]
    assert summary.text().startswith("Would more photographs help? Yes: training on 40 photographs instead of 20 ")
    assert "Recall rose most for dog (+" in summary.text() and "cat (" not in summary.text()
    assert "The lowest recall is that of cat" in summary.text()


def paired(difference, p_value):
    return Paired(difference=difference, low=difference / 2, high=2 * difference, p_value=p_value, basis="rounds")


def grown(**gains):
    """Errors of a half, then a quarter."""
    return LearningCurve(
        sizes=(10, 20),
        accuracy=(0.5, 0.75),
        low=(0.4, 0.7),
        high=(0.6, 0.8),
        recalls={"cat": (0.4, 0.8), "dog": (0.6, 0.7)},
        halved=10,
        gain=paired(0.25, 0.01),
        gains=gains,
    )


def test_a_class_is_named_with_a_doubt_where_none_stands_out():
    text = grown(cat=paired(0.4, 0.2), dog=paired(0.1, 1.0)).text()
    assert "Recall rose most for cat (+40.0), but for a single class that may be chance." in text


def test_twice_as_many_are_expected_to_lower_the_error_by_the_same_factor():
    """An eighth comes after a half and a quarter: 12.5 points more."""
    assert "about 12.5 points more" in grown(cat=paired(0.4, 0.01)).text()


def test_the_gain_is_that_of_the_same_rounds():
    made = curve((0.5, 0.5), (0.8, 0.3))
    rounds = [
        [right[repeat][FOLDS[repeat] == fold].mean() for repeat in range(4) for fold in range(5)]
        for right in made.correct
    ]
    assert summarise(made, ("cat", "dog"), 100).gain == corrected_t_test(*rounds, 0.2)


def test_it_says_hardly_where_nothing_is_left_to_gain():
    summary = summarise(curve((1, 1), (1, 1), spread=0), ("cat", "dog"), 100)
    assert summary.text().startswith("Would more photographs help? Hardly: ")
    assert {pair.difference for pair in summary.gains.values()} == {0}


def test_it_says_too_few_where_noise_would_hide_a_gain():
    summary = summarise(curve((0.80, 0.80), (0.81, 0.81), spread=0.05), ("cat", "dog"), 100)
    assert "Too few to tell" in summary.text()


def test_with_a_single_size_there_is_nothing_to_compare():
    summary = summarise(curve((0.8, 0.8)), ("cat", "dog"), 100)
    assert summary.gain is None and "too few to train on half of them" in summary.text()


def test_intervals_count_duplicates_once():
    """Wilson's interval of 25 of 50, as statsmodels.stats.proportion.proportion_confint gives it."""
    right = np.zeros((1, 4, 100), bool)
    right[:, :, ::2] = True
    summary = summarise(CurvePoints((80,), LABELS, FOLDS, right), ("cat", "dog"), 50)
    assert (summary.low[0], summary.high[0]) == pytest.approx((0.36645, 0.63355), abs=1e-4)


def test_the_dictionary_is_json():
    values = json.loads(json.dumps(summarise(curve((0.5, 0.2), (0.8, 0.3)), ("cat", "dog"), 100).to_dict()))
    assert values["sizes"] == [10, 20] and set(values["recalls"]) == {"cat", "dog"}
    assert values["gain"]["outcome"] == "better"
