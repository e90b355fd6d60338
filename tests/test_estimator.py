"""scikit-learn's face: the estimator on paths does what scikit-learn's tools expect of it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import regraft
from regraft.core.errors import DataError, UnknownName
from tests.conftest import PLAIN

FAST = {**PLAIN, "views": 0}


@pytest.fixture(scope="module")
def paths(photos):
    return sorted(photos.rglob("*.png"))


@pytest.fixture(scope="module")
def labels(paths):
    return [path.parent.name for path in paths]


@pytest.fixture(scope="module")
def fitted(paths, labels):
    return regraft.Classifier(**FAST).fit(paths, labels)


@pytest.mark.parametrize(
    "check",
    [
        # Those of scikit-learn's checks that need no data. The others feed arrays of numbers, and X is paths here:
        # they are passed by FeatureClassifier, which has the same heads (tests/graft/test_classifier.py).
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ],
)
def test_it_passes_the_checks_of_scikit_learn_that_need_no_arrays(check):
    check("Classifier", regraft.Classifier())


def test_its_tags_say_that_it_takes_no_arrays_of_numbers():
    tags = regraft.Classifier().__sklearn_tags__()
    assert not tags.input_tags.two_d_array and tags.input_tags.string


def test_clone_and_get_params_keep_every_option():
    original = regraft.Classifier(
        backbone="resnet50", epochs=3, engine="torch", views=4, head_options={"hidden": 8}, head="mlp"
    )
    assert clone(original).get_params() == original.get_params()
    assert original.get_params()["batch_size"] == regraft.Classifier().batch_size


def test_an_option_that_is_not_there_is_refused():
    with pytest.raises(TypeError, match="bakbone"):
        regraft.Classifier(bakbone="resnet50")


def test_an_option_out_of_range_is_refused_when_it_is_fitted(paths, labels):
    with pytest.raises(UnknownName, match="linear"):
        regraft.Classifier(head="liner").fit(paths, labels)


def test_fitting_on_paths_and_labels_learns_from_all_of_them(fitted, paths, labels):
    assert {part for _, part in fitted.model_.images.values()} == {"train"}
    assert len(fitted.model_.images) == len(paths)
    assert list(fitted.predict(paths)) == labels
    assert fitted.score(paths, labels) == 1


def test_probabilities_have_a_column_for_each_class_in_the_order_of_classes(paths):
    numbers = [{"blue": 10, "green": 9, "red": 2}[path.parent.name] for path in paths]  # as text, "10" sorts first
    classifier = regraft.Classifier(**FAST).fit(paths, numbers)
    assert list(classifier.classes_) == [2, 9, 10]
    probabilities = classifier.predict_proba(paths)
    assert probabilities.shape == (len(paths), 3) and probabilities.sum(axis=1) == pytest.approx(1)
    assert log_loss(numbers, probabilities, labels=classifier.classes_) < 0.2
    assert classifier.predict(paths).dtype == np.asarray(numbers).dtype


def test_cross_validation_trains_on_the_folds_alone(paths, labels):
    scores = cross_val_score(regraft.Classifier(**FAST), paths, labels, cv=3)
    assert list(scores) == [1, 1, 1]


def test_a_grid_search_chooses_among_options(paths, labels):
    grid = {"head_options": [{"regularisation": 1e9}, {"regularisation": 1.0}]}  # the first learns next to nothing
    search = GridSearchCV(regraft.Classifier(**FAST), grid, cv=3, scoring="neg_log_loss").fit(paths, labels)
    assert search.best_params_ == {"head_options": {"regularisation": 1.0}}


def test_it_ends_a_pipeline(paths, labels):
    steps = [("files", FunctionTransformer(sorted)), ("classifier", regraft.Classifier(**FAST))]
    pipeline = Pipeline(steps).fit(paths[::-1], labels)
    assert list(pipeline.predict(paths)) == labels
    assert clone(pipeline).set_params(classifier__seed=7).named_steps["classifier"].seed == 7


def test_by_default_it_learns_from_views_too_and_is_asked_about_the_images_as_they_are(paths, labels):
    classifier = regraft.Classifier(backbone="test_resnet", weights="random", size=64, views=2, **PLAIN)
    assert regraft.Classifier().views == "auto"
    plain = clone(classifier).set_params(views=0).fit(paths, labels)
    probabilities = classifier.fit(paths, labels).predict_proba(paths)
    assert not np.allclose(probabilities, plain.predict_proba(paths))  # the views taught it something else
    assert np.array_equal(
        probabilities, classifier.set_params(views=7).predict_proba(paths)
    )  # and are not looked at now


def test_fitting_on_a_source_splits_it_and_reports_on_the_held_out_part(photos):
    classifier = regraft.Classifier(**FAST, split="0.8/0.1/0.1").fit(photos)
    assert classifier.report_.part == "test" and classifier.report_.evaluation.n == 3
    assert classifier.score(photos) == 1
    assert list(classifier.classes_) == ["blue", "green", "red"]


def test_fitting_on_a_source_with_few_images_cross_validates(photos):
    classifier = regraft.Classifier(**FAST).fit(photos)
    assert classifier.report_.part == "cross-validation" and classifier.report_.evaluation.n == 36


def test_a_broken_image_is_named_and_never_guessed(fitted, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        fitted.predict([tmp_path / "bad.jpg"])


def test_a_fitted_classifier_is_pickled_and_saved(fitted, paths, tmp_path):
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(paths[:4]), fitted.predict_proba(paths[:4]))
    fitted.save(tmp_path / "model")
    assert [item.label for item in regraft.predict(regraft.load(tmp_path / "model", **PLAIN), paths[:4])] == list(
        fitted.predict(paths[:4])
    )


def test_a_picture_given_twice_is_answered_twice(fitted, paths, tmp_path):
    Image.open(paths[0]).save(tmp_path / "copy.png")
    assert len(fitted.predict([paths[0], paths[0], tmp_path / "copy.png"])) == 3


def test_one_hot_columns_and_whole_floats_are_the_labels_that_they_mean(paths, labels):
    names = sorted(set(labels))
    codes = np.array([names.index(label) for label in labels])
    plain = regraft.Classifier(**FAST).fit(paths, codes)
    for same in (np.eye(len(names))[codes], codes[:, None], codes.astype(float)):
        other = regraft.Classifier(**FAST).fit(paths, same)
        assert other.classes_.tolist() == list(range(len(names)))
        assert np.array_equal(other.predict_proba(paths[:5]), plain.predict_proba(paths[:5]))
        assert np.allclose(other.predict_proba(paths[:5]).sum(axis=1), 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda label: f"{label} ", "name one class. Write it in one way"),
        (lambda label: label.upper(), "differ only in case"),
        (lambda label: None, "Label number 0 is missing"),
        (lambda label: float("nan"), "Label number 0 is missing"),
    ],
)
def test_labels_that_could_make_two_classes_of_one_or_are_missing_are_refused(paths, labels, change, message):
    with pytest.raises(DataError, match=message):
        regraft.Classifier(**FAST).fit(paths, [change(labels[0]), *labels[1:]])


def test_labels_with_fractions_are_refused(paths):
    with pytest.raises(DataError, match=r"0\.25 \(float\); expected the name or the number of a class"):
        regraft.Classifier(**FAST).fit(paths, np.full(len(paths), 0.25))
