import numpy as np
import pytest

from regraft.core.errors import DataError
from regraft.training.examples import Examples, ahead, batch_rows, check, even_rows


@pytest.mark.parametrize(
    ("rows", "size", "sizes"),
    [(8, 4, [4, 4]), (9, 4, [4, 5]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1]), (1, 4, [1]), (4, 100, [4]), (0, 4, [0])],
)
def test_a_single_last_row_joins_the_batch_before_it(rows, size, sizes):
    batches = batch_rows(np.arange(rows), size)
    assert [len(batch) for batch in batches] == sizes
    assert np.concatenate(batches).tolist() == list(range(rows))


def test_a_batch_is_float32_and_may_be_written_to_though_the_inputs_may_not(tmp_path):
    np.save(tmp_path / "inputs.npy", np.arange(12.0).reshape(6, 2))
    inputs = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    batch, labels = Examples(inputs, np.array([0, 1, 0, 1, 0, 1], np.int32)).batch(np.array([4, 1]))
    assert batch.tolist() == [[8, 9], [2, 3]]
    assert labels.tolist() == [0, 1]
    assert (batch.dtype, labels.dtype, batch.flags.writeable) == (np.float32, np.int64, True)


def numbered(n=1000):
    """Rows that hold their number: row k is k, and in view v it is k + 10,000 v."""
    inputs = np.arange(n, dtype=np.float32)[:, None]
    return Examples(inputs, np.arange(n) % 2, np.arange(n), views=(inputs + 10_000, inputs + 20_000))


def read(examples, size=64):
    return np.concatenate([inputs for inputs, _ in examples.batches(size)])[:, 0]


def test_an_epoch_draws_equally_often_among_the_inputs_and_the_views():
    rows = read(numbered().epoch(1, seed=0))
    assert (rows % 10_000).tolist() == list(range(1000))
    counts = np.bincount((rows // 10_000).astype(int))
    assert len(counts) == 3
    assert np.abs(counts - 1000 / 3).max() < 5 * np.sqrt(1000 * 2 / 9)


def test_what_an_epoch_draws_depends_on_its_number_and_the_seed_alone():
    drawn = [read(numbered().epoch(number, seed)).tolist() for number, seed in [(1, 0), (1, 0), (2, 0), (1, 1)]]
    assert drawn[0] == drawn[1]
    assert drawn[2] != drawn[0] != drawn[3] != drawn[2]


def test_rows_of_an_epoch_are_the_same_however_they_are_indexed():
    epoch = numbered().epoch(3, seed=0)
    whole = read(epoch)
    assert epoch.batch(np.array([7, 2, 7]))[0][:, 0].tolist() == whole[[7, 2, 7]].tolist()
    assert epoch.batch(slice(5, 9))[0][:, 0].tolist() == whole[5:9].tolist()
    assert read(numbered().in_memory().epoch(3, seed=0)).tolist() == whole.tolist()


@pytest.mark.parametrize("counts", [[90, 9, 1], [5, 5], [50, 3, 3, 3], [100, 1]])
def test_even_rows_are_as_many_as_before_with_equally_many_of_every_class_and_row(counts):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = even_rows(labels, np.random.default_rng(1))
    assert len(rows) == len(labels)
    drawn = np.bincount(labels[rows])
    assert drawn.max() - drawn.min() <= 1
    for label in range(len(counts)):
        often = np.bincount(rows, minlength=len(labels))[labels == label]
        assert often.max() - often.min() <= 1


def test_an_even_epoch_gives_each_row_its_own_label_and_draws_a_rare_one_in_all_views():
    inputs = np.arange(200, dtype=np.float32)[:, None]
    examples = Examples(inputs, np.arange(200) >= 196, views=(inputs + 10_000, inputs + 20_000))
    epochs = [examples.epoch(number, seed=0, evenly=True) for number in (1, 1, 2)]
    first, same, second = (read(epoch) for epoch in epochs)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, second)
    assert np.array_equal(epochs[0].labels, first % 10_000 >= 196)
    assert np.sum(epochs[0].labels) == 100
    assert len(np.unique(first[epochs[0].labels == 1])) == 12  # four rows, each in three ways


def test_an_even_epoch_of_fresh_inputs_or_of_arrays_in_memory_has_the_same_rows():
    labels = np.repeat([0, 1], [30, 2])
    inputs = np.arange(32, dtype=np.float32)[:, None]
    plain = Examples(inputs, labels)
    fresh = Examples(inputs, labels, fresh=lambda number: inputs + 100 * number)
    expected = read(plain.epoch(3, 0, evenly=True))
    assert np.array_equal(read(plain.in_memory().epoch(3, 0, evenly=True), 32), expected)
    assert np.array_equal(read(fresh.epoch(3, 0, evenly=True)), expected + 300)


def test_without_views_an_epoch_is_the_examples_themselves():
    examples = Examples(np.zeros((4, 1)), np.arange(4) % 2)
    assert examples.epoch(1, seed=0) is examples


def test_an_epoch_of_fresh_inputs_has_nothing_else():
    examples = Examples(np.zeros((4, 1)), np.arange(4), fresh=lambda number: np.full((4, 1), number))
    assert read(examples.epoch(5, seed=0)).tolist() == [5] * 4
    assert examples.epoch(5, seed=0).labels.tolist() == [0, 1, 2, 3]


def test_small_inputs_come_into_memory_once_and_large_ones_do_not(tmp_path):
    np.save(tmp_path / "inputs.npy", np.arange(600.0).reshape(300, 2))
    inputs = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    examples = Examples(inputs, np.arange(300) % 2, views=(inputs,))
    size = 2 * 300 * 2 * 4  # two of them, four bytes a number
    loaded = examples.in_memory(size)
    assert [type(array) for array in loaded.all_inputs] == [np.ndarray, np.ndarray]
    assert all(np.array_equal(array, inputs) and array.dtype == np.float32 for array in loaded.all_inputs)
    assert loaded.in_memory(0) is loaded
    assert examples.in_memory(size - 1) is examples


def test_an_array_is_in_memory_already_and_one_batch_of_all_of_it_copies_nothing():
    inputs = np.ones((30, 2), np.float32)
    loaded = Examples(inputs, np.arange(30) % 2).in_memory()
    ((batch, labels),) = loaded.batches(30, np.random.default_rng(0).permutation(30))
    assert np.shares_memory(batch, inputs)
    assert labels.tolist() == loaded.labels.tolist()


def test_nan_in_a_view_is_refused_too():
    inputs = np.zeros((4, 1))
    with pytest.raises(DataError, match="NaN or infinity"):
        Examples(inputs, np.arange(4), views=(inputs, inputs * np.nan)).in_memory()


def test_one_item_is_worked_on_ahead_and_no_more():
    begun = []
    results = ahead(lambda item: begun.append(item) or 10 * item, range(5))
    assert next(results) == 0
    assert begun in ([0], [0, 1])
    assert list(results) == [10, 20, 30, 40]
    assert begun == [0, 1, 2, 3, 4]


def test_an_error_ahead_is_raised_in_its_items_turn():
    results = ahead(lambda item: 1 // (2 - item), range(4))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_lengths_that_differ_are_refused():
    with pytest.raises(DataError, match="3 inputs but 2 labels"):
        Examples(np.zeros((3, 1)), np.zeros(2))
    with pytest.raises(DataError, match="3 inputs but 4 groups"):
        Examples(np.zeros((3, 1)), np.zeros(3), np.zeros(4))
    with pytest.raises(DataError, match="3 inputs but 2 rows of a view"):
        Examples(np.zeros((3, 1)), np.zeros(3), views=(np.zeros((2, 1)),))


def test_labels_may_be_several_a_row():
    labels = np.array([[1, 0, 1], [0, 0, 0]])
    examples = Examples(np.zeros((2, 1)), labels)
    assert examples.labels.dtype == np.float32
    batch = examples.batch(np.array([1, 0]))[1]
    assert batch.tolist() == labels[::-1].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_input_that_is_nan_or_infinite_is_refused(value):
    examples = Examples(np.array([[0.0], [value]]), np.array([0, 1]))
    with pytest.raises(DataError, match="NaN or infinity"):
        examples.batch(np.array([0, 1]))


@pytest.mark.parametrize(
    ("train", "validation", "n_classes", "says"),
    [
        ([0, 0], None, 1, "1 class"),
        ([0, 2], None, 3, "No training example has class 1"),
        ([0, 1, 2], None, 2, "outside"),
        ([0, 1], [0, 2], 2, "outside"),
        ([0, 1], [0, -1], 2, "outside"),
        ([[1, 0], [0, 0]], None, 2, "No training example has class 1"),
        ([[1, 0, 1], [0, 1, 0]], None, 2, "outside"),
    ],
)
def test_labels_must_be_the_classes_each_with_a_training_example(train, validation, n_classes, says):
    parts = [labels and Examples(np.zeros((len(labels), 1)), np.array(labels)) for labels in (train, validation)]
    with pytest.raises(DataError, match=says):
        check(*parts, n_classes)
