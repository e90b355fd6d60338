from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from regraft.core.errors import DataError, UsageError
from regraft.evaluation.significance import Paired, paired, paired_repeats


def answers(both, gained, lost, neither):
    """Return which images A and B got right, with these counts."""
    a = [True] * both + [False] * gained + [True] * lost + [False] * neither
    b = [True] * both + [True] * gained + [False] * lost + [False] * neither
    order = np.random.default_rng(0).permutation(len(a))
    return np.array(a)[order], np.array(b)[order]


@pytest.mark.parametrize(
    ("table", "difference", "low", "high", "p_value"),
    [
        ((1, 7, 1, 12), 0.2857, 0.026, 0.507, 0.070),  # Fagerland, Lydersen, Laake 2014, doi:10.1002/sim.6148 …
        ((14, 5, 0, 22), 0.122, 0.011, 0.226, 0.0625),  # Altman et al. 2000, Statistics with Confidence, table 6.2
    ],
)
def test_the_interval_and_the_p_value_are_the_published_ones(table, difference, low, high, p_value):
    found = paired(*answers(*table))
    assert found.difference == pytest.approx(difference, abs=5e-4)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-4)
    assert found.p_value == pytest.approx(p_value, abs=5e-4)


def test_the_p_value_counts_the_ways_in_which_coins_fall_at_least_as_unevenly():
    for gained, lost in product(range(7), range(7)):
        flips = list(product([0, 1], repeat=gained + lost))
        uneven = [abs(2 * sum(flip) - len(flip)) >= abs(gained - lost) for flip in flips]
        assert paired(*answers(3, gained, lost, 4)).p_value == pytest.approx(np.mean(uneven))


def test_the_other_way_round_is_the_mirror_image():
    a, b = answers(50, 20, 3, 10)
    one, other = paired(a, b), paired(b, a)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert one.p_value == other.p_value
    assert (one.outcome, other.outcome) == ("better", "worse")


def test_the_interval_holds_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    shares = [0.75, 0.12, 0.05, 0.08]  # both, gained, lost, neither: B is better by 0.07
    tables = rng.multinomial(80, shares, 400)
    found = [paired(*answers(*table)) for table in tables]
    assert 0.92 <= np.mean([one.low <= 0.07 <= one.high for one in found]) <= 0.99


def test_equal_models_are_called_different_at_most_5_times_in_100():
    tables = np.random.default_rng(4).multinomial(160, [0.8, 0.06, 0.06, 0.08], 400)
    assert np.mean([paired(*answers(*table)).outcome != "undecided" for table in tables]) <= 0.05


@pytest.mark.parametrize("table", [(5, 0, 0, 0), (0, 0, 0, 5), (3, 0, 0, 4), (1, 0, 0, 0), (0, 1, 0, 0)])
def test_few_or_equal_answers_decide_nothing(table):
    found = paired(*answers(*table))
    assert found.outcome == "undecided"
    assert found.p_value == 1
    assert -1 <= found.low <= found.difference <= found.high <= 1
    assert found.low < found.high


def test_all_against_nothing_is_decided():
    found = paired([False] * 10, [True] * 10)
    assert (found.difference, found.outcome) == (1, "better")
    assert found.p_value == pytest.approx(2 / 2**10)
    assert found.high == pytest.approx(1)


def test_the_sentence_says_it_in_percentage_points_with_names():
    a, b = answers(940, 31, 8, 21)
    assert paired(a, b).text("the tail", "the head alone") == (
        "The tail is better than the head alone: +2.3 percentage points on the same 1,000 images "
        "(95 %: +1.1 to +3.6; p < 0.001)."
    )
    assert paired(b, a).text().startswith("The second is worse than the first: \N{MINUS SIGN}2.3 percentage points")
    assert paired(*answers(1, 7, 1, 12)).text() == (
        "Undecided whether the second is better than the first: +28.6 percentage points on the same 21 images "
        "(95 %: +2.6 to +50.7; p = 0.070)."
    )


def test_the_dictionary_survives_json_and_has_the_outcome():
    found = paired(*answers(20, 9, 1, 3))
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Paired(**{name: value for name, value in back.items() if name != "outcome"}) == found
    assert back["outcome"] == "better"


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_answers_that_cannot_be_paired_are_refused(a, b):
    with pytest.raises(DataError, match="for every image"):
        paired(a, b)


def test_the_corrected_test_is_the_plain_one_with_a_wider_error():
    rng = np.random.default_rng(1)
    a, gain = rng.uniform(0.7, 0.9, 50), rng.normal(0.02, 0.03, 50)
    found = paired_repeats(a, a + gain, test_share=0.2)
    plain = stats.ttest_1samp(gain, 0)
    wider = math.sqrt(1 + 50 * 0.2 / 0.8)  # (1/J + tested/trained) against 1/J
    assert found.p_value == pytest.approx(2 * stats.t.sf(plain.statistic / wider, 49))
    low, high = plain.confidence_interval(0.95)
    assert found.difference == pytest.approx(gain.mean())
    assert found.high - found.difference == pytest.approx((high - low) / 2 * wider)
    assert found.basis == "50 rounds of cross-validation"


def test_models_that_differ_by_chance_of_the_split_alone_are_seldom_called_different():
    """A class drawn by coin is "predicted" by two rules that know nothing: over many data sets, few are decided."""
    rng = np.random.default_rng(6)
    decided = []
    for _ in range(100):
        right_a, right_b = rng.random((2, 100)) < 0.8  # what each model gets right, whatever it was trained on
        folds = np.concatenate([rng.permutation(100).reshape(5, 20) for _ in range(10)])
        found = paired_repeats(right_a[folds].mean(axis=1), right_b[folds].mean(axis=1), test_share=0.2)
        decided.append(found.outcome != "undecided")
    assert np.mean(decided) <= 0.1


def test_scores_that_never_differ_are_undecided_and_those_that_always_do_are_not():
    scores = [0.1 + 0.2, 0.7, 0.9]
    same = paired_repeats(scores, [0.3, 0.7, 0.9], test_share=0.2)
    assert (same.outcome, same.p_value) == ("undecided", 1)
    less = paired_repeats([score - 0.1 for score in scores], scores, test_share=0.2)
    assert (less.outcome, less.p_value) == ("better", 0)
    assert less.low == pytest.approx(0.1)


@pytest.mark.parametrize(("a", "b"), [([0.9], [0.8]), ([], []), ([0.9, 0.8], [0.9])])
def test_scores_that_cannot_be_paired_are_refused(a, b):
    with pytest.raises(DataError, match="two rounds"):
        paired_repeats(a, b, test_share=0.2)


@pytest.mark.parametrize("share", [0, 1, -0.2, 5])
def test_a_test_share_that_cannot_be_is_refused(share):
    with pytest.raises(UsageError, match=r"above 0 and below 1"):
        paired_repeats([0.9, 0.8], [0.8, 0.9], test_share=share)
