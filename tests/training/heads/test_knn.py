"""The knn head: weighted votes of the nearest training images, at most so many of which are kept."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from tests.training.heads.test_contract import blobs
from tests.training.heads.test_prototype import noisy, unit

from regraft.core.errors import UsageError
from regraft.training import finetune
from regraft.training.examples import Examples
from regraft.training.heads import knn
from regraft.training.options import FitOptions


def fitted(train, seed=0, **choices):
    return knn.fit(train, None, int(train.labels.max()) + 1, knn.Options(**choices), FitOptions(head="knn", seed=seed))


def probabilities(result, inputs):
    logits = knn.logits(result.weights, inputs, knn.Options()).astype(np.float64)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("neighbours", [1, 5, 20])
def test_its_votes_are_those_of_scikit_learn_and_the_frequencies_of_the_classes(neighbours):
    train, fresh = noisy(60), noisy(30, seed=2).inputs
    result = fitted(train, neighbours=neighbours)
    scale, prior = result.chosen["scale"], result.chosen["prior"]
    mean = train.inputs.mean(axis=0)
    rows = unit(train.inputs - mean)
    model = KNeighborsClassifier(neighbours, metric="cosine").fit(rows, train.labels)
    far, near = model.kneighbors(unit(fresh - mean))
    weights = np.exp(scale * (far[:, :1] - far))
    votes = np.stack([(weights * (train.labels[near] == label)).sum(axis=1) for label in range(4)], axis=1) + prior / 4
    np.testing.assert_allclose(probabilities(result, fresh), votes / votes.sum(axis=1, keepdims=True), rtol=1e-3)


def test_copies_of_an_image_do_not_vouch_for_it():
    """Labels that mean nothing, and each image twice: were a copy a neighbour, one neighbour would always be right."""
    rng = np.random.default_rng(0)
    inputs, labels, groups = rng.normal(size=(60, 8)), rng.integers(2, size=60), np.arange(60)
    twice = Examples(np.repeat(inputs, 2, axis=0).astype(np.float32), np.repeat(labels, 2), np.repeat(groups, 2))
    alone = Examples(twice.inputs, twice.labels)
    assert fitted(twice).chosen["prior"] == max(knn.PRIORS)
    assert fitted(alone).chosen["prior"] == min(knn.PRIORS)


def test_it_keeps_no_more_images_than_asked_for_and_some_of_every_class():
    labels = np.repeat([0, 1, 2], [200, 60, 3])
    centres = np.random.default_rng(1).normal(size=(3, 5)) * 5
    noise = np.random.default_rng(0).normal(size=(263, 5))
    train = Examples((centres[labels] + noise).astype(np.float32), labels)
    result = fitted(train, rows=50)
    kept = result.weights["votes"][:, :3].sum(axis=0)
    assert kept.sum() <= 51 and kept.min() >= 1 and kept[0] > kept[1]
    assert result.history.rows[0].images == 263
    assert (fitted(train, rows=50).weights["rows"] == result.weights["rows"]).all()
    assert not np.array_equal(fitted(train, seed=1, rows=50).weights["rows"], result.weights["rows"])


def test_one_image_of_a_class_is_enough():
    fresh = blobs(1)
    result = fitted(blobs(0, n=3))
    assert "too few" in result.chosen["how"]
    assert np.mean(probabilities(result, fresh.inputs).argmax(1) == fresh.labels) > 0.9


@pytest.mark.parametrize("choices", [{"neighbours": 0}, {"rows": 0}, {"rows": None}, {"neighbours": 1.5}])
def test_what_is_no_number_of_images_is_refused(choices):
    with pytest.raises(UsageError):
        knn.Options(**choices)


def test_it_can_not_be_trained_with_a_tail():
    with pytest.raises(UsageError, match=r"--head is 'knn'.*--tail"):
        finetune.plan(FitOptions(head="knn"), pretrained=True, trained=False)
    assert finetune.plan(FitOptions(head="knn", phases="head"), pretrained=True, trained=False) == ("head",)
