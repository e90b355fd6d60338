import json

import pytest

from regraft.graft.history import History, Measured


def history(train, validation=None):
    rows = []
    for number, loss in enumerate(train, 1):
        rows.append(Measured(number, "train", loss, 0.5, 0.1, 1.0))
        if validation:
            rows.append(Measured(number, "validation", validation[number - 1], 0.5, 0.1, 1.0))
    return History(rows)


@pytest.mark.parametrize(
    ("train", "validation", "judge", "best"),
    [
        ([3, 2, 1], None, "train", 3),
        ([3, 2, 1], [1, 2, 3], "validation", 1),
        ([3, 2, 1], [2, 1, 1], "validation", 2),
    ],
)
def test_the_best_epoch_is_the_first_with_the_lowest_loss_of_validation_else_of_train(train, validation, judge, best):
    done = history(train, validation)
    assert (done.judge, done.best_epoch, done.epochs) == (judge, best, len(train))


def test_rows_put_at_the_end_count_as_those_it_began_with():
    rows, done = history([3, 1, 2], [1, 3, 0.5]).rows, History()
    for number in range(3):
        done.add(rows[2 * number : 2 * number + 2])
        assert done.best_epoch == [1, 1, 3][number]
    assert done == History(rows)


def test_before_any_epoch_the_best_is_none():
    assert (History().best_epoch, History().epochs) == (0, 0)


def test_history_comes_back_from_json_as_it_was():
    done = history([0.1 + 0.2, 1e-300], [1 / 3, 2 / 3])
    assert History.from_list(json.loads(json.dumps(done.to_list()))) == done
