"""Features inside a program of one's own: the same as `extract` gives, from bytes, paths, and on Ray and Spark."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import PLAIN

import regraft
from regraft.core.errors import DataError, UsageError

pyarrow = pytest.importorskip("pyarrow")
SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, **PLAIN}


@pytest.fixture(scope="module")
def expected(photos):
    features = regraft.extract(photos, **SMALL)
    return {row.id: values for row, values in zip(features.rows, features, strict=True)}


@pytest.fixture(scope="module")
def extractor():
    return regraft.extractor(**SMALL)


def check(rows, expected, count):
    assert len(rows) == count
    for row in rows:
        assert row["status"] == "used"
        assert np.array_equal(np.float32(row["features"]), expected[row["id"]])


def paths(photos, count=5):
    return [str(path) for path in sorted(photos.glob("*/*.png"))[:count]]


@pytest.mark.parametrize("column", ["image", "bytes", "content", "path", "struct"])
def test_a_table_gets_the_features_that_extract_gives(photos, extractor, expected, column):
    values = paths(photos)
    if column != "path":
        values = [Path(path).read_bytes() for path in values]
    if column == "struct":
        column, values = "image", [{"bytes": value, "path": None} for value in values]
    table = pyarrow.table({"name": ["a", "b", "c", "d", "e"], column: values})
    made = pickle.loads(pickle.dumps(extractor))(table)
    assert made.column_names == ["name", column, "id", "status", "error", "features"]
    check(made.to_pylist(), expected, 5)


def test_what_is_no_image_is_a_row_with_its_reason(extractor, tmp_path):
    (tmp_path / "notes.jpg").write_text("no image")
    rows = extractor(pyarrow.table({"path": [str(tmp_path / "notes.jpg"), str(tmp_path / "none.png")]})).to_pylist()
    assert [row["status"] for row in rows] == ["broken", "broken"]
    assert [row["features"] for row in rows] == [None, None]
    assert "No such file" in rows[1]["error"]
    [row] = extractor(pyarrow.table({"bytes": pyarrow.array([None], pyarrow.binary())})).to_pylist()
    assert row["status"] == "broken"
    with pytest.raises(DataError, match="columns x; expected one of image, bytes, content, path"):
        extractor(pyarrow.table({"x": [1]}))


def test_the_precision_is_settled_on_a_sample_or_is_float32(photos):
    about = regraft.extractor(backbone="test_resnet", weights="random", size=64).contents.about
    assert about["network"][0]["precision"] == "float32"
    with pytest.raises(UsageError, match="--tail is not for"):
        regraft.extractor(backbone="test_resnet", weights="random", tail=True, cut="layer3")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.slow
def test_ray_calls_it(photos, extractor, expected):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1", log_to_driver=False)
    try:
        files = ray.data.read_binary_files(str(photos), include_paths=True)
        made = files.map_batches(extractor, batch_format="pyarrow")
        check(made.take_all(), expected, 36)
    finally:
        ray.shutdown()


@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
@pytest.mark.slow
def test_spark_calls_it(photos, extractor, expected):
    sql = pytest.importorskip("pyspark.sql")
    session = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        frame = session.createDataFrame([(path,) for path in paths(photos, 9)], "path string")
        made = frame.mapInArrow(extractor.batches, f"path string, {extractor.columns}")
        check([row.asDict() for row in made.collect()], expected, 9)
    finally:
        session.stop()
