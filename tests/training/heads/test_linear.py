import dataclasses
import logging
import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import PredefinedSplit
from sklearn.utils.class_weight import compute_sample_weight

from regraft.core.rng import generator
from regraft.training import logistic_regression, loop
from regraft.training.examples import Examples
from regraft.training.folds import deal
from regraft.training.heads import linear
from regraft.training.losses import Loss
from regraft.training.options import FitOptions


def overlapping(seed, classes=3, n=150, width=12):
    labels = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(0, 0.5, (classes, width))
    scales = 10.0 ** np.linspace(-0.5, 0.5, width)
    noise = np.random.default_rng(seed).normal(size=(n, width))
    return Examples(((centres[labels] + noise) * scales + 5).astype(np.float32), labels)


def prepared(train, inputs):
    """Centre by the training rows and divide by the root of their mean variance."""
    known = train.inputs.astype(np.float64)
    return (inputs.astype(np.float64) - known.mean(axis=0)) / np.sqrt(known.var(axis=0).mean())


def reference(strength, train, inputs):
    """Return scikit-learn's probabilities."""
    model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
    return model.fit(prepared(train, train.inputs), train.labels).predict_proba(prepared(train, inputs))


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("strength", [0.1, 10.0, 1000.0])
def test_it_is_the_regression_of_scikit_learn_on_centred_features_of_one_scale(classes, strength):
    train, fresh = overlapping(0, classes), overlapping(1, classes)
    fitted = linear.fit(train, None, classes, linear.Options(regularisation=strength), FitOptions())
    for part in (train, fresh):
        expected = reference(strength, train, part.inputs)
        probabilities = loop.probabilities(fitted.module, part.inputs)
        assert np.abs(probabilities - expected).mean() < 3e-4
        if strength >= 10:  # next to nothing holds weaker ones, so float32 leaves their single rows less exact
            np.testing.assert_allclose(probabilities, expected, atol=1e-3)
        assert log_loss(part.labels, probabilities) == pytest.approx(log_loss(part.labels, expected), abs=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_validation_part_chooses_the_regularisation_that_is_best_of_all(classes):
    train, held = overlapping(0, classes), overlapping(1, classes)
    fitted = linear.fit(train, held, classes, linear.Options(), FitOptions())
    losses = [log_loss(held.labels, reference(strength, train, held.inputs)) for strength in linear.GRID]
    assert fitted.chosen["regularisation"] == linear.GRID[np.argmin(losses)]
    tried = np.array(fitted.chosen["tried"])
    np.testing.assert_allclose(tried[:, 1], losses[: len(tried)], atol=1e-3)
    assert "validation" in fitted.chosen["how"]


def test_cross_validation_chooses_the_regularisation_that_is_best_of_all():
    train = overlapping(0)
    fitted = linear.fit(train, None, 3, linear.Options(), FitOptions(seed=4))
    inputs = prepared(train, train.inputs)
    split = PredefinedSplit(deal(train.labels, np.arange(150), 5, generator(4, "folds")))
    losses = []
    for strength in linear.GRID:
        model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
        trials = [
            log_loss(train.labels[rest], model.fit(inputs[fit], train.labels[fit]).predict_proba(inputs[rest]))
            for fit, rest in split.split()
        ]
        losses.append(np.mean(trials))
    assert fitted.chosen["regularisation"] == linear.GRID[np.argmin(losses)]
    assert "5-fold" in fitted.chosen["how"]


def test_copies_of_a_row_are_in_its_fold():
    """Random labels: only a model that is validated on rows it was trained on seems to predict them."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 60)).repeat(4, axis=0), rng.permutation(np.arange(40) % 2).repeat(4)
    groups = np.arange(40).repeat(4)
    fooled = linear.fit(Examples(inputs, labels), None, 2, linear.Options(), FitOptions())
    honest = linear.fit(Examples(inputs, labels, groups), None, 2, linear.Options(), FitOptions())
    assert fooled.chosen["regularisation"] < 1 < 1000 < honest.chosen["regularisation"]


@pytest.mark.parametrize(
    ("groups", "folds"), [([0, 1, 2, 3, 0, 1, 2, 3], "4-fold"), ([0, 1, 2, 2, 3, 4, 5, 5], "3-fold")]
)
def test_there_are_no_more_folds_than_a_class_has_groups(groups, folds):
    examples = Examples(np.random.default_rng(0).normal(size=(8, 2)), np.repeat([0, 1], 4), np.array(groups))
    assert folds in linear.fit(examples, None, 2, linear.Options(), FitOptions()).chosen["how"]


def test_with_one_group_in_a_class_the_default_is_taken_and_recorded():
    examples = Examples(
        np.random.default_rng(0).normal(size=(6, 2)), np.repeat([0, 1], 3), np.array([0, 0, 0, 1, 2, 3])
    )
    chosen = linear.fit(examples, None, 2, linear.Options(), FitOptions()).chosen
    assert chosen["regularisation"] == linear.DEFAULT
    assert "default" in chosen["how"]


def test_one_picture_a_class_is_enough_to_fit():
    fitted = linear.fit(Examples(np.eye(2), np.arange(2)), None, 2, linear.Options(), FitOptions())
    assert loop.logits(fitted.module, np.eye(2)).argmax(1).tolist() == [0, 1]


@pytest.mark.parametrize("classes", [2, 3])
def test_it_is_trained_on_all_views_each_with_an_equal_fraction_of_the_weight(classes):
    train, views = overlapping(0, classes), [overlapping(seed, classes).inputs for seed in (1, 2)]
    fitted = linear.fit(
        dataclasses.replace(train, views=tuple(views)),
        None,
        classes,
        linear.Options(regularisation=10.0),
        FitOptions(),
    )
    rows, labels = np.concatenate([train.inputs, *views]), np.tile(train.labels, 3)
    whole, fresh = Examples(rows, labels), overlapping(3, classes)
    model = LogisticRegression(C=1 / 10, tol=1e-10, max_iter=10_000)
    model.fit(prepared(whole, rows), labels, sample_weight=np.full(len(rows), 1 / 3))
    expected = model.predict_proba(prepared(whole, fresh.inputs))
    np.testing.assert_allclose(loop.probabilities(fitted.module, fresh.inputs), expected, atol=1e-3)


def unequal(seed, classes):
    """The classes of `overlapping`, of which the first is by far the largest."""
    examples = overlapping(seed, classes, n=300)
    rows = np.flatnonzero((examples.labels == 0) | (np.arange(300) % 5 == 0))
    return Examples(examples.inputs[rows], examples.labels[rows])


@pytest.mark.parametrize("balance", ["weights", "oversample"])
@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_it_is_the_balanced_regression_of_scikit_learn(classes, balance):
    train, fresh = unequal(0, classes), overlapping(1, classes)
    options = FitOptions(balance=balance)
    fitted = linear.fit(train, fresh, classes, linear.Options(regularisation=10.0), options)
    model = LogisticRegression(C=1 / 10, tol=1e-10, max_iter=10_000, class_weight="balanced")
    model.fit(prepared(train, train.inputs), train.labels)
    expected = model.predict_proba(prepared(train, fresh.inputs))
    probabilities = loop.probabilities(fitted.module, fresh.inputs)
    np.testing.assert_allclose(probabilities, expected, atol=2e-3)
    assert log_loss(fresh.labels, probabilities) == pytest.approx(log_loss(fresh.labels, expected), abs=1e-3)
    weighed = log_loss(
        train.labels,
        model.predict_proba(prepared(train, train.inputs)),
        sample_weight=compute_sample_weight("balanced", train.labels),
    )
    assert fitted.history.rows[0].loss == pytest.approx(weighed, abs=1e-3)


def test_balanced_the_regularisation_is_chosen_by_the_weighted_log_loss():
    train, held = unequal(0, 3), unequal(1, 3)
    fitted = linear.fit(train, held, 3, linear.Options(), FitOptions(balance="weights"))
    weights = len(train) / (3 * np.bincount(train.labels))
    losses = []
    for strength in linear.GRID:
        model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000, class_weight="balanced")
        model.fit(prepared(train, train.inputs), train.labels)
        log_probabilities = model.predict_log_proba(prepared(train, held.inputs))
        losses.append(-np.mean(weights[held.labels] * log_probabilities[np.arange(len(held)), held.labels]))
    assert fitted.chosen["regularisation"] == linear.GRID[np.argmin(losses)]
    tried = np.array(fitted.chosen["tried"])
    np.testing.assert_allclose(tried[:, 1], losses[: len(tried)], atol=5e-3)  # weak ones are tried less exactly


def test_of_two_classes_the_sigmoid_is_the_same_model_with_one_output():
    train, fresh = overlapping(0, 2), overlapping(1, 2)
    one, two = (linear.fit(train, fresh, 2, linear.Options(), FitOptions(loss=loss)) for loss in ("sigmoid", "softmax"))
    assert loop.logits(one.module, fresh.inputs).shape == (150, 1)
    probabilities = loop.probabilities(one.module, fresh.inputs, Loss("sigmoid"))
    np.testing.assert_allclose(
        probabilities, loop.probabilities(two.module, fresh.inputs), atol=4e-6
    )  # of rounded weights
    assert one.chosen == two.chosen
    for row, same in zip(one.history.rows, two.history.rows, strict=True):
        assert (row.loss, row.accuracy) == pytest.approx((same.loss, same.accuracy))


def test_smoothing_keeps_the_probabilities_from_0_and_1():
    train = Examples(np.repeat(np.eye(3), 20, axis=0), np.repeat([0, 1, 2], 20))  # that planes part
    options = FitOptions(label_smoothing=0.3)
    fitted = linear.fit(train, None, 3, linear.Options(regularisation=1e-4), options)
    probabilities = loop.probabilities(fitted.module, np.eye(3, dtype=np.float32))
    np.testing.assert_allclose(probabilities, 0.7 * np.eye(3) + 0.1, atol=1e-3)


def multilabel_rows(seed, n=200):
    """Rows of three labels, some with none."""
    inputs = overlapping(seed, n=n).inputs
    wanted = (inputs - 5) @ np.random.default_rng(3).normal(size=(12, 3))
    noise = np.random.default_rng(seed + 50).normal(0, 3, (n, 3))
    return Examples(inputs, (wanted + noise > [0, 2, 4]).astype(np.float32))


def regressions(strength, train, inputs):
    """Return scikit-learn's probability of each label, from a regression of its own."""
    probabilities = []
    for label in range(train.labels.shape[1]):
        model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
        model.fit(prepared(train, train.inputs), train.labels[:, label])
        probabilities.append(model.predict_proba(prepared(train, inputs))[:, 1])
    return np.stack(probabilities, axis=1)


def mean_loss(labels, probabilities):
    return np.mean(
        [log_loss(labels[:, label], probabilities[:, label], labels=[0, 1]) for label in range(labels.shape[1])]
    )


def test_several_labels_have_a_regression_each_with_the_regularisation_of_the_lowest_mean_loss():
    train, held, fresh = multilabel_rows(0), multilabel_rows(1), multilabel_rows(2)
    fitted = linear.fit(train, held, 3, linear.Options(), FitOptions())
    losses = [mean_loss(held.labels, regressions(strength, train, held.inputs)) for strength in linear.GRID]
    strength = linear.GRID[np.argmin(losses)]
    assert fitted.chosen["regularisation"] == strength
    tried = np.array(fitted.chosen["tried"])
    np.testing.assert_allclose(tried[:, 1], losses[: len(tried)], atol=1e-3)
    loss = Loss("sigmoid", multilabel=True)
    expected = regressions(strength, train, fresh.inputs)
    np.testing.assert_allclose(loop.probabilities(fitted.module, fresh.inputs, loss), expected, atol=2e-3)
    assert fitted.history.rows[1].loss == pytest.approx(min(losses), abs=1e-3)


def test_folds_of_several_labels_are_stratified_by_the_rarest_label_of_each_image():
    train = multilabel_rows(0, n=100)
    fitted = linear.fit(train, None, 3, linear.Options(), FitOptions())
    assert "5-fold" in fitted.chosen["how"]
    once = np.zeros((20, 3))
    once[:10, 0], once[5:15, 1], once[0, 2] = 1, 1, 1  # one image only has the last
    chosen = linear.fit(Examples(train.inputs[:20], once), None, 3, linear.Options(), FitOptions()).chosen
    assert chosen["regularisation"] == linear.DEFAULT


def test_views_are_never_validated_on_and_stay_in_the_fold_of_their_image():
    """Random labels, and views equal to their image: one in another fold would show as a low log loss."""
    rng = np.random.default_rng(0)
    inputs, labels = rng.normal(size=(40, 60)), rng.permutation(np.arange(40) % 2)
    plain = linear.fit(Examples(inputs, labels), None, 2, linear.Options(), FitOptions())
    viewed = linear.fit(Examples(inputs, labels, views=(inputs, inputs)), None, 2, linear.Options(), FitOptions())
    np.testing.assert_allclose(viewed.chosen["tried"], plain.chosen["tried"], atol=1e-3)
    far = linear.fit(Examples(inputs, labels, views=(inputs + 1e4,)), None, 2, linear.Options(), FitOptions())
    assert max(loss for _, loss in far.chosen["tried"]) < 5


def test_the_history_is_one_measured_row_a_part():
    train, held = overlapping(0), overlapping(1)
    fitted = linear.fit(train, held, 3, linear.Options(regularisation=1.0), FitOptions())
    assert [(row.epoch, row.part) for row in fitted.history.rows] == [(0, "train"), (0, "validation")]
    for row, part in zip(fitted.history.rows, (train, held), strict=True):
        expected = reference(1.0, train, part.inputs)
        assert row.loss == pytest.approx(log_loss(part.labels, expected), abs=1e-3)
        assert row.accuracy == pytest.approx(np.mean(expected.argmax(1) == part.labels), abs=0.01)


@pytest.mark.parametrize("validation", ["train", "None"])
def test_fitting_imports_neither_torch_nor_scipy_nor_scikit_learn(validation):
    code = (
        "import sys; import numpy as np; from regraft.training.examples import Examples;"
        "from regraft.training.heads import linear; from regraft.training.options import FitOptions;"
        "train = Examples(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2);"
        f"fitted = linear.fit(train, {validation}, 2, linear.Options(), FitOptions());"
        "linear.logits(fitted.weights, train.inputs, linear.Options());"
        "print([name for name in ('torch', 'scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_solution_that_was_not_reached_gives_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(logistic_regression, "MAX_ITERATIONS", 1)
    with caplog.at_level(logging.WARNING, "regraft"):
        linear.fit(overlapping(0), None, 3, linear.Options(regularisation=0.1), FitOptions())
    assert "stopped at 1 iterations" in caplog.text
