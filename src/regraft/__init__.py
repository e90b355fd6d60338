"""A folder of photographs becomes a tested image classifier, by transfer learning, on an ordinary computer.

    >>> import regraft
    >>> classifier = regraft.Classifier().fit("photos")  # a folder of class folders
    >>> classifier.predict(["new.jpg"]).tolist()
    ['blue']

The names below are imported when they are first used, so that `import regraft` answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from regraft.core.version import __version__

if TYPE_CHECKING:
    from regraft.audit.findings import Audit
    from regraft.audit.suggestions import Suggestions
    from regraft.core.errors import RegraftError
    from regraft.data.index import Index
    from regraft.data.inspect import Inspection
    from regraft.data.inspect_units import UnitInspection
    from regraft.estimator import Classifier
    from regraft.evaluation.comparison import Comparison
    from regraft.features.extract import Features
    from regraft.model.gallery import Gallery
    from regraft.model.model import Model
    from regraft.model.predict import Prediction
    from regraft.pipeline.compare import compare
    from regraft.pipeline.dataset import dataset
    from regraft.pipeline.evaluate import evaluate
    from regraft.pipeline.explain import explain
    from regraft.pipeline.export import Export, export
    from regraft.pipeline.extract import extract
    from regraft.pipeline.extractor import extractor
    from regraft.pipeline.fit import fit
    from regraft.pipeline.inspect import inspect
    from regraft.pipeline.lr_find import Sweep, lr_find
    from regraft.pipeline.near_duplicates import groups
    from regraft.pipeline.predict import load, predict
    from regraft.pipeline.read import read, split
    from regraft.pipeline.report import Report
    from regraft.pipeline.suggest import suggest
    from regraft.pipeline.train import train
    from regraft.pipeline.tune import Tuned, tune
    from regraft.serving.serve import serve
    from regraft.training.feature_classifier import FeatureClassifier
    from regraft.training.history import History
    from regraft.training.hooks import Hooks, TrainingState

_MODULES = {
    "Audit": "audit.findings",
    "Classifier": "estimator",
    "Comparison": "evaluation.comparison",
    "Export": "pipeline.export",
    "FeatureClassifier": "training.feature_classifier",
    "Features": "features.extract",
    "Gallery": "model.gallery",
    "History": "training.history",
    "Hooks": "training.hooks",
    "Index": "data.index",
    "Inspection": "data.inspect",
    "Model": "model.model",
    "Prediction": "model.predict",
    "RegraftError": "core.errors",
    "Report": "pipeline.report",
    "Suggestions": "audit.suggestions",
    "Sweep": "pipeline.lr_find",
    "TrainingState": "training.hooks",
    "Tuned": "pipeline.tune",
    "UnitInspection": "data.inspect_units",
    "compare": "pipeline.compare",
    "dataset": "pipeline.dataset",
    "evaluate": "pipeline.evaluate",
    "explain": "pipeline.explain",
    "export": "pipeline.export",
    "extract": "pipeline.extract",
    "extractor": "pipeline.extractor",
    "fit": "pipeline.fit",
    "groups": "pipeline.near_duplicates",
    "inspect": "pipeline.inspect",
    "load": "pipeline.predict",
    "lr_find": "pipeline.lr_find",
    "predict": "pipeline.predict",
    "read": "pipeline.read",
    "serve": "serving.serve",
    "split": "pipeline.read",
    "suggest": "pipeline.suggest",
    "train": "pipeline.train",
    "tune": "pipeline.tune",
}

__all__ = [
    "Audit",
    "Classifier",
    "Comparison",
    "Export",
    "FeatureClassifier",
    "Features",
    "Gallery",
    "History",
    "Hooks",
    "Index",
    "Inspection",
    "Model",
    "Prediction",
    "RegraftError",
    "Report",
    "Suggestions",
    "Sweep",
    "TrainingState",
    "Tuned",
    "UnitInspection",
    "__version__",
    "compare",
    "dataset",
    "evaluate",
    "explain",
    "export",
    "extract",
    "extractor",
    "fit",
    "groups",
    "inspect",
    "load",
    "lr_find",
    "predict",
    "read",
    "serve",
    "split",
    "suggest",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    return getattr(importlib.import_module(f"regraft.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
