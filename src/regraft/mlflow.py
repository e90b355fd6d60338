"""MLflow: a model as one of its pyfunc models, which any of its tools loads and serves. It is never pickled.

info = regraft.mlflow.log_model(model)                                     # in a run of MLflow's
mlflow.pyfunc.load_model(info.model_uri).predict(["photo.jpg"])            # (n, n_classes) probabilities
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import UsageError
from regraft.core.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from regraft.model.model import Model


def log_model(model: Model, name: str = "model", **more: Any) -> Any:
    """Log a model in the current run of MLflow, or a new one; return MLflow's ModelInfo.

    more: further arguments of `mlflow.pyfunc.log_model`.
    Raises UsageError if MLflow is not installed.
    """
    try:
        from mlflow import pyfunc
    except ImportError as error:
        raise UsageError("Logging a model needs MLflow. Install it with: pip install 'regraft[mlflow]'") from error
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "regraft")
        model.save(saved)
        defaults = {"pip_requirements": [f"regraft=={__version__}", "pandas"]}
        return pyfunc.log_model(name=name, loader_module=__name__, data_path=str(saved), **{**defaults, **more})


def _load_pyfunc(path: str) -> Pyfunc:
    """Open what `log_model` wrote; MLflow calls it."""
    from regraft.pipeline.predict import load

    return Pyfunc(load(path))


class Pyfunc:
    """A model as MLflow calls it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, images: Any) -> pd.DataFrame:
        """Return the probabilities, a row for each image and a column for each class.

        images: paths or bytes of image files: a list, or a table of one column.
        """
        import pandas as pd

        inputs = images.iloc[:, 0].tolist() if isinstance(images, pd.DataFrame) else list(images)
        return pd.DataFrame(self.model.predict_proba(inputs), columns=self.model.classes)
