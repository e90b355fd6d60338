import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight

from regraft.training import logistic_regression
from regraft.training.logistic_regression import Regressions, Rows


def problem(seed, classes=3, n=120, width=8, folds=3):
    """Return rows that overlap, the last number 1, their labels, and the fold of each, sorted."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    inputs = rng.normal(0, 0.7, (classes, width))[labels] + rng.normal(size=(n, width))
    return np.c_[inputs, np.ones(n)].astype(np.float32), labels, np.arange(n) * folds // n


def reference(inputs, labels, strength):
    """Return scikit-learn's regression; of two classes it penalises the difference, half of the two weights'."""
    factor = 2 if labels.max() == 1 else 1
    model = LogisticRegression(C=factor / strength, tol=1e-10, max_iter=10_000)
    return model.fit(inputs[:, :-1].astype(np.float64), labels)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_along_a_path_each_fold_is_solved_and_its_loss_measured_as_by_scikit_learn(classes):
    inputs, labels, folds = problem(0, classes)
    regressions = Regressions(Rows(inputs, labels, folds), classes)
    for strength in (1e4, 1e2, 1.0):
        assert regressions.solve(strength, 1e-8)
        models = [reference(inputs[folds != fold], labels[folds != fold], strength) for fold in range(3)]
        expected = [
            log_loss(labels[folds == fold], model.predict_proba(inputs[folds == fold, :-1]))
            for fold, model in enumerate(models)
        ]
        np.testing.assert_allclose(regressions.losses(), expected, rtol=1e-3)


def test_the_objective_is_the_lowest_that_another_minimiser_finds():
    inputs, labels, _ = problem(1)

    def objective(weights):
        weights = weights.reshape(3, 9)
        return -log_softmax(inputs @ weights.T, axis=1)[np.arange(120), labels].mean() + weights[:, :-1].ravel() @ (
            weights[:, :-1].ravel() * 5 / 240
        )

    regressions = Regressions(Rows(inputs, labels, np.full(120, -1)), 3)
    assert regressions.solve(5.0, 1e-9)
    lowest = minimize(objective, np.zeros(27), method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}).fun
    assert objective(regressions.weights[0].astype(np.float64)) == pytest.approx(lowest, abs=1e-6)


def test_the_bias_is_free_of_the_penalty():
    inputs, _, _ = problem(2)
    labels = (np.arange(120) < 90).astype(int)
    regressions = Regressions(Rows(inputs, labels, np.full(120, -1)), 2)
    assert regressions.solve(1e9, 1e-10)
    first, second = regressions.weights[0, :, -1]
    assert np.abs(regressions.weights[0, :, :-1]).max() < 1e-4
    assert second - first == pytest.approx(np.log(3), abs=1e-3)


def test_rows_that_none_leaves_out_are_trained_on_by_all():
    inputs, labels, _ = problem(3)
    left_out = np.repeat([-1, 0, 1], 40)
    regressions = Regressions(Rows(inputs, labels, left_out), 3)
    regressions.solve(1.0, 1e-8)
    for number in range(2):
        rows = left_out != number
        alone = Regressions(Rows(inputs[rows], labels[rows], np.full(80, -1)), 3)
        alone.solve(1.0, 1e-8)
        np.testing.assert_allclose(regressions.weights[number], alone.weights[0], atol=5e-3)


def test_the_loss_is_that_of_the_measured_rows_alone():
    inputs, labels, folds = problem(4)
    measured = np.arange(120) % 2 == 0
    regressions = Regressions(Rows(inputs, labels, folds, measured=measured), 3)
    regressions.solve(1.0, 1e-8)
    losses = regressions.losses()
    for number in range(3):
        rows = measured & (folds == number)
        logits = inputs[rows] @ regressions.weights[number].T
        expected = -log_softmax(logits, axis=1)[np.arange(rows.sum()), labels[rows]].mean()
        assert losses[number] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("number", [1, 3])
def test_the_solution_is_the_same_on_any_number_of_cores(monkeypatch, number):
    inputs, labels, folds = problem(5)
    monkeypatch.setattr(logistic_regression, "SMALL", 0)
    monkeypatch.setattr(logistic_regression, "BLOCK", 7)
    solutions = []
    for cores in (1, number):
        monkeypatch.setattr(logistic_regression, "cores", lambda cores=cores: cores)
        regressions = Regressions(Rows(inputs, labels, folds), 3)
        regressions.solve(1.0, 1e-6)
        solutions.append(regressions.weights)
    assert np.array_equal(*solutions)


def test_divided_among_cores_or_not_the_solution_is_the_same_within_rounding(monkeypatch):
    inputs, labels, folds = problem(6)
    whole = Regressions(Rows(inputs, labels, folds), 3)
    whole.solve(1.0, 1e-8)
    monkeypatch.setattr(logistic_regression, "SMALL", 0)
    monkeypatch.setattr(logistic_regression, "BLOCK", 7)
    shared = Regressions(Rows(inputs, labels, folds), 3)
    shared.solve(1.0, 1e-8)
    np.testing.assert_allclose(shared.losses(), whole.losses(), atol=1e-4)


def test_separable_classes_with_almost_no_penalty_are_solved():
    labels = np.arange(40) % 2
    inputs = np.c_[np.random.default_rng(0).normal(size=(40, 3)) + 50 * labels[:, None], np.ones(40)].astype(np.float32)
    regressions = Regressions(Rows(inputs, labels, np.full(40, -1)), 2)
    assert regressions.solve(1e-6, 1e-7)
    assert np.array_equal((inputs @ regressions.weights[0].T).argmax(1), labels)


def test_a_solution_that_was_not_reached_is_returned_as_such(monkeypatch):
    monkeypatch.setattr(logistic_regression, "MAX_ITERATIONS", 2)
    inputs, labels, folds = problem(7)
    assert not Regressions(Rows(inputs, labels, folds), 3).solve(1e-2, 1e-9)


@pytest.mark.parametrize("classes", [2, 4])
def test_weighted_rows_are_solved_as_by_scikit_learn(classes):
    inputs, labels, folds = problem(8, classes)
    labels = np.where(np.arange(120) % 4 > 0, 0, labels)  # most are of the first class
    weights = compute_sample_weight("balanced", labels)
    regressions = Regressions(Rows(inputs, labels, folds, row_weights=weights), classes)
    assert regressions.solve(10.0, 1e-9)
    for fold, loss in enumerate(regressions.losses()):
        fit, rest = folds != fold, folds == fold
        model = LogisticRegression(C=(2 if classes == 2 else 1) / 10, tol=1e-10, max_iter=10_000)
        model.fit(inputs[fit, :-1].astype(np.float64), labels[fit], sample_weight=weights[fit])
        log_probabilities = model.predict_log_proba(inputs[rest, :-1])
        assert loss == pytest.approx(-(weights[rest] * log_probabilities[np.arange(40), labels[rest]]).mean(), rel=1e-3)


def test_smoothed_labels_are_solved_as_by_another_minimiser():
    inputs, labels, _ = problem(9)
    targets = 0.8 * np.eye(3)[labels] + 0.2 / 3

    def objective(weights):
        weights = weights.reshape(3, 9)
        entropy = -(targets * log_softmax(inputs @ weights.T, axis=1)).sum(axis=1).mean()
        return entropy + np.square(weights[:, :-1]).sum() * 5 / 240

    regressions = Regressions(Rows(inputs, labels, np.full(120, -1), smoothing=0.2), 3)
    assert regressions.solve(5.0, 1e-9)
    lowest = minimize(objective, np.zeros(27), method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}).fun
    assert objective(regressions.weights[0].astype(np.float64)) == pytest.approx(lowest, abs=1e-6)


def multilabel_rows(seed):
    """Return rows with four labels each, the last of them rare, and the fold of each row."""
    inputs, _, folds = problem(seed)
    rng = np.random.default_rng(seed)
    wanted = inputs @ rng.normal(size=(9, 4)) + rng.normal(size=(120, 4))
    return inputs, (wanted > [0, 0, 1, 4]).astype(np.float32), folds


def test_several_labels_are_each_the_regression_of_scikit_learn():
    inputs, labels, folds = multilabel_rows(10)
    regressions = Regressions(Rows(inputs, labels, folds), 4)
    for strength in (100.0, 10.0):
        assert regressions.solve(strength, 1e-9)
        for fold, loss in enumerate(regressions.losses()):
            fit, rest = folds != fold, folds == fold
            expected = []
            for label in range(4):
                model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
                model.fit(inputs[fit, :-1].astype(np.float64), labels[fit, label])
                expected.append(log_loss(labels[rest, label], model.predict_proba(inputs[rest, :-1]), labels=[0, 1]))
            assert loss == pytest.approx(np.mean(expected), rel=1e-3)


def test_smoothed_several_labels_are_solved_as_by_another_minimiser():
    inputs, labels, _ = multilabel_rows(11)
    targets = 0.8 * labels + 0.1

    def objective(weights):
        logits = inputs @ weights.reshape(4, 9).T
        entropy = -(targets * np.log(expit(logits)) + (1 - targets) * np.log(expit(-logits))).sum(axis=1).mean()
        return entropy + np.square(weights.reshape(4, 9)[:, :-1]).sum() * 5 / 240

    regressions = Regressions(Rows(inputs, labels, np.full(120, -1), smoothing=0.2), 4)
    assert regressions.solve(5.0, 1e-9)
    lowest = minimize(objective, np.zeros(36), method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}).fun
    assert objective(regressions.weights[0].astype(np.float64)) == pytest.approx(lowest, abs=1e-6)
