from __future__ import annotations

import numpy as np
import pytest

from regraft.evaluation.diagnosis import sentence
from regraft.training.history import History, Measured


def rows(train, validation=None, right=(0.97, 0.96), phase="head", first=1):
    """Return the rows of losses epoch by epoch; `right` has the accuracies of both parts, a number or one an epoch."""
    measured = []
    for part, losses, accuracy in zip(("train", "validation"), (train, validation), right, strict=True):
        for at, (loss, share) in enumerate(
            zip(losses or [], np.broadcast_to(accuracy, len(losses or [])), strict=True)
        ):
            measured.append(Measured(first + at, part, loss, float(share), 1e-3, 1.0, phase))
    return sorted(measured, key=lambda row: row.epoch)


def diagnosis(*args, **more):
    return sentence(History(rows(*args, **more)))


def falling(epochs, end, speed):
    """Return a loss that falls from near 1 towards `end`, as e^-speed·t."""
    return [end + (1 - end) * float(np.exp(-speed * epoch / epochs)) for epoch in range(1, epochs + 1)]


def overfitting(epochs, turn):
    """Return a loss that falls to 0.3 until the epoch `turn`, then rises by 0.25 in as many epochs as there are."""
    down = falling(turn, 0.3, 8)
    return [*down, *(down[-1] + 0.25 * step / epochs for step in range(1, epochs - turn + 1))]


@pytest.mark.parametrize("epochs", [4, 5, 8, 20, 100])
def test_a_validation_loss_that_falls_to_the_end_is_still_improving(epochs):
    assert diagnosis(falling(epochs, 0.05, 2), falling(epochs, 0.2, 1.5)).startswith("Still improving: ")


@pytest.mark.parametrize("epochs", [5, 8, 20, 100])
def test_a_validation_loss_that_turns_while_training_goes_on_is_overfitting_from_the_epoch_after_the_best(epochs):
    turn = max(2, epochs // 3)
    text = diagnosis(falling(epochs, 0.01, 5), overfitting(epochs, turn))
    assert text.startswith(f"Overfitting from epoch {turn + 1}: the validation loss rose from 0.300 to 0.")


@pytest.mark.parametrize("epochs", [5, 8, 20, 100])
def test_a_validation_loss_that_stops_falling_and_stays_is_a_good_fit(epochs):
    assert diagnosis(falling(epochs, 0.09, 12), falling(epochs, 0.1, 15)) == (
        "Good fit: the validation loss stopped falling and has not risen since (training 0.090, validation 0.100)."
    )


def test_a_gap_between_the_losses_that_does_not_grow_asks_for_more_photographs():
    text = diagnosis(falling(20, 0.01, 30), falling(20, 0.3, 30))
    assert text.startswith("Good fit")
    assert "more photographs would narrow the gap" in text


def test_losses_that_stay_high_with_many_wrong_in_both_parts_are_underfitting():
    text = diagnosis(falling(20, 0.9, 30), falling(20, 0.91, 30), right=(0.64, 0.645))
    assert text.startswith("Underfitting: both losses stopped falling (training 0.900, validation 0.910)")
    assert "64.0 % of the training images" in text


def test_many_wrong_in_validation_alone_is_no_underfitting():
    assert diagnosis(falling(20, 0.05, 30), falling(20, 0.9, 30), right=(0.99, 0.64)).startswith("Good fit")


def test_losses_that_rise_in_both_parts_are_unstable_not_overfitting():
    both = overfitting(20, 6)
    assert diagnosis(both, both).startswith("Unstable from epoch 7: both losses rose")


def test_why_the_loss_rises_while_the_accuracy_holds_is_explained_in_one_sentence():
    rises = {"train": falling(20, 0.01, 5), "validation": overfitting(20, 6)}
    held = diagnosis(**rises, right=(0.99, 0.968))
    assert (
        held.count("The accuracy held (96.8 %, then 96.8 %) because a few mistakes that become ever more confident")
        == 1
    )
    assert "raise the loss and change no prediction" in held
    fell = diagnosis(**rises, right=(0.99, np.linspace(0.97, 0.90, 20)))
    assert fell.startswith("Overfitting")
    assert "accuracy held" not in fell


def test_noise_is_not_taken_for_a_trend():
    """Of flat validation losses that jump by 3 % of themselves, at most one in ten is given a direction."""
    rng = np.random.default_rng(0)
    diagnoses = [
        diagnosis(falling(30, 0.25, 12), (np.array(falling(30, 0.3, 20)) + rng.normal(0, 0.009, 30)).tolist())
        for _ in range(60)
    ]
    assert np.mean([text.startswith(("Good fit", "Too noisy")) for text in diagnoses]) >= 0.9


def test_a_trend_is_seen_through_noise():
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.01, (2, 30))
    assert diagnosis(falling(30, 0.05, 5), (overfitting(30, 10) + noise[0]).tolist()).startswith(
        "Overfitting from epoch"
    )
    assert diagnosis(falling(30, 0.05, 5), (falling(30, 0.2, 1.5) + noise[1]).tolist()).startswith("Still improving")


def test_a_rise_that_lasts_is_seen_where_each_epoch_jumps():
    train = [0.26, 0.105, 0.075, 0.065, 0.054, 0.05, 0.046, 0.044, 0.032, 0.037, 0.025, 0.022, 0.021]
    validation = [0.115, 0.088, 0.083, 0.085, 0.09, 0.085, 0.095, 0.1, 0.105, 0.1, 0.094, 0.098, 0.096]
    text = diagnosis(train, validation, right=(0.99, np.linspace(0.975, 0.96, 13)))
    assert text.startswith("Overfitting from epoch 4: the validation loss rose from 0.083 to 0.099")


def test_noise_that_would_hide_any_trend_is_called_noise():
    jumps = 0.5 + 0.1 * np.tile([1, -1], 5)
    assert diagnosis(falling(10, 0.1, 5), jumps.tolist()).startswith("Too noisy for a diagnosis")


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_few_epochs_are_too_few(epochs):
    assert diagnosis(falling(epochs, 0.1, 3), falling(epochs, 0.1, 3)) == f"Too few epochs for a diagnosis: {epochs}."


def test_the_last_phase_is_diagnosed_and_named():
    head, tail = falling(8, 0.1, 15), overfitting(12, 4)
    history = rows(head, head) + rows(falling(12, 0.01, 5), tail, phase="tail", first=9)
    assert sentence(History(history)).startswith("Of the tail: overfitting from epoch 13: the validation loss rose")


def test_what_was_solved_in_one_step_has_no_diagnosis():
    assert sentence(History(rows([0.1], [0.2], first=0))) == ""
    both = rows([0.1], [0.2], first=0) + rows(falling(8, 0.01, 2), falling(8, 0.05, 2), phase="tail")
    assert sentence(History(both)).startswith("Of the tail: still improving")


def test_without_a_validation_part_the_fit_is_not_diagnosed():
    assert "is still falling" in diagnosis(falling(10, 0.05, 2))
    assert "has stopped falling" in (flat := diagnosis(falling(10, 0.05, 40)))
    assert "can only be seen with a validation part" in flat


@pytest.mark.parametrize("loss", [float("inf"), float("nan")])
def test_a_loss_that_is_no_number_is_named(loss):
    assert diagnosis([0.5, 0.4, 0.4, 0.4], [0.5, 0.4, loss, 0.4]).startswith(
        f"Diverged: the validation loss is {loss} in"
    )


def test_without_measures_there_is_no_diagnosis():
    assert sentence(History()) == ""


def test_losses_near_zero_are_at_rest():
    tiny = [1e-4, 2e-4, 1e-4, 3e-4, 2e-4, 4e-4]
    assert diagnosis(tiny, tiny).startswith("Good fit")
