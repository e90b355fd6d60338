"""The prototype head: the nearest mean direction, its scale chosen with each image left out."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.spatial.distance import cdist
from sklearn.metrics import log_loss
from tests.training.heads.test_contract import blobs

from regraft.core.errors import UsageError
from regraft.training.examples import Examples
from regraft.training.heads import prototype
from regraft.training.options import FitOptions


def fitted(train, **choices):
    return prototype.fit(train, None, int(train.labels.max()) + 1, prototype.Options(**choices), FitOptions())


def noisy(n=40, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return Examples((rng.normal(size=(classes, 8))[labels] + rng.normal(size=(n, 8))).astype(np.float32), labels)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_of_even_classes_it_names_the_class_whose_mean_direction_is_nearest():
    train, fresh = noisy(), noisy(seed=0, n=40).inputs + 0.3
    mean = train.inputs.mean(axis=0)
    rows = unit(train.inputs - mean)
    centroids = np.stack([unit(rows[train.labels == label].mean(axis=0)) for label in range(4)])
    nearest = cdist(fresh - mean, centroids, "cosine").argmin(axis=1)
    logits = prototype.logits(fitted(train).weights, fresh, prototype.Options())
    np.testing.assert_array_equal(logits.argmax(axis=1), nearest)


def left_out(train, groups):
    """The cosines of each row with prototypes made without its group, one row at a time."""
    rows = unit(train.inputs - train.inputs.mean(axis=0))
    for row, group in zip(rows, groups, strict=True):
        others = groups != group
        yield [row @ unit(rows[others & (train.labels == label)].sum(axis=0)) for label in range(4)]


@pytest.mark.parametrize("copies", [1, 2])
def test_the_scale_has_the_lowest_log_loss_of_images_predicted_without_them_and_their_copies(copies):
    once = noisy(80)
    groups = np.repeat(np.arange(80), copies)
    train = Examples(np.repeat(once.inputs, copies, axis=0), np.repeat(once.labels, copies), groups)
    cosines = np.array(list(left_out(train, groups)))

    def loss(logarithm):
        exponents = np.exp(np.exp(logarithm) * cosines)
        prior = (logarithm - np.log(prototype.DEFAULT)) ** 2 / 2 / len(train)
        return log_loss(train.labels, exponents / exponents.sum(axis=1, keepdims=True)) + prior

    best = np.exp(minimize_scalar(loss, bounds=(-3, 5), method="bounded").x)
    assert fitted(train).chosen["scale"] == pytest.approx(best, rel=1e-2)


def test_one_image_of_a_class_is_enough():
    train = blobs(0, classes=3, n=3)
    result = fitted(train)
    fresh = blobs(1)
    assert result.chosen == {
        "scale": prototype.DEFAULT,
        "how": "default: a class has too few training images to choose from",
    }
    assert np.mean(prototype.logits(result.weights, fresh.inputs, prototype.Options()).argmax(1) == fresh.labels) > 0.9


def test_where_features_can_not_tell_the_classes_the_probabilities_are_their_frequencies():
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], [300, 100])
    result = fitted(Examples(rng.normal(size=(400, 5)).astype(np.float32), labels))
    logits = prototype.logits(result.weights, rng.normal(size=(200, 5)).astype(np.float32), prototype.Options())
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert probabilities[:, 1].mean() == pytest.approx(0.25, abs=0.05)


def test_views_move_the_prototypes_and_are_left_out_with_their_image():
    train = noisy(40)
    shifted = Examples(train.inputs, train.labels, views=(train.inputs + np.float32(0.5),))
    assert not np.allclose(fitted(train).weights["1.weight"], fitted(shifted).weights["1.weight"])
    again = Examples(train.inputs, train.labels, views=(train.inputs,))
    assert fitted(again).chosen["scale"] == pytest.approx(fitted(train).chosen["scale"], rel=1e-3)


def test_a_scale_of_ones_own_is_kept_and_one_below_0_refused():
    assert fitted(noisy(), scale=3).chosen == {"scale": 3.0, "how": "given"}
    with pytest.raises(UsageError, match="scale"):
        prototype.Options(scale=-1)
