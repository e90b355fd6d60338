import dataclasses
import logging

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold

from regraft.core.rng import derive
from regraft.graft import loop, softmax
from regraft.graft.examples import Examples
from regraft.graft.heads import linear
from regraft.graft.options import FitOptions


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
        found = loop.probabilities(fitted.module, part.inputs)
        assert np.abs(found - expected).mean() < 3e-4
        if strength >= 10:  # next to nothing holds weaker ones, so float32 leaves their single rows less exact
            np.testing.assert_allclose(found, expected, atol=1e-3)
        assert log_loss(part.labels, found) == pytest.approx(log_loss(part.labels, expected), abs=1e-3)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_validation_part_chooses_the_strength_that_trying_all_finds(classes):
    train, held = overlapping(0, classes), overlapping(1, classes)
    fitted = linear.fit(train, held, classes, linear.Options(), FitOptions())
    losses = [log_loss(held.labels, reference(strength, train, held.inputs)) for strength in linear.GRID]
    assert fitted.chosen["regularisation"] == linear.GRID[np.argmin(losses)]
    tried = np.array(fitted.chosen["tried"])
    np.testing.assert_allclose(tried[:, 1], losses[: len(tried)], atol=1e-3)
    assert "validation" in fitted.chosen["how"]


def test_cross_validation_chooses_the_strength_that_trying_all_finds():
    train = overlapping(0)
    fitted = linear.fit(train, None, 3, linear.Options(), FitOptions(seed=4))
    inputs = prepared(train, train.inputs)
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=derive(4, "folds") % 2**32)
    losses = []
    for strength in linear.GRID:
        model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000)
        trials = [
            log_loss(train.labels[rest], model.fit(inputs[fit], train.labels[fit]).predict_proba(inputs[rest]))
            for fit, rest in folds.split(inputs, train.labels, np.arange(150))
        ]
        losses.append(np.mean(trials))
    assert fitted.chosen["regularisation"] == linear.GRID[np.argmin(losses)]
    assert "5-fold" in fitted.chosen["how"]


def test_copies_of_a_row_do_not_judge_what_was_fitted_on_it():
    """Labels that mean nothing: only who meets the same rows again believes that they can be learnt."""
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


def test_with_one_group_in_a_class_the_default_is_taken_and_said():
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
def test_it_learns_from_all_views_each_as_its_share_of_the_image(classes):
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


def test_views_judge_nothing_and_stay_in_the_fold_of_their_image():
    """Labels that mean nothing, and views that equal their image: a view on the other side would give them away."""
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


def test_a_solution_that_was_not_reached_is_said(monkeypatch, caplog):
    monkeypatch.setattr(softmax, "MAX_ITERATIONS", 1)
    with caplog.at_level(logging.WARNING, "regraft"):
        linear.fit(overlapping(0), None, 3, linear.Options(regularisation=0.1), FitOptions())
    assert "stopped at 1 iterations" in caplog.text
