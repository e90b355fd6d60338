"""A model that MLflow has logged gives, once it is loaded again, the probabilities that it gave."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import regraft
import regraft.mlflow
from regraft.core.errors import UsageError
from tests.conftest import PLAIN

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, "views": 0, **PLAIN}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow's, about itself
def test_a_logged_model_gives_the_same_probabilities(photos, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="regraft.mlflow needs MLflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # its database needs more packages
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    model = regraft.train(photos, tmp_path / "model", **SMALL).model
    paths = [str(photos / label / "000.png") for label in model.classes]
    loaded = mlflow.pyfunc.load_model(regraft.mlflow.log_model(model).model_uri)
    table = loaded.predict(paths)
    assert list(table) == list(model.classes)
    np.testing.assert_allclose(table.to_numpy(), regraft.load(tmp_path / "model").predict_proba(paths), atol=1e-6)


def test_without_mlflow_the_line_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match=r"pip install 'regraft\[mlflow\]'"):
        regraft.mlflow.log_model(None)
