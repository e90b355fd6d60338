"""A head on arrays of features as a scikit-learn estimator, which the estimator on images contains."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from regraft.core import plugins
from regraft.core.options import estimator_options, make, store_options
from regraft.training import heads, loop, losses
from regraft.training.examples import Examples
from regraft.training.options import FitOptions


class FeatureClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Classify rows of features (n, width); the arguments are those of FitOptions, with their defaults.

    Learned: classes_, n_features_in_, module_ (float64, features → logits), loss_ (what they mean), history_, chosen_.
    """

    @estimator_options(FitOptions)
    def __init__(self, **options: Any) -> None:
        store_options(self, options)

    def fit(self, X: Any, y: Any) -> FeatureClassifier:  # noqa: N803 (scikit-learn's name)
        """Train on features X (n, width) and their labels y (n,); raise ValueError for anything else."""
        options = make(FitOptions, self.get_params(deep=False))
        X, y = validate_data(self, X, y, dtype=np.float32)  # noqa: N806
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        head = plugins.load(heads, options.head)
        fitted = head.fit(Examples(X, codes), None, len(self.classes_), options.head_settings, options)
        self.loss_ = losses.of(options, codes)
        self.module_ = (
            fitted.module.double()
        )  # so that the result for a row does not depend on the other rows of its batch
        self.history_, self.chosen_ = fitted.history, fitted.chosen
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the probabilities (n, classes), in the order of classes_."""
        check_is_fitted(self)
        return loop.probabilities(self.module_, validate_data(self, X, dtype=np.float32, reset=False), self.loss_)

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the most probable label of each row, (n,)."""
        probabilities = self.predict_proba(X)
        labels: np.ndarray = self.classes_[probabilities.argmax(axis=1)]
        return labels
