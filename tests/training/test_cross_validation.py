import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from regraft.core.errors import DataError, UsageError
from regraft.training import cross_validation
from regraft.training.cross_validation import deal_folds
from regraft.training.examples import Examples
from regraft.training.heads.linear import GRID


def overlapping(seed=0, classes=3, n=120, width=10):
    labels = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(0, 0.8, (classes, width))
    return Examples((centres[labels] + np.random.default_rng(seed).normal(size=(n, width)) + 3).astype("f4"), labels)


def prepared(inputs):
    """Centre and divide by the root of the mean variance, in float64."""
    inputs = np.asarray(inputs, np.float64)
    return (inputs - inputs.mean(axis=0)) / np.sqrt(inputs.var(axis=0).mean())


def left_out(examples, folds, strength):
    """Return scikit-learn's probabilities of each fold by the others."""
    inputs, probabilities = prepared(examples.inputs), np.empty((len(examples), examples.labels.max() + 1))
    for fold in range(folds.max() + 1):
        model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
        model.fit(inputs[folds != fold], examples.labels[folds != fold])
        probabilities[folds == fold] = model.predict_proba(inputs[folds == fold])
    return probabilities


@pytest.mark.parametrize("classes", [2, 4])
def test_each_row_is_predicted_by_the_regression_of_scikit_learn_on_the_other_folds(classes):
    examples = overlapping(classes=classes)
    predicted = cross_validation.cross_validate(examples, classes, repeats=2, seed=3, regularisation=10.0)
    for repeat in range(2):
        folds = cross_validation.draw_folds(examples, seed=3, repeat=repeat)
        np.testing.assert_allclose(predicted[repeat], left_out(examples, folds, 10.0), atol=1e-3)


def test_the_regularisation_of_a_fold_is_the_one_that_the_other_folds_choose():
    examples = overlapping()
    folds = cross_validation.draw_folds(examples, seed=1)
    tried = {strength: left_out(examples, folds, strength) for strength in GRID}
    expected = np.empty((len(folds), 3))
    for fold in range(5):
        held = folds == fold
        best = min(GRID, key=lambda strength: log_loss(examples.labels[~held], tried[strength][~held]))
        expected[held] = tried[best][held]
    predicted = cross_validation.cross_validate(examples, 3, seed=1)[0]
    np.testing.assert_allclose(predicted, expected, atol=0.01)
    assert log_loss(examples.labels, predicted) == pytest.approx(log_loss(examples.labels, expected), abs=1e-3)


def test_random_labels_are_predicted_no_better_than_by_chance():
    """Sixty pairs of copies, more features than rows, regularisation chosen: a leak would show as more than a half."""
    accuracies = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        inputs, labels = rng.normal(size=(60, 90)).repeat(2, axis=0), rng.permutation(np.arange(60) % 2).repeat(2)
        predicted = cross_validation.cross_validate(
            Examples(inputs, labels, np.arange(60).repeat(2)), 2, repeats=2, seed=seed
        )
        accuracies.append((predicted.argmax(axis=2) == labels).mean())
    assert np.mean(accuracies) == pytest.approx(0.5, abs=3 * np.std(accuracies) / np.sqrt(20))


def test_the_estimate_is_the_accuracy_of_such_regressions_on_new_rows():
    estimates, truths = [], []
    for seed in range(20):
        examples, fresh = overlapping(seed, 2, 60), overlapping(1000 + seed, 2, 4000)
        predicted = cross_validation.cross_validate(examples, 2, seed=seed)[0]
        estimates.append((predicted.argmax(axis=1) == examples.labels).mean())
        rows = cross_validation.draw_folds(examples, seed=seed) != 0
        model = LogisticRegression(C=0.1).fit(examples.inputs[rows], examples.labels[rows])
        truths.append(model.score(fresh.inputs, fresh.labels))
    error = np.std(np.subtract(estimates, truths)) / np.sqrt(20)
    assert np.mean(estimates) == pytest.approx(np.mean(truths), abs=3 * error)


def test_folds_hold_equally_many_of_each_class_and_never_split_a_group():
    labels, groups = np.repeat([0, 1, 2], [50, 30, 20]), np.arange(100) // 2
    examples = Examples(np.zeros((100, 1)), labels, groups)
    drawn = [cross_validation.draw_folds(examples, 5, seed=0, repeat=repeat) for repeat in range(3)]
    for folds in drawn:
        assert all(len(set(folds[groups == group])) == 1 for group in range(50))
        counts = np.array([np.bincount(folds[labels == label], minlength=5) for label in range(3)])
        assert counts.tolist() == [[10] * 5, [6] * 5, [4] * 5]
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[2], cross_validation.draw_folds(examples, 5, seed=0, repeat=2))


def test_there_are_no_more_folds_than_a_class_has_groups():
    examples = Examples(np.random.default_rng(0).normal(size=(20, 3)), np.repeat([0, 1], [14, 6]), np.arange(20) // 2)
    assert set(cross_validation.draw_folds(examples)) == {0, 1, 2}
    assert cross_validation.cross_validate(examples, 2).shape == (1, 20, 2)


def test_what_can_not_be_cross_validated_is_refused_with_the_reason():
    rows = np.random.default_rng(0).normal(size=(6, 2))
    with pytest.raises(DataError, match="Class 1 has a single image"):
        cross_validation.cross_validate(Examples(rows, [0, 0, 0, 0, 1, 1], np.array([0, 1, 2, 3, 4, 4])), 2)
    with pytest.raises(DataError, match="class 2"):
        cross_validation.cross_validate(Examples(rows, [0, 0, 0, 1, 1, 1]), 3)
    with pytest.raises(DataError, match="NaN"):
        cross_validation.cross_validate(Examples(rows * np.nan, [0, 0, 0, 1, 1, 1]), 2)
    with pytest.raises(UsageError, match="folds"):
        cross_validation.cross_validate(Examples(rows, [0, 0, 0, 1, 1, 1]), 2, n_folds=1)


def test_the_last_point_of_the_curve_is_the_cross_validation_of_all():
    examples = overlapping()
    curve = cross_validation.learning_curve(examples, 3, repeats=2, seed=5)
    predicted = cross_validation.cross_validate(examples, 3, repeats=2, seed=5).argmax(axis=2)
    np.testing.assert_array_equal(curve.correct[-1], predicted == examples.labels)
    assert curve.sizes == (12, 24, 48, 96)
    assert curve.accuracy[-1] == pytest.approx((predicted == examples.labels).mean())
    assert curve.recalls[-1].tolist() == pytest.approx(
        [(predicted[:, examples.labels == label] == label).mean() for label in range(3)]
    )


def test_accuracy_rises_with_the_number_of_rows_where_there_is_something_to_learn():
    curve = cross_validation.learning_curve(overlapping(n=480), 3, repeats=3)
    assert np.all(np.diff(curve.accuracy) > -0.01) and curve.accuracy[-1] > curve.accuracy[0] + 0.05
    assert cross_validation.learning_curve(overlapping(n=480), 3, sizes=[100, 50], repeats=1).sizes == (50, 100)


def test_each_size_has_each_class_in_proportion_in_whole_groups(monkeypatch):
    labels, groups = np.repeat([0, 1], [160, 40]), np.arange(200) // 4
    rows = np.random.default_rng(0).permutation(200)
    examples = Examples(rows[:, None].astype("f4"), labels[rows], groups[rows])
    drawn = cross_validation.draw_folds(examples)
    calls = []
    monkeypatch.setattr(
        cross_validation, "_predicted", lambda *arguments: calls.append(arguments[4]) or np.zeros((200, 2))
    )
    sizes = cross_validation.learning_curve(examples, 2, repeats=1).sizes
    assert sizes == (10, 20, 40, 80, 160)
    for rows, size in zip(calls, sizes, strict=True):
        assert len(rows) == len(set(rows)) == pytest.approx(size / 0.8, abs=0.6)
        assert len({(examples.labels[row], drawn[row]) for row in rows}) == 10
        if size >= 40:
            assert np.mean(examples.labels[rows] == 1) == pytest.approx(0.2, abs=0.02)
    whole = np.bincount(examples.groups[calls[-2]], minlength=50)
    assert np.mean(np.isin(whole, (0, 4))) > 0.7


def test_a_size_out_of_range_is_refused_with_the_range():
    with pytest.raises(UsageError, match=r"12 .* to 96"):
        cross_validation.learning_curve(overlapping(), 3, sizes=[97])
    with pytest.raises(UsageError, match="expected 12"):
        cross_validation.learning_curve(overlapping(), 3, sizes=[5])


def test_the_score_of_a_fold_is_its_accuracy():
    correct = np.array([[1, 1, 0, 0, 1], [0, 1, 1, 1, 1]], bool)
    folds = np.array([[0, 0, 0, 1, 1], [1, 1, 0, 0, 0]])
    assert cross_validation.fold_scores(correct, folds).tolist() == pytest.approx([2 / 3, 1 / 2, 1, 1 / 2])


def test_some_rows_of_examples_keep_labels_groups_and_views():
    inputs = np.arange(8.0).reshape(4, 2)
    taken = cross_validation.take(
        Examples(inputs, [0, 1, 0, 1], np.arange(4), (inputs + 1, inputs + 2)), np.array([3, 0])
    )
    assert taken.inputs.tolist() == [[6, 7], [0, 1]] and taken.views[1].tolist() == [[8, 9], [2, 3]]
    assert taken.labels.tolist() == [1, 0] and taken.groups.tolist() == [3, 0]


def test_dealt_folds_hold_each_class_in_equal_shares_and_keep_groups_together():
    labels = np.repeat([0, 1, 2], [50, 23, 7])
    groups = np.arange(80) // 2
    examples = Examples(np.zeros((80, 1), np.float32), labels, groups=groups)
    [folds] = deal_folds(examples, 5)
    for group in range(40):
        assert len(set(folds[groups == group])) == 1
    for label in range(3):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 4  # two groups of two
    with pytest.raises(DataError, match="a single image"):
        deal_folds(Examples(np.zeros((3, 1), np.float32), np.array([0, 0, 1])), 5)
