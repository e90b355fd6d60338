import pytest

from regraft.evaluation.holm import holm
from regraft.evaluation.significance import Paired


def pair(p_value):
    return Paired(difference=0.02, low=0.01, high=0.03, p_value=p_value, basis="ten rounds")


def test_p_values_are_those_of_holms_steps():
    """By hand: 4 times 0.01, 3 times 0.02, 2 times 0.03, then 0.04, which may be no less than the one before."""
    found = holm([pair(0.03), pair(0.01), pair(0.04), pair(0.02)])
    assert [one.p_value for one in found] == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert [one.outcome for one in found] == ["undecided", "better", "undecided", "undecided"]


def test_one_test_alone_stays_as_it_is_and_none_exceeds_one():
    assert holm([pair(0.03)]) == [pair(0.03)]
    assert [one.p_value for one in holm([pair(0.6), pair(0.7)])] == [1.0, 1.0]
    assert holm([]) == []
