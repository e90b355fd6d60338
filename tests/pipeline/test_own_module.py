"""A torch module of a user's own is a backbone from the source to the model that is opened again."""

import numpy as np
import pytest
import torch
from tests.network.test_own_backbone import RULE, Small

import regraft
from regraft.core.errors import RefusedFile, UsageError


def test_a_module_of_ones_own_is_trained_on_saved_and_opened_with_the_module(photos, tmp_path):
    options = {"backbone": Small(), "preprocess": RULE, "views": 0, "split": "0.5/0.5"}
    report = regraft.train(photos, tmp_path / "model", **options)
    assert report.model.options["backbone"] == "Small" and report.accuracy > 0.9
    again = regraft.train(photos, tmp_path / "model", **options)
    assert again.to_dict() == report.to_dict()
    path = photos / "red" / "001.png"
    with pytest.raises(RefusedFile, match="backbone=module"):
        regraft.load(tmp_path / "model", engine="torch").predict_proba(path)
    opened = regraft.load(tmp_path / "model", backbone=Small())
    assert np.allclose(opened.predict_proba(path), report.model.predict_proba(path), atol=1e-6)
    with pytest.raises(RefusedFile, match="other features"):
        regraft.load(tmp_path / "model", backbone=Small(slope=0.9), engine="torch").predict_proba(path)


def test_what_is_no_module_is_refused_in_words(photos):
    with pytest.raises(UsageError, match="backbone is a int"):
        regraft.extract(photos, backbone=7)
    with pytest.raises(UsageError, match="preprocessing"):
        regraft.extract(photos, backbone=torch.nn.Flatten())
    with pytest.raises(UsageError, match="preprocess is for a backbone that is a torch module"):
        regraft.extract(photos, preprocess=RULE)
