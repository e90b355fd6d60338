"""What tells a picture of none of the classes: distances by another library, thresholds by counting."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from regraft.core.errors import RefusedFile
from regraft.model import evidence


def classes(n=400, width=20, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    return (np.eye(4, width)[labels] * 6 + rng.normal(size=(n, width)) + 1).astype(np.float32), labels


def known(n=400, seed=0):
    features, labels = classes(n, seed=seed)
    rows, numbers = evidence.directions(features), np.arange(n)
    chosen = evidence.choose(labels, np.random.default_rng(0))
    far = evidence.distances(rows, rows[chosen], (numbers, numbers[chosen]))
    return evidence.of_rows(rows[chosen], far, features[:, :4])


def test_the_distance_is_the_mean_cosine_distance_to_the_five_nearest_as_scikit_learn_has_it():
    features, _ = classes()
    strangers = np.random.default_rng(1).normal(size=(7, 20)).astype(np.float32)
    nearest = NearestNeighbors(n_neighbors=5, metric="cosine").fit(features).kneighbors(strangers)[0].mean(axis=1)
    far = evidence.distances(evidence.directions(strangers), evidence.directions(features))
    np.testing.assert_allclose(far, nearest, atol=1e-5)


def test_neighbours_of_a_rows_own_group_do_not_count():
    rows = evidence.directions(np.repeat(classes(40)[0], 2, axis=0))
    groups = np.repeat(np.arange(40), 2)
    alone = evidence.distances(rows, rows, (np.arange(80), np.arange(80)))
    apart = evidence.distances(rows, rows, (groups, groups))
    assert (alone < apart - 1e-3).all()  # its copy is nearest


def test_features_with_positions_are_averaged_over_them():
    maps = np.random.default_rng(2).random((3, 8, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(evidence.directions(maps), evidence.directions(maps.mean(axis=(2, 3))), atol=1e-6)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_of_new_images_of_the_classes_no_more_than_the_rate_are_unknown_on_average(rate):
    rates = []
    for seed in range(30):
        one, (new, _) = known(seed=seed), classes(1000, seed=1000 + seed)
        rates.append((one.novelty(new, new[:, :4]) > one.threshold(rate)).mean())
    assert np.mean(rates) == pytest.approx(rate, abs=0.4 * rate)


def test_other_things_are_told_though_the_head_is_confident_and_small_logits_though_they_are_near():
    one, (new, _) = known(), classes(500, seed=5)
    other = np.random.default_rng(6).normal(size=(500, 20)).astype(np.float32)
    confident = np.tile([30, 0, 0, 0], (500, 1))
    scores = np.concatenate([one.novelty(new, new[:, :4]), one.novelty(other, confident)])
    assert roc_auc_score(np.repeat([0, 1], 500), scores) > 0.99
    scores = np.concatenate([one.novelty(new, new[:, :4]), one.novelty(new, np.zeros((500, 4)))])
    assert roc_auc_score(np.repeat([0, 1], 500), scores) > 0.95


def test_nothing_is_unknown_where_too_few_rows_are_known_for_the_rate():
    few = known(12)
    assert few.threshold(0.05) == math.inf
    assert few.threshold(0.2) < math.inf
    assert known().threshold(0) == math.inf


def test_what_is_kept_is_bounded_and_even_over_the_classes():
    labels = np.repeat([0, 1, 2], [5000, 900, 100])
    chosen = evidence.choose(labels, np.random.default_rng(0))
    assert len(chosen) == len(set(chosen)) == evidence.REFERENCES
    assert np.bincount(labels[chosen]).tolist() == [450, 450, 100]


def test_it_comes_back_from_its_tensors_and_is_refused_where_they_are_off():
    one = known()
    features, _ = classes(20, seed=9)
    back = evidence.restore(one.tensors(), "file")
    np.testing.assert_array_equal(back.novelty(features, features[:, :4]), one.novelty(features, features[:, :4]))
    for name, tensor in (
        ("scores", one.scores[::-1]),
        ("logits", one.logits[1:]),
        ("distances", np.full(400, np.nan, np.float32)),
        ("references", one.references[0]),
    ):
        with pytest.raises(RefusedFile, match="file does not hold"):
            evidence.restore({**one.tensors(), name: tensor}, "file")


def named(one, pictures=True):
    names = [
        evidence.Reference(
            f"{number:064x}", f"photos/ä{number}.jpg", b"RIFF%d" % number if pictures and number % 2 else b""
        )
        for number in range(len(one.references))
    ]
    return dataclasses.replace(one, named=tuple(names))


@pytest.mark.parametrize("pictures", [True, False])
def test_the_nearest_training_images_are_those_of_scikit_learn_among_those_with_a_picture(pictures):
    one, strangers = named(known(), pictures), np.random.default_rng(1).normal(size=(7, 20)).astype(np.float32)
    numbers = np.arange(1, 400, 2) if pictures else np.arange(400)
    expected = NearestNeighbors(n_neighbors=5, metric="cosine").fit(one.references[numbers].astype(np.float32))
    distances, rows = expected.kneighbors(strangers)
    for row, nearest in enumerate(one.nearest(strangers, 5)):
        assert [int(each.id, 16) for each, _ in nearest] == numbers[rows[row]].tolist()
        np.testing.assert_allclose([near for _, near in nearest], 1 - distances[row], atol=1e-3)


def test_of_equal_training_images_one_is_near():
    one = named(known())
    one = dataclasses.replace(one, named=tuple(each._replace(id="00" * 32, picture=b"x") for each in one.named))
    assert [len(nearest) for nearest in one.nearest(classes(3)[0], 5)] == [1, 1, 1]


def test_what_names_the_references_is_kept_and_models_that_kept_none_still_open():
    one = named(known())
    again = evidence.restore(one.tensors(), "evidence.safetensors")
    assert again.named == one.named
    plain = {name: one.tensors()[name] for name in evidence.MEASURED}
    assert evidence.restore(plain, "evidence.safetensors").named == ()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ids", lambda array: array[:-1]),
        ("ids", lambda array: array.astype(np.float32)),
        ("paths", lambda array: array[:-1]),
        ("paths_end", lambda array: array[::-1].copy()),
        ("paths_end", lambda array: array - 1000),
        ("pictures_end", lambda array: array[:3]),
        ("pictures", None),
    ],
)
def test_names_of_references_that_are_off_are_refused(name, change):
    tensors = named(known(40)).tensors()
    tensors = {key: change(array) if key == name else array for key, array in tensors.items() if change or key != name}
    with pytest.raises(RefusedFile, match="does not name its training images"):
        evidence.restore(tensors, "evidence.safetensors")
