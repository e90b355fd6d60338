import json

import numpy as np
import pytest

from regraft.evaluation.comparison import Candidate, Comparison
from regraft.evaluation.significance import corrected_t_test


def candidate(name, accuracy, milliseconds, spread=0.0, cut="pooled"):
    """A candidate whose ten scores have this mean, and go up and down by `spread`, in an order of its own."""
    steps = np.random.default_rng(len(name)).permutation(np.linspace(-spread, spread, 10))
    return Candidate(
        backbone=name,
        cut=cut,
        width=8,
        scores=tuple(accuracy + steps),
        accuracy=accuracy,
        log_loss=1 - accuracy,
        milliseconds=milliseconds,
        megabytes=12.3,
    )


def comparison(*candidates, **changes):
    about = {"source": "photos", "images": 400, "separate": 300, "classes": ("a", "b"), "folds": 5, "repeats": 2}
    return Comparison(candidates=candidates, **{**about, **changes})


def test_the_most_accurate_stands_first_and_the_others_are_tested_against_it():
    small, large = candidate("small", 0.90, 5, 0.01), candidate("larger", 0.93, 9, 0.02)
    compared = comparison(small, large)
    assert compared.best is large
    assert compared.against_best == (corrected_t_test(large.scores, small.scores, 0.2),)


def test_one_that_beats_all_others_is_taken_however_slow():
    compared = comparison(candidate("quick", 0.90, 1), candidate("slow", 0.95, 50))
    assert compared.recommended.name == "slow"
    assert compared.recommendation() == "Take slow. It is more accurate than each of the others."


def test_of_those_alike_the_fastest_is_taken_and_its_cost_is_named():
    compared = comparison(candidate("quick", 0.930, 5, 0.02), candidate("slow", 0.931, 10, 0.03))
    assert compared.recommended.name == "quick"
    assert compared.recommendation() == (
        "Take quick. slow is 0.1 points better, which may be chance with this many images, and takes "
        "2.0 times as long per photo."
    )


def test_more_than_a_standard_error_is_not_given_up_for_speed():
    scores = np.array([0.0, 0.09] * 5)
    quick = candidate("quick", 0.90, 5)
    slow = Candidate(**{**vars(candidate("slow", 0.945, 10)), "scores": tuple(0.90 + scores)})
    pair = comparison(quick, slow).against_best[0]
    assert pair.outcome == "undecided" and -pair.difference > (pair.high - pair.low) / 4
    assert comparison(quick, slow).recommendation() == (
        "Take slow. quick is 4.5 points worse and 2.0 times as fast. "
        "With this many images, these may be as good as slow: quick."
    )


def test_a_timing_that_differs_by_less_than_a_fifth_decides_nothing():
    compared = comparison(candidate("quick", 0.930, 9, 0.02), candidate("slow", 0.931, 10, 0.03))
    assert compared.recommended.name == "slow"
    assert compared.recommendation() == "Take slow. With this many images, these may be as good as slow: quick."


def test_one_candidate_alone_is_no_comparison():
    assert "There is only one candidate" in comparison(candidate("only", 0.9, 5)).recommendation()


def test_the_interval_counts_duplicates_once():
    """Wilson's interval of 270 of 300, as statsmodels.stats.proportion.proportion_confint gives it."""
    compared = comparison(candidate("only", 0.9, 5))
    assert compared.interval(compared.best) == pytest.approx((0.8609, 0.9291), abs=1e-4)


def test_the_table_has_a_row_for_each_and_the_dictionary_is_json():
    compared = comparison(candidate("small", 0.90, 5), candidate("large", 0.93, 9, cut="blocks.5"))
    lines = compared.text().splitlines()
    assert "large at blocks.5" in lines[3] and "93.0 %" in lines[3] and "the best" in lines[3]
    assert "\N{MINUS SIGN}3.0" in lines[4] and "worse" in lines[4]
    values = json.loads(json.dumps(compared.to_dict()))
    assert values["recommended"] == "large at blocks.5"
    assert values["candidates"][1]["against_best"]["outcome"] == "worse"
    assert values["candidates"][0]["against_best"] is None
