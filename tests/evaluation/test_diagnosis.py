from __future__ import annotations

import numpy as np
import pytest

from regraft.evaluation import diagnosis as diagnosing
from regraft.evaluation.diagnosis import sentence
from regraft.training.history import History, Measured


def rows(train, validation=None, right=(0.97, 0.96), phase="head", first=1, images=(0, 0), error=0.0):
    """Return the rows of losses epoch by epoch.

    right:  the accuracies of both parts, each a number or one an epoch.
    images: numbers of images of both parts; 0: unknown, as in older models.
    error:  standard error of the validation loss.
    """
    measured = []
    parts = zip(("train", "validation"), (train, validation), right, images, (0.0, error), strict=True)
    for part, losses, accuracy, number, spread in parts:
        accuracies = np.broadcast_to(accuracy, len(losses or []))
        for at, (loss, share) in enumerate(zip(losses or [], accuracies, strict=True)):
            measured.append(
                Measured(first + at, part, loss, float(share), 1e-3, 1.0, phase, images=number, loss_error=spread)
            )
    return sorted(measured, key=lambda row: row.epoch)


def diagnosis(*args, chance=None, **more):
    return sentence(History(rows(*args, **more)), chance)


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


def at_rest(epochs, end):
    """Return a loss that falls to `end` within a few epochs and then stays within 0.001 of it."""
    return [*falling(epochs, end, 30)[: epochs // 2], *([end, end + 0.001] * epochs)[: epochs - epochs // 2]]


@pytest.mark.parametrize("epochs", [6, 8, 20, 100])
def test_a_validation_loss_that_stops_falling_and_stays_near_that_of_training_is_a_good_fit(epochs):
    assert diagnosis(at_rest(epochs, 0.09), at_rest(epochs, 0.1), images=(4000, 1000), error=0.01) == (
        "Good fit: the validation loss stopped falling and has not risen since, and the gap is small (at most 5 points "
        "and 0.1 of loss): accuracy 97.0 % in training, 96.0 % in validation, +1.0 points (95 %: \N{MINUS SIGN}0.2 to "
        f"+2.5); loss {np.mean(at_rest(epochs, 0.09)[-max(1, epochs // 5) :]):.3f} and "
        f"{np.mean(at_rest(epochs, 0.1)[-max(1, epochs // 5) :]):.3f}."
    )


def test_a_gap_between_the_losses_is_no_good_fit():
    """0.014 and 0.558: once called a good fit."""
    text = diagnosis(at_rest(20, 0.014), at_rest(20, 0.558), right=(1.0, 0.9375), images=(640, 160), error=0.1)
    assert text.startswith("Overfitting: the validation loss stopped falling and has not risen since, but the gap")
    assert "accuracy 100.0 % in training, 93.8 % in validation, +6.2 points (95 %: +3.4 to +11.1)" in text
    assert "loss 0.014 and 0.55" in text


def test_a_gap_of_the_loss_alone_is_one_too():
    text = diagnosis(at_rest(20, 0.01), at_rest(20, 0.4), right=(0.99, 0.98), images=(9000, 3000), error=0.02)
    assert text.startswith("Overfitting")
    assert "+1.0 points" in text


def test_a_gap_that_few_images_do_not_show_is_left_open_with_their_count():
    few = {"images": (160, 40), "error": 0.1}
    small = diagnosis(at_rest(20, 0.09), at_rest(20, 0.12), right=(0.975, 0.95), **few)
    assert small.startswith("A good fit as far as 40 validation images can tell: ")
    assert (
        "may be larger: accuracy 97.5 % in training, 95.0 % in validation, +2.5 points (95 %: \N{MINUS SIGN}2.7 to"
        in (small)
    )
    large = diagnosis(at_rest(20, 0.09), at_rest(20, 0.24), right=(0.9625, 0.90), **few)
    assert large.startswith("Perhaps overfitting: ")
    assert "40 validation images are too few to be certain" in large


def simulated(train_accuracy, accuracy, n_train, n, seed):
    """Return the diagnosis of losses at rest, with accuracies as binomial draws of the true ones."""
    rng = np.random.default_rng(seed)
    right = rng.binomial(n_train, train_accuracy) / n_train, rng.binomial(n, accuracy) / n
    losses = [1.5 * (1 - share) for share in right]
    images, error = (n_train, n), 1.5 * np.sqrt(right[1] * (1 - right[1]) / n)
    return diagnosis(at_rest(10, losses[0]), at_rest(10, losses[1]), right=right, images=images, error=error)


@pytest.mark.parametrize("n", [40, 160, 640])
def test_of_parts_that_are_equally_good_hardly_any_is_called_overfitting(n):
    texts = [simulated(0.95, 0.95, 4 * n, n, seed) for seed in range(200)]
    assert np.mean([text.startswith("Overfitting") for text in texts]) <= 0.05


@pytest.mark.parametrize("n", [40, 160, 640])
def test_a_true_gap_of_15_points_is_never_called_a_good_fit_and_found_where_the_images_show_it(n):
    texts = [simulated(1.0, 0.85, 4 * n, n, seed) for seed in range(200)]
    assert not any(text.startswith("Good fit") for text in texts)
    if n >= 160:
        assert np.mean([text.startswith("Overfitting") for text in texts]) >= 0.99


@pytest.mark.parametrize("n", [640, 2560])
def test_a_true_gap_of_1_point_is_called_small_where_the_images_show_it(n):
    texts = [simulated(0.97, 0.96, 4 * n, n, seed) for seed in range(200)]
    assert np.mean([text.startswith("Good fit") for text in texts]) >= 0.9


@pytest.mark.parametrize(("images", "silent"), [(12, True), (29, True), (30, False)])
def test_from_fewer_than_30_validation_images_nothing_is_read(images, silent):
    right = (1.0, round(0.75 * images) / images)
    text = diagnosis(at_rest(20, 0.01), at_rest(20, 0.4), right=right, images=(100, images))
    assert text.startswith(f"Nothing can be read from {images} validation images; it takes 30 or more") == silent


def test_the_few_images_are_told_with_what_their_accuracy_stands_for():
    """9 of 12; Wilson's interval: 46.8 to 91.1 %."""
    text = diagnosis(at_rest(20, 0.01), at_rest(20, 0.4), right=(1.0, 0.75), images=(100, 12))
    assert text.endswith("With so few, their accuracy of 75.0 % stands for anything from 47 to 91 %.")


def test_chance_level_is_named_with_what_was_learned_by_heart():
    """0.000 and 19.8 at 50 % of two classes: once called a good fit."""
    text = diagnosis(at_rest(20, 0.0), at_rest(20, 19.8), right=(1.0, 0.5), images=(800, 200), error=2.0, chance=0.5)
    assert text.startswith(
        "No better than chance: 50.0 % of the validation images are right (95 %: 43.1 to 56.9), and always naming the "
        "most frequent class would be right for 50.0 %. The training images were learned by heart (100.0 % right, loss "
        "0.0"
    )
    assert "this is overfitting" in text


def test_chance_level_in_both_parts_is_nothing_learned():
    text = diagnosis(at_rest(20, 0.69), at_rest(20, 0.7), right=(0.51, 0.52), images=(800, 200), chance=0.5)
    assert text.startswith("No better than chance: 52.0 %")
    assert "nothing was learned" in text


def test_always_naming_a_class_that_most_images_are_of_is_chance_level_too():
    arguments = {"right": (0.92, 0.91), "images": (800, 200)}
    assert diagnosis(at_rest(20, 0.3), at_rest(20, 0.31), **arguments, chance=0.9).startswith("No better than chance")
    assert not diagnosis(at_rest(20, 0.3), at_rest(20, 0.31), **arguments, chance=0.5).startswith("No better")


def test_a_loss_that_still_falls_at_chance_level_may_go_on():
    text = diagnosis(falling(10, 0.4, 1), falling(10, 0.5, 1), right=(0.5, 0.5), images=(800, 200), chance=0.5)
    assert text.startswith("Still improving: ")
    assert "So far 50.0 % of the validation images are right" in text


def test_a_gap_is_told_beside_a_loss_that_rose():
    text = diagnosis(falling(20, 0.01, 5), overfitting(20, 6), right=(0.99, 0.90), images=(800, 200))
    assert text.startswith("Overfitting from epoch 7")
    assert "At the end: accuracy 99.0 % in training, 90.0 % in validation, +9.0 points (95 %: +5.4 to +14.0)" in text


@pytest.mark.parametrize(("chance", "expected"), [(0.5, False), (0.2, True), (None, False)])
def test_that_the_accuracy_held_is_said_only_where_it_is_above_chance(chance, expected):
    rises = {"train": falling(20, 0.01, 5), "validation": overfitting(20, 6)}
    text = diagnosis(**rises, right=(1.0, 0.5), images=(800, 200), chance=chance)
    assert ("The accuracy held" in text) == expected


def test_the_best_epoch_of_100_is_100_and_nothing_stopped_falling():
    slow = falling(100, 0.3, 9)
    assert min(slow) == slow[-1]
    text = diagnosis(slow, slow, images=(4000, 1000), error=0.01)
    assert "stopped falling" not in text
    assert "the validation loss hardly falls any more, and was lowest in the last epoch, 100, and the gap" in text
    later = [*slow[:97], slow[96] - 0.001, slow[96], slow[96]]
    assert "was lowest in epoch 98 of 100" in diagnosis(later, later, images=(4000, 1000), error=0.01)
    assert "hardly falls any more" in diagnosis(falling(10, 0.05, 40))


DROPOUT = (np.linspace(0.537, 0.90, 10), np.linspace(0.917, 0.955, 10))


def test_training_figures_that_are_worse_than_those_of_validation_are_explained():
    """53.7 against 91.7 % in epoch 1, at a dropout of 0.7."""
    text = diagnosis(at_rest(10, 0.3), at_rest(10, 0.15), right=DROPOUT, images=(640, 160), chance=0.5)
    assert (
        "In epoch 1 and to the end the training images did worse than the validation images (in epoch 1 53.7 against "
        "91.7 % right), and that is no fault: they are measured while they are trained on, with dropout" in text
    )
    caught_up = (np.linspace(0.537, 0.96, 10), DROPOUT[1])
    text = diagnosis(at_rest(10, 0.3), at_rest(10, 0.15), right=caught_up, images=(640, 160))
    assert "In epoch 1 the training images did worse" in text


def test_training_figures_that_may_be_worse_by_chance_are_not_explained():
    assert "no fault" not in diagnosis(at_rest(10, 0.3), at_rest(10, 0.3), right=(0.9, 0.96), images=(60, 40))
    assert "no fault" not in diagnosis(at_rest(10, 0.3), at_rest(10, 0.3), right=(0.97, 0.96), images=(640, 160))


def test_losses_that_stay_high_with_many_wrong_in_both_parts_are_underfitting():
    text = diagnosis(at_rest(20, 0.9), at_rest(20, 0.91), right=(0.64, 0.645))
    assert text.startswith("Underfitting: both losses stopped falling (training 0.901, validation 0.911)")
    assert "64.0 % of the training images" in text


def test_many_wrong_in_validation_alone_is_no_underfitting():
    assert diagnosis(at_rest(20, 0.05), at_rest(20, 0.9), right=(0.99, 0.64)).startswith("Overfitting: ")


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
    assert "has stopped falling" in (flat := diagnosis(at_rest(10, 0.05)))
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


def test_chance_is_that_of_the_validation_part_or_where_there_is_none_of_the_training_part():
    assert diagnosing.chance({"train": {"a": 9, "b": 1}, "validation": {"a": 3, "b": 5}}) == 5 / 8
    assert diagnosing.chance({"train": {"a": 9, "b": 1}, "test": {"a": 3}}) == 0.9
    assert diagnosing.chance({"test": {"a": 3}}) is None
