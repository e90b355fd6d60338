import pytest

from regraft.training import early_stopping
from regraft.training.history import History, Measured
from regraft.training.options import FitOptions


def options(**choices):
    return FitOptions(**{"epochs": 6, "patience": None, **choices})


def measured(losses, part="validation", accuracies=None, watch="loss", earlier=0):
    values = zip(losses, accuracies or [0.5] * len(losses), strict=True)
    rows = [Measured(number, part, loss, right, 0.1, 30.0) for number, (loss, right) in enumerate(values, 1)]
    return History(rows, watch, earlier)


@pytest.mark.parametrize(
    ("losses", "patience", "why"),
    [
        ([], 1, None),
        ([3], 1, None),
        ([3, 3], 1, "1 epochs without a lower loss"),  # equal is not lower
        ([3, 4], 2, None),
        ([3, 4, 2, 5], 2, None),
        ([3, 4, 2, 5, 2.5], 2, "2 epochs without a lower loss"),
        ([3, 4, 5, 6, 7], None, None),
        ([9, 8, 7, 6, 5, 4], 2, "all 6 epochs are done"),
    ],
)
@pytest.mark.parametrize("part", ["train", "validation"])
def test_training_ends_when_patience_or_epochs_run_out(losses, patience, why, part):
    reason = early_stopping.reason(measured(losses, part), options(patience=patience))
    assert reason is None if why is None else why in reason


@pytest.mark.parametrize(
    ("values", "gain", "waited"),
    [
        ([], 0, 0),
        ([5, 4, 3], 0, 0),
        ([5, 4, 4, 6], 0, 2),
        ([5, 4.95, 4.92], 0.1, 2),  # none is lower than 5 by more than a tenth
        ([5, 4.95, 4.85], 0.1, 0),  # small steps count together
        ([5, 4.8, 4.75, 4.72], 0.1, 2),
    ],
)
def test_a_gain_counts_from_the_last_value_that_was_enough_of_one(values, gain, waited):
    assert early_stopping.waited(values, gain) == waited


def test_the_minimum_gain_is_that_of_the_watched_measure():
    choices = {"patience": 2, "minimum_gain": 0.05}
    by_loss = measured([3, 2.99, 2.98], accuracies=[0.5, 0.6, 0.7])
    by_accuracy = measured([3, 2.99, 2.98], accuracies=[0.5, 0.6, 0.7], watch="accuracy")
    assert "loss" in early_stopping.reason(by_loss, options(**choices))
    assert early_stopping.reason(by_accuracy, options(watch="accuracy", **choices)) is None
    rising = measured([3, 2, 1], accuracies=[0.5, 0.54, 0.55], watch="accuracy")
    assert "a higher accuracy" in early_stopping.reason(rising, options(watch="accuracy", **choices))


def test_training_ends_at_the_target_accuracy_of_the_monitored_part():
    both = [
        Measured(1, "train", 1.0, 1.0, 0.1, 1.0),
        Measured(1, "validation", 1.0, 0.97, 0.1, 1.0),
    ]
    assert early_stopping.reason(History(both), options(target_accuracy=0.98)) is None
    assert early_stopping.reason(History(both), options(target_accuracy=0.97)) == "the validation accuracy reached 0.97"
    assert early_stopping.reason(History(both[:1]), options(target_accuracy=0.98)) == "the train accuracy reached 0.98"


@pytest.mark.parametrize(("epochs", "ends"), [(3, False), (4, True), (5, True)])
def test_training_ends_after_so_many_minutes_of_all_its_runs(epochs, ends):
    reason = early_stopping.reason(measured([1.0] * epochs), options(minutes=2))
    assert reason == ("2 minutes are over" if ends else None)


def test_an_earlier_phase_counts_for_its_minutes_alone_and_one_epoch_is_trained_whatever_it_took():
    choices = {"epochs": 2, "patience": 2, "target_accuracy": 0.5, "minutes": 1}
    assert early_stopping.reason(measured([1, 2, 3], earlier=3), options(**choices)) is None
    assert early_stopping.reason(measured([1, 2, 3], earlier=2), options(epochs=2, patience=1)) is None
    assert early_stopping.reason(measured([1, 2, 3], earlier=2), options(minutes=1.4)) == "1.4 minutes are over"
    assert early_stopping.reason(measured([1, 2, 3], earlier=1), options(epochs=2)) == "all 2 epochs are done"
