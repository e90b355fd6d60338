import dataclasses
import json

import numpy as np
import pytest
from tests.features.runners import runner as runner_of

from regraft.core.errors import RegraftError, UsageError
from regraft.data.read import read
from regraft.data.split import SplitOptions, split
from regraft.features import write
from regraft.features.augmentation import View, find
from regraft.features.extract import extract
from regraft.features.store import environment
from regraft.features.store.store import Store


@pytest.fixture(scope="module")
def runner():
    return runner_of()


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


@pytest.fixture
def parquet():
    return pytest.importorskip("pyarrow.parquet", reason="Parquet files need pyarrow")


def written(features, tmp_path):
    write.write(features, tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as saved:
        return dict(saved)


def test_the_file_has_each_rows_features_beside_its_id_path_label_and_part(index, runner, store, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "ROWS", 5)  # the last stretch is shorter
    parts = split(index, options=SplitOptions())
    features = extract(parts, runner, store)
    saved = written(features, tmp_path)
    assert set(saved) == {"features", "ids", "paths", "labels", "parts"}
    assert saved["features"].dtype == np.float32
    assert np.array_equal(saved["features"], np.asarray(features))
    columns = zip(saved["ids"], saved["paths"], saved["labels"], saved["parts"], strict=True)
    assert [*columns] == [(row.id, row.path, row.label, row.part) for row in parts.used]


def test_rows_without_a_label_or_part_have_empty_text(index, runner, store, tmp_path):
    bare = index.with_rows(dataclasses.replace(row, label=None) for row in index)
    saved = written(extract(bare, runner, store), tmp_path)
    assert set(saved["labels"]) == set(saved["parts"]) == {""}


def test_views_are_those_of_the_training_rows_alone(index, runner, store, tmp_path):
    parts = split(index, options=SplitOptions())
    features = extract(parts, runner, store, views(2))
    saved = written(features, tmp_path)
    for number, view in enumerate(features.part("train").views, start=1):
        assert np.array_equal(saved[f"view_{number}"], np.asarray(view))
    assert len(saved["view_1"]) == len(parts.train) < len(saved["features"])
    assert not np.array_equal(saved["view_1"], saved["view_2"])
    assert store.info()[0].views == 2 * len(parts.train)  # writing the file computed none of the others


def test_without_parts_every_row_has_its_views(index, runner, store, tmp_path):
    saved = written(extract(index, runner, store, views(1)), tmp_path)
    assert saved["view_1"].shape == saved["features"].shape


def test_a_write_that_fails_leaves_the_earlier_file(index, runner, store, tmp_path, monkeypatch):
    features = extract(index, runner, store)
    before = written(features, tmp_path)
    monkeypatch.setattr(type(features), "__getitem__", lambda *_: (_ for _ in ()).throw(RegraftError("no")))
    with pytest.raises(RegraftError):
        write.write(features, tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as saved:
        assert np.array_equal(saved["features"], before["features"])
    assert [file.name for file in tmp_path.iterdir() if file.name != "store"] == ["features.npz"]


def as_table(parquet, features, tmp_path):
    write.write(features, tmp_path / "features.parquet")
    return parquet.read_table(tmp_path / "features.parquet")


def numbers(column, shape):
    """The features in a column, without its nulls."""
    return column.combine_chunks().drop_null().flatten().to_numpy().reshape(-1, *shape)


def test_a_parquet_file_has_what_the_npz_file_has(index, runner, store, tmp_path, parquet, monkeypatch):
    monkeypatch.setattr(write, "ROWS", 5)
    features = extract(split(index, options=SplitOptions()), runner, store, views(2))
    saved, table = written(features, tmp_path), as_table(parquet, features, tmp_path)
    assert table.column_names == ["id", "path", "label", "part", "features", "view_1", "view_2"]
    for name in table.column_names[:4]:
        assert table[name].to_pylist() == saved[f"{name}s"].tolist()
    for name in table.column_names[4:]:
        assert np.array_equal(numbers(table[name], features.shape[1:]), saved[name])
    assert [value is not None for value in table["view_2"].to_pylist()] == [
        row.part == "train" for row in features.rows
    ]


def test_the_maps_of_a_parquet_file_have_their_shape_in_its_metadata(index, store, tmp_path, parquet):
    features = extract(index, runner_of(cut="layer3", pool="none"), store)
    table = as_table(parquet, features, tmp_path)
    shape = json.loads(table.schema.metadata[b"shape"])
    assert shape == list(features.shape[1:]) and len(shape) == 3
    assert np.array_equal(numbers(table["features"], shape), np.asarray(features))


def test_what_a_row_does_not_have_is_null_in_a_parquet_file(index, runner, store, tmp_path, parquet):
    bare = index.with_rows(dataclasses.replace(row, label=None) for row in index)
    table = as_table(parquet, extract(bare, runner, store), tmp_path)
    assert table["label"].null_count == table["part"].null_count == len(table) == len(index)
    assert table["features"].null_count == 0


def test_pandas_reads_a_row_of_a_parquet_file_as_one_list(index, runner, store, tmp_path, parquet):
    features = extract(index, runner, store)
    frame = as_table(parquet, features, tmp_path).to_pandas()
    assert frame.columns.tolist() == ["id", "path", "label", "part", "features"]
    assert np.array_equal(np.stack(frame["features"]), np.asarray(features))


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_nothing_at_all_can_be_written_too(index, runner, store, tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet files need pyarrow")
    nobody = extract(index, runner, store).with_index(index.where(lambda row: False))
    write.write(nobody, tmp_path / f"none{ending}")
    assert (tmp_path / f"none{ending}").stat().st_size


@pytest.mark.parametrize("name", ["features.csv", "features", "cat.jpg"])
def test_another_ending_is_refused_and_nothing_is_written(index, runner, store, tmp_path, name):
    with pytest.raises(UsageError, match=r"expected a name that ends in \.npz or \.parquet"):
        write.write(extract(index, runner, store), tmp_path / name)
    assert not (tmp_path / name).exists()


def test_without_pyarrow_it_is_said_how_to_get_it_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(write.importlib.util, "find_spec", lambda name: None)
    write.check(tmp_path / "features.npz")
    with pytest.raises(UsageError, match=r"pip install 'regraft\[parquet\]'"):
        write.check(tmp_path / "features.parquet")
