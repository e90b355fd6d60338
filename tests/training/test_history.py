import json

import pytest

from regraft.training.history import History, Measured


def history(train, validation=None):
    rows = []
    for number, loss in enumerate(train, 1):
        rows.append(Measured(number, "train", loss, 0.5, 0.1, 1.0))
        if validation:
            rows.append(Measured(number, "validation", validation[number - 1], 0.5, 0.1, 1.0))
    return History(rows)


@pytest.mark.parametrize(
    ("train", "validation", "part", "best"),
    [
        ([3, 2, 1], None, "train", 3),
        ([3, 2, 1], [1, 2, 3], "validation", 1),
        ([3, 2, 1], [2, 1, 1], "validation", 2),
    ],
)
def test_the_best_epoch_is_the_first_with_the_lowest_loss_of_validation_else_of_train(train, validation, part, best):
    done = history(train, validation)
    assert (done.monitored_part, done.best_epoch, done.epochs) == (part, best, len(train))


def test_rows_put_at_the_end_count_as_those_it_began_with():
    rows, done = history([3, 1, 2], [1, 3, 0.5]).rows, History()
    for number in range(3):
        done.add(rows[2 * number : 2 * number + 2])
        assert done.best_epoch == [1, 1, 3][number]
    assert done == History(rows)


def test_before_any_epoch_the_best_is_none():
    assert (History().best_epoch, History().epochs) == (0, 0)


def test_history_is_restored_from_json():
    done = history([0.1 + 0.2, 1e-300], [1 / 3, 2 / 3])
    assert History.from_list(json.loads(json.dumps(done.to_list()))) == done


def test_rows_saved_before_images_were_counted_have_an_unknown_number():
    (row,) = History.from_list(
        [{"epoch": 1, "part": "train", "loss": 0.5, "accuracy": 0.9, "learning_rate": None, "seconds": 1.0}]
    ).rows
    assert (row.images, row.loss_error, row.phase) == (0, 0.0, "head")


def test_the_best_epoch_is_that_of_the_watched_measure():
    rows = [Measured(n, "validation", loss, right, 0.1, 1.0) for n, (loss, right) in enumerate([(1, 0.5), (2, 0.9)], 1)]
    assert (History(rows).best_epoch, History(rows, "accuracy").best_epoch) == (1, 2)
    assert (History(rows).watched, History(rows, "accuracy").watched) == ([1, 2], [-0.5, -0.9])


def test_of_equal_epochs_the_first_is_the_best():
    rows = [Measured(number, "train", 1.0 / number, 0.5, 0.1, 1.0) for number in (1, 2)]
    assert History(rows, "accuracy").best_epoch == 1


def test_epochs_count_on_from_an_earlier_phase_that_chooses_nothing():
    head = history([3, 1, 2], [3, 1, 2])
    both = History(list(head.rows), earlier=len(head.rows))
    assert (both.epochs, both.before, both.best_epoch, both.watched) == (3, 3, 0, [])
    both.add([Measured(4, "train", 9.0, 0.5, 0.1, 1.0, "tail"), Measured(4, "validation", 8.0, 0.5, 0.1, 1.0, "tail")])
    assert (both.epochs, both.best_epoch, both.monitored_part, both.watched) == (4, 4, "validation", [8.0])
    assert both.seconds == 8.0
    assert {row.phase for row in both.rows[:6]} == {"head"}


def test_a_phase_without_validation_monitors_its_own_rows():
    head = history([3, 1], [3, 1])
    both = History([*head.rows, Measured(3, "train", 9.0, 0.5, 0.1, 1.0, "tail")], earlier=4)
    assert (both.monitored_part, both.best_epoch) == ("train", 3)


def test_rows_saved_before_there_were_phases_are_a_heads():
    rows = history([2, 1]).to_list()
    assert all(row.pop("phase") == "head" for row in rows)
    assert History.from_list(rows) == history([2, 1])
