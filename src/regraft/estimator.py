"""scikit-learn's face of the pipeline.

Paths and labels enter as `X` and `y`; options are those of `regraft train`,
by the same names. What is learnt ends in `_`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from regraft.core.errors import DataError, UsageError
from regraft.core.options import estimator_options, fields, make, store_options
from regraft.core.progress import log
from regraft.data import read as reading
from regraft.data.python_labels import is_missing, one_for_each_image, text_of
from regraft.pipeline import evaluate, train
from regraft.pipeline.options import EvaluateOptions, TrainOptions


class Classifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An image classifier by transfer learning, with scikit-learn's methods.

    Its arguments are the options of `regraft train`. `fit(paths, labels)` trains on all
    the images it is given, as scikit-learn's tools expect; `fit(source)`, with a folder, an archive or a CSV,
    splits or cross-validates as `regraft train` does and keeps the measures in `report_`.

    classes_: the labels, sorted, of the type they were given in.
    model_:   the Model; `save` writes it.
    report_:  the Report on the held-out part, or of the cross-validation; only after `fit(source)`.
    """

    @estimator_options(TrainOptions)
    def __init__(self, **options: Any) -> None:
        store_options(self, options)

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that `X` holds paths, not numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.string = False, True
        return tags

    def fit(self, X: Any, y: Any = None) -> Classifier:  # noqa: N803
        """Train on paths `X` with labels `y`, or on a source that holds its labels; return self.

        X: list or array of n paths, or a folder, an archive, a CSV, a DataFrame.
        y: n labels; None if `X` is a source.
        Raises DataError if the images or labels can't be used.
        """
        options = make(TrainOptions, self.get_params())
        if y is None:
            self.report_ = train.fit_and_evaluate(X, options)
            model = self.report_.model
            self.classes_ = np.array(model.classes)
        else:
            labels = one_for_each_image(y)
            self.classes_ = _distinct(labels)
            model = train.fit_paths(_paths(X), labels, options)
        if model.loss.multilabel:
            raise UsageError("Classifier gives one label an image, and these have several. Use regraft.train.")
        self.model_ = model
        self._columns = _columns(model.classes, self.classes_)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return (n, n_classes) float64 probabilities of n images, columns in the order of `classes_`.

        X: list or array of paths, or a folder or archive.
        Raises DataError, naming the file, if an image is broken: an estimator has no row for "unknown".
        """
        check_is_fitted(self)
        probabilities = evaluate.probabilities(self.model_, reading.read_inputs(_paths(X)), store=self.store)
        return probabilities[:, self._columns]

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return (n,) labels of n images; `X` as for `predict_proba`."""
        labels: np.ndarray = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return labels

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: N803
        """Return the accuracy on paths `X` with labels `y`, or on a whole source that holds its labels."""
        check_is_fitted(self)
        if y is not None:
            self._warn_of_known(X)
            return float(super().score(X, y, sample_weight))
        own = self.get_params()
        choices = {name: own[name] for name in fields(EvaluateOptions) if name in own}
        return evaluate.evaluate(self.model_, X, part="all", **choices).accuracy

    def _warn_of_known(self, paths: Any) -> None:
        """Say if images to be scored, or other versions of them, were trained on; splitters do not know of them."""
        if learned := evaluate.trained_on(self.model_, _paths(paths), store=self.store):
            log.warning(
                "%d of the %d images to be scored, or other versions of them, were trained on, so that the score is "
                "too high. Keep them together: groups=regraft.groups(paths) with scikit-learn's StratifiedGroupKFold.",
                *learned,
            )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the model folder; `overwrite` replaces the model that is there."""
        check_is_fitted(self)
        self.model_.save(folder, overwrite=overwrite)


def _distinct(labels: Sequence[Any]) -> np.ndarray:
    """Return the labels, sorted, each once; raise DataError for one that is missing, or spelt in two ways."""
    if any(isinstance(label, list | tuple | set | frozenset) for label in labels):
        raise UsageError("Classifier gives one label an image, and these have several. Use regraft.train.")
    if any(map(is_missing, labels)):
        raise DataError(f"Label number {[*map(is_missing, labels)].index(True)} is missing. Give it, or leave it out.")
    distinct = np.unique(np.asarray(labels))
    names: dict[str, Any] = {}
    for label in distinct.tolist():
        other = names.setdefault(text_of(label), label)
        if other is not label:
            raise DataError(f"The labels {other!r} and {label!r} name one class. Write it in one way.")
    return distinct


def _columns(classes: Sequence[str], labels: np.ndarray) -> list[int]:
    """Return which of the model's classes each label is; raise DataError for one without a usable image."""
    spelt = [text_of(label) for label in labels.tolist()]
    for name in spelt:
        if name not in classes:
            raise DataError(f"The class {name!r} has no usable image; see `regraft.inspect`, or leave the class out.")
    return [classes.index(name) for name in spelt]


def _paths(inputs: Any) -> list[Any]:
    """Return a list of paths: of one path, or of a list or array of them."""
    if isinstance(inputs, str | Path):
        return [inputs]
    return list(np.ravel(np.asarray(inputs, dtype=object)))
