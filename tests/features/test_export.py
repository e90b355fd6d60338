import dataclasses

import numpy as np
import pytest

from regraft.core.errors import RegraftError
from regraft.data.read import read
from regraft.data.split import SplitOptions, split
from regraft.features import environment, export
from regraft.features.extract import extract
from regraft.features.options import FeatureOptions
from regraft.features.store import Store
from regraft.features.trunk import build
from regraft.features.views import View, find


@pytest.fixture(scope="module")
def trunk():
    return build(FeatureOptions(backbone="test_resnet", weights="random", size=64, engine="torch"))


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "store")
    yield opened
    for info in opened.info():
        environment.close(info.folder)


@pytest.fixture
def index(photos):
    return read(photos)


def views(count):
    return [View(find("light"), seed=0, number=number) for number in range(1, count + 1)]


def written(features, tmp_path):
    export.write(features, tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as saved:
        return dict(saved)


def test_the_file_has_each_rows_features_beside_its_id_path_label_and_part(index, trunk, store, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ROWS", 5)  # the last stretch is shorter
    parts = split(index, options=SplitOptions())
    features = extract(parts, trunk, store)
    saved = written(features, tmp_path)
    assert set(saved) == {"features", "ids", "paths", "labels", "parts"}
    assert saved["features"].dtype == np.float32
    assert np.array_equal(saved["features"], np.asarray(features))
    columns = zip(saved["ids"], saved["paths"], saved["labels"], saved["parts"], strict=True)
    assert [*columns] == [(row.id, row.path, row.label, row.part) for row in parts.used]


def test_rows_without_a_label_or_part_have_empty_text(index, trunk, store, tmp_path):
    bare = index.with_rows(dataclasses.replace(row, label=None) for row in index)
    saved = written(extract(bare, trunk, store), tmp_path)
    assert set(saved["labels"]) == set(saved["parts"]) == {""}


def test_views_are_those_of_the_training_rows_alone(index, trunk, store, tmp_path):
    parts = split(index, options=SplitOptions())
    features = extract(parts, trunk, store, views(2))
    saved = written(features, tmp_path)
    for number, view in enumerate(features.part("train").views, start=1):
        assert np.array_equal(saved[f"view_{number}"], np.asarray(view))
    assert len(saved["view_1"]) == len(parts.train) < len(saved["features"])
    assert not np.array_equal(saved["view_1"], saved["view_2"])
    assert store.info()[0].views == 2 * len(parts.train)  # writing the file computed none of the others


def test_without_parts_every_row_has_its_views(index, trunk, store, tmp_path):
    saved = written(extract(index, trunk, store, views(1)), tmp_path)
    assert saved["view_1"].shape == saved["features"].shape


def test_a_write_that_fails_leaves_the_earlier_file(index, trunk, store, tmp_path, monkeypatch):
    features = extract(index, trunk, store)
    before = written(features, tmp_path)
    monkeypatch.setattr(type(features), "__getitem__", lambda *_: (_ for _ in ()).throw(RegraftError("no")))
    with pytest.raises(RegraftError):
        export.write(features, tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as saved:
        assert np.array_equal(saved["features"], before["features"])
    assert [file.name for file in tmp_path.iterdir() if file.name != "store"] == ["features.npz"]
