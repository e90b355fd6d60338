"""Rows that are read again in each pass: the same problem, the same bits however they are kept or divided."""

import dataclasses

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_sample_weight

from regraft.core.errors import DataError
from regraft.training import streamed_rows
from regraft.training.examples import Examples
from regraft.training.heads import linear
from regraft.training.options import FitOptions

NOTHING, ALL = 0.0, 4.0  # gigabytes that may be kept


class Disk:
    """Inputs that count what is read of them."""

    def __init__(self, rows):
        self.rows, self.read = rows, []

    @property
    def shape(self):
        return self.rows.shape

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, numbers):
        self.read.append(len(self.rows[numbers]))
        return self.rows[numbers]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(streamed_rows, "CHUNK", 20)


def problem(seed=0, n=412, classes=3, width=6):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    inputs = rng.normal(0, 0.7, (classes, width))[labels] + rng.normal(size=(n, width)) * 3 + 20
    return Examples(Disk(inputs.astype(np.float32)), labels, np.arange(n))


def solve(train, validation=None, memory=NOTHING, classes=3, **options):
    head = {key: options.pop(key) for key in ("regularisation",) if key in options}
    return linear.fit(train, validation, classes, linear.Options(**head), FitOptions(memory=memory, **options))


@pytest.mark.parametrize("options", [{}, {"balance": "weights"}, {"label_smoothing": 0.1}])
@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_what_is_solved_in_memory(options, classes):
    train = problem(classes=classes)
    streamed, whole = (
        solve(train, memory=memory, classes=classes, regularisation=10.0, **options) for memory in (NOTHING, ALL)
    )
    for name, weights in whole.weights.items():
        np.testing.assert_allclose(streamed.weights[name], weights, atol=2e-4)
    assert streamed.history.rows[0].loss == pytest.approx(whole.history.rows[0].loss, abs=1e-6)


@pytest.mark.parametrize("balance", ["none", "weights"])
def test_it_is_what_scikit_learn_solves(balance):
    train = problem(1)
    labels = np.where(np.arange(len(train)) % 4 > 0, 0, train.labels)
    fitted = solve(Examples(train.inputs, labels), regularisation=10.0, balance=balance)
    inputs = train.inputs.rows.astype(np.float64)
    scaled = (inputs - inputs.mean(0)) / np.sqrt(inputs.var(axis=0).mean())
    weights = None if balance == "none" else compute_sample_weight("balanced", labels)
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(scaled, labels, weights)
    logits = linear.logits(fitted.weights, train.inputs.rows, linear.Options())
    np.testing.assert_allclose(logits - logits.mean(1, keepdims=True), model.decision_function(scaled), atol=2e-3)


@pytest.mark.parametrize("held", [pytest.param(False, marks=pytest.mark.slow), True])
def test_what_is_kept_in_memory_changes_no_bit(held):
    validation = problem(3, n=81) if held else None
    row = 4 * 7 * 20 / 1e9  # a chunk's
    fits = [solve(problem(2), validation, memory) for memory in (NOTHING, 3 * row, 17.5 * row)]
    assert len({fit.weights["1.weight"].tobytes() + fit.weights["1.bias"].tobytes() for fit in fits}) == 1
    assert fits[0].chosen == fits[1].chosen == fits[2].chosen


def test_only_what_is_not_kept_is_read_again():
    reads = []
    for chunks in (0, 10, 21):
        train = problem(4)
        solve(train, memory=chunks * 4 * 7 * 20 / 1e9, regularisation=1.0)
        reads.append(sum(train.inputs.read) - 2 * 412)  # but for the first reading, and the one that measures
    passes = reads[0] / 412
    assert passes > 4
    assert reads[1] == pytest.approx(passes * (412 - 200), rel=0.05)
    assert reads[2] == 0


def test_the_regularisation_is_chosen_by_five_folds_or_by_the_validation_part():
    by_folds, by_part = solve(problem(5)), solve(problem(5), problem(6, n=120))
    assert by_folds.chosen["how"] == "lowest log loss in 5-fold cross-validation of the training part"
    assert by_part.chosen["how"] == "lowest log loss on the validation part"
    in_memory = solve(problem(5), problem(6, n=120), ALL)
    assert by_part.chosen["regularisation"] == in_memory.chosen["regularisation"]
    np.testing.assert_allclose(by_part.chosen["tried"], in_memory.chosen["tried"], rtol=1e-4)


def test_views_are_trained_on_and_never_measured():
    train = problem(7)
    train = dataclasses.replace(train, views=(problem(8).inputs,))
    streamed, whole = (solve(train, memory=memory, regularisation=10.0) for memory in (NOTHING, ALL))
    np.testing.assert_allclose(streamed.weights["1.weight"], whole.weights["1.weight"], atol=2e-4)


def test_a_fold_is_a_rows_own_wherever_it_stands():
    train = problem(9)
    keys = np.random.default_rng(0).integers(2**63, size=412).astype(np.uint64)
    first = streamed_rows.folds(dataclasses.replace(train, keys=keys), 3, 5)
    order = np.random.default_rng(1).permutation(412)
    other = dataclasses.replace(train, labels=train.labels[order], keys=keys[order])
    assert np.array_equal(streamed_rows.folds(other, 3, 5), first[order])
    assert np.bincount(first).min() > 50
    again = streamed_rows.folds(dataclasses.replace(train, keys=keys), 4, 5)
    assert (again != first).mean() > 0.7


def test_a_class_of_one_image_leaves_nothing_to_choose_by():
    train = problem(10)
    labels = np.where(np.arange(412) == 7, 2, train.labels % 2)
    assert solve(Examples(train.inputs, labels)).chosen["how"].startswith("default: a class has too few")


def test_a_row_that_is_not_finite_is_refused():
    train = problem(11)
    train.inputs.rows[400, 3] = np.nan
    with pytest.raises(DataError, match="NaN or infinity"):
        solve(train)
