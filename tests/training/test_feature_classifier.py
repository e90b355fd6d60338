import pickle

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from regraft.core.errors import UsageError
from regraft.training.feature_classifier import FeatureClassifier

LINEAR = FeatureClassifier()
MLP = FeatureClassifier(head="mlp", head_options={"hidden": 32}, epochs=20, learning_rate=0.01)


@parametrize_with_checks([LINEAR, MLP])
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", [LINEAR, MLP], ids=["linear", "mlp"])
def test_it_learns_irises(estimator):
    assert cross_val_score(estimator, *load_iris(return_X_y=True), cv=3).mean() > 0.93


@pytest.mark.parametrize("estimator", [LINEAR, MLP], ids=["linear", "mlp"])
def test_it_is_restored_from_a_pickle_and_fits_the_same_twice(estimator):
    features, labels = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[labels]
    first = estimator.fit(features, names).predict_proba(features)
    copy = pickle.loads(pickle.dumps(estimator))
    assert np.array_equal(copy.predict_proba(features), first)
    assert np.array_equal(estimator.fit(features, names).predict_proba(features), first)
    assert set(copy.predict(features)) <= set(copy.classes_) == set(names)


def test_its_options_are_searched_like_any_other():
    grid = {"head_options": [{"regularisation": 1e6}, {"regularisation": 1.0}]}
    search = GridSearchCV(FeatureClassifier(), grid, cv=3).fit(*load_iris(return_X_y=True))
    assert search.best_params_ == {"head_options": {"regularisation": 1.0}}


def test_a_wrong_option_is_refused_when_it_is_fitted():
    with pytest.raises(UsageError, match="--epochs is 0"):
        FeatureClassifier(epochs=0).fit(*load_iris(return_X_y=True))


def test_by_sigmoid_it_gives_the_probabilities_of_both_classes():
    features, labels = load_iris(return_X_y=True)
    one, two = (FeatureClassifier(loss=loss).fit(features[50:], labels[50:]) for loss in ("sigmoid", "softmax"))
    np.testing.assert_allclose(one.predict_proba(features), two.predict_proba(features), atol=1e-6)
    assert set(one.predict(features[50:])) == {1, 2}
