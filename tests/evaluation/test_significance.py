"""Intervals and tests against published examples, SciPy, brute force and simulation."""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from regraft.core.errors import DataError, UsageError
from regraft.evaluation.significance import (
    Paired,
    corrected_t_test,
    difference_interval,
    effective_number,
    holm_bonferroni,
    interval,
    mcnemar,
    wilson,
)


def predictions(both, only_b, only_a, neither):
    """Return which images A and B classified correctly, with these counts."""
    a = [True] * both + [False] * only_b + [True] * only_a + [False] * neither
    b = [True] * both + [True] * only_b + [False] * only_a + [False] * neither
    order = np.random.default_rng(0).permutation(len(a))
    return np.array(a)[order], np.array(b)[order]


# Wilson's interval


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3 …
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_of_an_accuracy_is_the_published_one(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (1, 2), (7, 9), (971, 1000), (99_999, 100_000)])
def test_the_interval_of_an_accuracy_is_that_of_scipy(correct, n, level):
    expected = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    low, high = wilson(correct, n, level)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= correct / n <= high <= 1


def test_none_correct_begins_at_nothing_and_all_correct_ends_at_one():
    assert all(wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1 for n in range(1, 200))


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (3, 2), (-1, 2), (0, -1)])
def test_impossible_counts_are_refused(correct, n):
    with pytest.raises(DataError, match=f"{correct} correct of {n}"):
        wilson(correct, n)


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        ((56, 70, 48, 80), 0.0524, 0.3339),  # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10 …
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0),
        ((10, 10, 0, 10), 0.6075, 1.0),
    ],
)
def test_the_interval_of_a_difference_of_two_sets_of_images_is_the_published_one(counts, low, high):
    assert difference_interval(*counts) == pytest.approx((low, high), abs=5e-5)


# Copies


def test_each_picture_four_times_gives_the_interval_of_the_pictures():
    correct = np.random.default_rng(0).random(250) < 0.8
    assert interval(np.repeat(correct, 4), np.repeat(np.arange(250), 4)) == pytest.approx(interval(correct))
    assert interval(correct) == wilson(np.count_nonzero(correct), 250)


def test_pictures_in_unequal_numbers_are_worth_what_the_variance_of_their_mean_is():
    """n independent images have the variance p (1 - p) / n; what the weighted ones have is drawn here."""
    rng = np.random.default_rng(1)
    versions = rng.integers(1, 8, 40)
    accuracies = [np.repeat(rng.random(40) < 0.7, versions).mean() for _ in range(20_000)]
    assert effective_number(np.repeat(np.arange(40), versions)) == pytest.approx(
        0.7 * 0.3 / np.var(accuracies), rel=0.05
    )


@pytest.mark.parametrize("versions", [[1], [3], [1, 2, 7], [3, 3, 3]])
def test_where_all_are_correct_or_none_the_interval_ends_at_one_or_zero(versions):
    pictures = np.repeat(np.arange(len(versions)), versions)
    assert interval(np.ones(len(pictures), bool), pictures)[1] == 1
    assert interval(np.zeros(len(pictures), bool), pictures)[0] == 0


def test_without_an_image_nothing_is_known():
    assert interval(np.empty(0, bool)) == (0, 1)


# McNemar's test and Newcombe's interval


@pytest.mark.parametrize(
    ("table", "difference", "low", "high", "p_value"),
    [
        ((1, 7, 1, 12), 0.2857, 0.026, 0.507, 0.070),  # Fagerland, Lydersen, Laake 2014, doi:10.1002/sim.6148 …
        ((14, 5, 0, 22), 0.122, 0.011, 0.226, 0.0625),  # Altman et al. 2000, Statistics with Confidence, table 6.2
    ],
)
def test_the_interval_and_the_p_value_are_the_published_ones(table, difference, low, high, p_value):
    comparison = mcnemar(*predictions(*table))
    assert comparison.difference == pytest.approx(difference, abs=5e-4)
    assert (comparison.low, comparison.high) == pytest.approx((low, high), abs=6e-4)
    assert comparison.p_value == pytest.approx(p_value, abs=5e-4)


def test_the_p_value_counts_the_ways_in_which_coins_fall_at_least_as_unevenly():
    for only_b, only_a in product(range(7), range(7)):
        flips = list(product([0, 1], repeat=only_b + only_a))
        uneven = [abs(2 * sum(flip) - len(flip)) >= abs(only_b - only_a) for flip in flips]
        assert mcnemar(*predictions(3, only_b, only_a, 4)).p_value == pytest.approx(np.mean(uneven))


@pytest.mark.parametrize(("only_b", "only_a"), [(40, 60), (61, 44), (500, 400), (2000, 2150), (4000, 10)])
def test_the_p_value_of_many_images_is_that_of_scipy(only_b, only_a):
    expected = stats.binomtest(only_b, only_b + only_a).pvalue
    assert mcnemar(*predictions(50, only_b, only_a, 3)).p_value == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_other_way_round_is_the_mirror_image():
    a, b = predictions(50, 20, 3, 10)
    one, other = mcnemar(a, b), mcnemar(b, a)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
    assert one.p_value == other.p_value
    assert (one.outcome, other.outcome) == ("better", "worse")


def test_the_interval_holds_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(3)
    fractions = [0.75, 0.12, 0.05, 0.08]  # both, B alone, A alone, neither: B is better by 0.07
    comparisons = [mcnemar(*predictions(*table)) for table in rng.multinomial(80, fractions, 400)]
    assert 0.92 <= np.mean([one.low <= 0.07 <= one.high for one in comparisons]) <= 0.99


def test_equal_models_are_called_different_at_most_5_times_in_100():
    tables = np.random.default_rng(4).multinomial(160, [0.8, 0.06, 0.06, 0.08], 400)
    assert np.mean([mcnemar(*predictions(*table)).outcome != "undecided" for table in tables]) <= 0.05


@pytest.mark.parametrize("table", [(5, 0, 0, 0), (0, 0, 0, 5), (3, 0, 0, 4), (1, 0, 0, 0), (0, 1, 0, 0)])
def test_few_images_or_equal_predictions_decide_nothing(table):
    comparison = mcnemar(*predictions(*table))
    assert comparison.outcome == "undecided"
    assert comparison.p_value == 1
    assert -1 <= comparison.low <= comparison.difference <= comparison.high <= 1
    assert comparison.low < comparison.high


def test_all_against_nothing_is_decided():
    comparison = mcnemar([False] * 10, [True] * 10)
    assert (comparison.difference, comparison.outcome) == (1, "better")
    assert comparison.p_value == pytest.approx(2 / 2**10)
    assert comparison.high == pytest.approx(1)


def test_the_sentence_is_in_percentage_points_with_names():
    a, b = predictions(940, 31, 8, 21)
    assert mcnemar(a, b).text("the tail", "the head alone") == (
        "The tail is better than the head alone: +2.3 percentage points on the same 1,000 images "
        "(95 %: +1.1 to +3.6; p < 0.001)."
    )
    assert mcnemar(b, a).text().startswith("The second is worse than the first: \N{MINUS SIGN}2.3 percentage points")
    assert mcnemar(*predictions(1, 7, 1, 12)).text() == (
        "Undecided whether the second is better than the first: +28.6 percentage points on the same 21 images "
        "(95 %: +2.6 to +50.7; p = 0.070)."
    )


def test_the_dictionary_survives_json_and_has_the_outcome():
    comparison = mcnemar(*predictions(20, 9, 1, 3))
    back = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert Paired(**{name: value for name, value in back.items() if name != "outcome"}) == comparison
    assert back["outcome"] == "better"


@pytest.mark.parametrize(("a", "b"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_predictions_that_cannot_be_paired_are_refused(a, b):
    with pytest.raises(DataError, match="for every image"):
        mcnemar(a, b)


# The corrected resampled t-test


@pytest.mark.parametrize(("rounds", "seed"), [(2, 0), (5, 1), (50, 2)])
def test_the_corrected_test_is_the_plain_one_with_a_wider_error(rounds, seed):
    rng = np.random.default_rng(seed)
    a, gain = rng.uniform(0.7, 0.9, rounds), rng.normal(0.02, 0.03, rounds)
    comparison = corrected_t_test(a, a + gain, test_fraction=0.2)
    plain = stats.ttest_1samp(gain, 0)
    wider = math.sqrt(1 + rounds * 0.2 / 0.8)  # (1/J + tested/trained) against 1/J
    assert comparison.p_value == pytest.approx(2 * stats.t.sf(abs(plain.statistic) / wider, rounds - 1))
    low, high = plain.confidence_interval(0.95)
    assert comparison.difference == pytest.approx(gain.mean())
    assert comparison.high - comparison.difference == pytest.approx((high - low) / 2 * wider)
    assert comparison.basis == f"{rounds} rounds of cross-validation"


def test_models_that_differ_by_chance_of_the_split_alone_are_seldom_called_different():
    """A class drawn by coin is "predicted" by two rules that know nothing: over many data sets, few are decided."""
    rng = np.random.default_rng(6)
    decided = []
    for _ in range(100):
        correct_a, correct_b = rng.random((2, 100)) < 0.8  # whatever the models were trained on
        folds = np.concatenate([rng.permutation(100).reshape(5, 20) for _ in range(10)])
        scores = correct_a[folds].mean(axis=1), correct_b[folds].mean(axis=1)
        decided.append(corrected_t_test(*scores, test_fraction=0.2).outcome != "undecided")
    assert np.mean(decided) <= 0.1


def test_scores_that_never_differ_are_undecided_and_those_that_always_do_are_not():
    scores = [0.1 + 0.2, 0.7, 0.9]
    same = corrected_t_test(scores, [0.3, 0.7, 0.9], test_fraction=0.2)
    assert (same.outcome, same.p_value) == ("undecided", 1)
    less = corrected_t_test([score - 0.1 for score in scores], scores, test_fraction=0.2)
    assert (less.outcome, less.p_value) == ("better", 0)
    assert less.low == pytest.approx(0.1)


@pytest.mark.parametrize(("a", "b"), [([0.9], [0.8]), ([], []), ([0.9, 0.8], [0.9])])
def test_scores_that_cannot_be_paired_are_refused(a, b):
    with pytest.raises(DataError, match="two rounds"):
        corrected_t_test(a, b, test_fraction=0.2)


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 5])
def test_an_impossible_test_fraction_is_refused(fraction):
    with pytest.raises(UsageError, match=r"above 0 and below 1"):
        corrected_t_test([0.9, 0.8], [0.8, 0.9], test_fraction=fraction)


# The Holm-Bonferroni correction


def pair(p_value):
    return Paired(difference=0.02, low=0.01, high=0.03, p_value=p_value, basis="ten rounds")


def test_p_values_of_several_tests_are_those_of_holm():
    """By hand: 4 times 0.01, 3 times 0.02, 2 times 0.03, then 0.04, which may be no less than the one before."""
    corrected = holm_bonferroni([pair(0.03), pair(0.01), pair(0.04), pair(0.02)])
    assert [one.p_value for one in corrected] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [one.outcome for one in corrected] == ["undecided", "better", "undecided", "undecided"]


def test_one_test_alone_stays_as_it_is_and_no_p_value_exceeds_one():
    assert holm_bonferroni([pair(0.03)]) == [pair(0.03)]
    assert [one.p_value for one in holm_bonferroni([pair(0.6), pair(0.7)])] == [1.0, 1.0]
    assert holm_bonferroni([]) == []


def test_versions_of_a_picture_count_once_in_a_comparison():
    a, b = predictions(40, 9, 2, 5)
    once = mcnemar(a, b)
    four = mcnemar(np.repeat(a, 4), np.repeat(b, 4), np.repeat(np.arange(len(a)), 4))
    assert four.p_value == once.p_value
    assert (four.difference, four.low, four.high) == pytest.approx((once.difference, once.low, once.high))
    assert four.basis == "the same 224 images, of 56 pictures"
    assert mcnemar(np.repeat(a, 4), np.repeat(b, 4)).p_value < once.p_value


def nearest_means(rng, k, per_class, width, spread, folds=5):
    """Return how many of a cross-validation are correct, of how many, and the accuracy of what learned from all.

    The classes are normal clouds, the classifier takes the nearest class mean; the truth is that of 1,000 new points.
    """
    means = spread * rng.normal(size=(k, width))
    labels, fold = np.tile(np.arange(k), per_class), np.repeat(np.arange(per_class), k) % folds
    rows = means[labels] + rng.normal(size=(len(labels), width))

    def hits(keep, points, codes):
        centres = np.stack([rows[keep & (labels == code)].mean(axis=0) for code in range(k)])
        return (points @ centres.T - (centres**2).sum(axis=1) / 2).argmax(axis=1) == codes

    correct = np.concatenate([hits(fold != own, rows[fold == own], labels[fold == own]) for own in range(folds)])
    new = np.arange(1000) % k
    points = means[new] + rng.standard_normal((len(new), width), np.float32)
    return correct, hits(np.ones(len(labels), bool), points, new).mean()


SETTINGS = [(2, 10, 50, 0.3), (3, 12, 50, 0.35), (5, 20, 100, 0.3), (10, 10, 100, 0.3)]  # classes, images, features


def test_the_interval_of_a_cross_validation_holds_the_accuracy_of_what_learned_from_all_in_95_of_100():
    rounds, held, plain = 150, 0, 0
    for setting in SETTINGS:
        rng = np.random.default_rng(2)
        for _ in range(rounds):
            correct, truth = nearest_means(rng, *setting)
            low, high = interval(correct, learned_from=0.8)
            held += low <= truth <= high
            low, high = interval(correct)
            plain += low <= truth <= high
    total = rounds * len(SETTINGS)
    low, high = wilson(held, total)
    assert high > 0.93  # the interval of the simulation meets 93 to 97 of 100
    assert low < 0.97
    assert wilson(plain, total)[1] < 0.93  # so many it would be without


def test_the_interval_of_a_cross_validation_is_wilsons_of_fewer_images_with_a_higher_end():
    correct = np.arange(100) < 80
    low, high = wilson(64, 80)
    assert interval(correct, learned_from=0.8) == pytest.approx((low, 1 - math.sqrt(0.8) * (1 - high)))
    assert interval(correct, learned_from=1.0) == interval(correct)
    assert interval(np.ones(9, bool), learned_from=0.5)[1] == 1
