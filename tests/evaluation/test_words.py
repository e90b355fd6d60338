import pytest

from regraft.evaluation.words import Mistake, most_frequent


@pytest.mark.parametrize(
    ("times", "clause"),
    [
        ((1,), "the only mistake is a taken for b (once)"),
        ((2,), "the only mistakes are a taken for b (twice)"),
        ((1234,), "the only mistakes are a taken for b (1,234 times)"),
        ((3, 1), "the most frequent mistake is a taken for b (3 times)"),
        ((2, 1, 1), "the most frequent mistake is a taken for b (twice)"),
        ((1, 1), "the only mistakes are a taken for b and b taken for a (once each)"),
        ((2, 2, 1), "the most frequent mistakes are a taken for b and b taken for a (twice each)"),
        ((1, 1, 1), "no mistake is more frequent than others"),
        ((2, 2, 2, 1), "no mistake is more frequent than others"),
    ],
)
def test_the_most_frequent_mistake_is_named_and_of_two_both(times, clause):
    kinds = ("a taken for b", "b taken for a", "a taken for c", "c taken for a")
    assert most_frequent([Mistake(*mistake) for mistake in zip(times, kinds, strict=False)]) == clause
