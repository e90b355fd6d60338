"""Sources as units: what is listed, and that each unit's rows are those of its files."""

import io
import json
import random
import tarfile

import numpy as np
import pytest
from PIL import Image

from regraft.core.errors import DataError, StoreError, UsageError
from regraft.data.index import Row
from regraft.data.sources._layout import HIDDEN, is_hidden, label_rows
from regraft.data.units import plan, rows

pa = pytest.importorskip("pyarrow", reason="URLs and Parquet files need pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def png(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 8, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def all_rows(source, unit_rows=1000):
    made = plan(source, unit_rows)
    return [row for unit in made.units for row in rows(unit, made.folder)]


def described(source):
    return [(row.path, row.label, row.part, row.status) for row in all_rows(source)]


def test_a_folder_is_cut_into_units_of_so_many_files_with_the_labels_of_its_folders(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "train/cat/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    made = plan(tmp_path, 2)
    assert [len(unit.files) for unit in made.units] == [2, 2]
    assert described(tmp_path) == [
        ("test/cat/3.png", "cat", "test", "used"),
        ("train/cat/.hidden", None, None, "ignored"),
        ("train/cat/1.png", "cat", "train", "used"),
        ("train/dog/2.png", "dog", "train", "used"),
    ]


def test_images_without_class_folders_are_units_without_labels(tmp_path):
    (tmp_path / "1.png").write_bytes(png(1))
    assert described(tmp_path) == [("1.png", None, None, "used")]


def test_a_tar_shard_has_its_labels_in_sidecars_before_or_after_the_image(tmp_path):
    members = [
        ("a/1.cls", b"cat\n"),
        ("a/1.jpg", b"x"),
        ("a/2.png", b"y"),
        ("a/2.json", json.dumps({"label": 7}).encode()),
        ("a/3.left.png", b"z"),
        ("a/3.right.png", b"z"),
        ("a/3.txt", b"dog"),
        ("fox/4.png", b"z"),
        ("5.png", b"z"),
        ("a/6.json", b"{"),
        ("a/6.png", b"z"),
    ]
    write_tar(tmp_path / "s.tar", members)
    assert [(row.path, row.label, row.location.read()) for row in all_rows(tmp_path)] == [
        ("s.tar/a/1.jpg", "cat", b"x"),
        ("s.tar/a/2.png", "7", b"y"),
        ("s.tar/a/3.left.png", "dog", b"z"),
        ("s.tar/a/3.right.png", "dog", b"z"),
        ("s.tar/fox/4.png", "fox", b"z"),
        ("s.tar/5.png", None, b"z"),
        ("s.tar/a/6.png", "a", b"z"),
    ]


def test_a_tar_that_is_cut_short_is_a_unit_that_fails(tmp_path):
    whole = write_tar(tmp_path / "s.tar", [("1.png", png(1)), ("2.png", png(2))]).read_bytes()
    (tmp_path / "s.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match=r"s\.tar is damaged or cut short"):
        all_rows(tmp_path / "s.tar")


def test_a_pattern_names_shards_by_number_and_a_missing_one_is_told(tmp_path):
    for number in (8, 9, 10):
        write_tar(tmp_path / f"s-{number:03}.tar", [("1.png", png(number))])
    assert len(plan(tmp_path / "s-{008..010}.tar", 10).units) == 3
    with pytest.raises(DataError, match=r"No such file in .*: s-011\.tar"):
        plan(tmp_path / "s-{008..011}.tar", 10)
    with pytest.raises(DataError, match="counts down"):
        plan(tmp_path / "s-{9..8}.tar", 10)


@pytest.mark.parametrize(
    "images",
    [
        pa.array([png(1), png(2), None], pa.binary()),
        pa.array([{"bytes": png(1), "path": "a.png"}, {"bytes": png(2), "path": None}, {"bytes": None, "path": None}]),
    ],
    ids=["bytes", "struct"],
)
def test_a_parquet_file_has_bytes_labels_by_number_and_parts(tmp_path, images):
    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pa.table({"image": images, "label": [1, 0, 1], "split": ["train", "test", None]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    parquet.write_table(table, tmp_path / "p.parquet", row_group_size=2)
    made = plan(tmp_path, 1)
    assert [(unit.first, unit.stop) for unit in made.units] == [(0, 1), (1, 2)]
    assert described(tmp_path) == [
        ("p.parquet/0", "dog", "train", "used"),
        ("p.parquet/1", "cat", "test", "used"),
        ("p.parquet/2", "dog", None, "broken"),
    ]
    assert all_rows(tmp_path)[1].location.read() == png(2)


def test_a_parquet_file_may_name_files_but_none_outside_of_its_folder(tmp_path):
    (tmp_path / "outside.png").write_bytes(png(1))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.png").write_bytes(png(2))
    parquet.write_table(pa.table({"path": ["1.png", "../outside.png"]}), tmp_path / "in" / "p.parquet")
    inside, outside = all_rows(tmp_path / "in" / "p.parquet")
    assert inside.location.read() == png(2)
    with pytest.raises(FileNotFoundError):
        outside.location.read()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_damaged_parquet_file_is_refused_in_words(tmp_path, content):
    (tmp_path / "p.parquet").write_bytes(content)
    with pytest.raises(DataError, match="no Parquet file, or damaged"):
        all_rows(tmp_path)


def test_a_parquet_file_without_images_is_refused(tmp_path):
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="has the columns text; expected image or bytes"):
        all_rows(tmp_path)


def test_nothing_or_two_kinds_of_shards_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file or folder, or nothing in it"):
        plan(tmp_path / "none", 10)
    write_tar(tmp_path / "s.tar", [("1.png", png(1))])
    parquet.write_table(pa.table({"path": ["1.png"]}), tmp_path / "p.parquet")
    with pytest.raises(DataError, match="expected one kind"):
        plan(tmp_path, 10)


def test_the_same_listing_has_the_same_digest_and_another_size_another(tmp_path):
    write_tar(tmp_path / "s.tar", [("1.png", png(1))])
    first = plan(tmp_path, 10).digest
    assert plan(tmp_path, 10).digest == first
    write_tar(tmp_path / "s.tar", [("1.png", png(1)), ("2.png", bytes(20000))])
    assert plan(tmp_path, 10).digest != first


@pytest.mark.parametrize("url", ["foo://bucket/x", "s3:///", "http://127.0.0.1:1/x.tar"])
def test_a_url_that_can_t_be_opened_is_told_in_a_line(url):
    with pytest.raises((UsageError, DataError, StoreError)) as refused:
        plan(url, 10)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("seed", range(12))
def test_labels_are_those_of_all_files_looked_at_together(tmp_path, seed):
    """Against the layout of every file, though only one of each folder is asked about."""
    chance = random.Random(seed)
    tops = chance.sample(["cat", "dog", "train", "test", "photos", ".hidden", "seg_train", "images"], 3)
    inner = chance.sample(["cat", "dog", "red", "2024", ".cache"], 2)
    names = ["1.jpg", "2.PNG", "readme.txt", ".3.jpg", "notes.bin", "4.jpg?w=3", "Thumbs.db"]
    paths = {"/".join([chance.choice(tops), chance.choice([*inner, ""]), chance.choice(names)]) for _ in range(60)}
    paths = sorted(path.replace("//", "/") for path in paths)
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    listed = [Row(path=path, location=None) for path in paths]
    listed = [row.marked("ignored", HIDDEN) if is_hidden(row.path) else row for row in listed]
    try:
        expected = list(label_rows(listed, str(tmp_path)))
    except DataError:
        expected = listed
    assert [(row.path, row.label, row.part) for row in all_rows(tmp_path)] == [
        (row.path, row.label, row.part) for row in expected
    ]
