import numpy as np
import pytest

from regraft.core.errors import DataError
from regraft.graft.examples import Examples, check, cut


@pytest.mark.parametrize(
    ("rows", "size", "sizes"),
    [(8, 4, [4, 4]), (9, 4, [4, 5]), (10, 4, [4, 4, 2]), (3, 1, [1, 1, 1]), (1, 4, [1]), (4, 100, [4]), (0, 4, [0])],
)
def test_a_lone_last_row_joins_the_batch_before_it(rows, size, sizes):
    batches = cut(np.arange(rows), size)
    assert [len(batch) for batch in batches] == sizes
    assert np.concatenate(batches).tolist() == list(range(rows))


def test_a_batch_is_float32_and_may_be_written_to_though_the_inputs_may_not(tmp_path):
    np.save(tmp_path / "inputs.npy", np.arange(12.0).reshape(6, 2))
    inputs = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    batch, labels = Examples(inputs, np.array([0, 1, 0, 1, 0, 1], np.int32)).batch(np.array([4, 1]))
    assert batch.tolist() == [[8, 9], [2, 3]]
    assert labels.tolist() == [0, 1]
    assert (batch.dtype, labels.dtype, batch.flags.writeable) == (np.float32, np.int64, True)


def test_lengths_that_differ_are_refused():
    with pytest.raises(DataError, match="3 inputs but 2 labels"):
        Examples(np.zeros((3, 1)), np.zeros(2))
    with pytest.raises(DataError, match="3 inputs but 4 groups"):
        Examples(np.zeros((3, 1)), np.zeros(3), np.zeros(4))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_input_that_is_no_number_is_refused(value):
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
    ],
)
def test_labels_must_be_the_classes_each_with_a_training_example(train, validation, n_classes, says):
    parts = [labels and Examples(np.zeros((len(labels), 1)), np.array(labels)) for labels in (train, validation)]
    with pytest.raises(DataError, match=says):
        check(*parts, n_classes)
