"""A folder of results: a unit counts when its record is there; equal rows give equal bytes."""

import json
from itertools import pairwise

import numpy as np
import pytest
from tests.features.memory import Memory

from regraft.core import remote
from regraft.core.errors import RefusedFile, StoreError, UsageError
from regraft.data.index import Row
from regraft.data.shards import File, Unit
from regraft.features.units import Contents, Folder, Rows, encode, unit_name

CONTENTS = Contents({"kind": "features", "of": "a"}, "features", (3,), {"weights": b"w"})
UNIT = Unit("tar", (File("s.tar", 10),))


def made_rows(count):
    rows = [Row(path=f"{number}.png", location=Memory("x", b""), id=f"{number:064x}") for number in range(count)]
    return [row.marked("broken", "why") if number % 5 == 3 else row for number, row in enumerate(rows)]


def parts(rows, values, cuts):
    used = np.cumsum([0, *(row.status == "used" for row in rows)])
    edges = [0, *cuts, len(rows)]
    return [Rows(rows[start:stop], values[used[start] : used[stop]]) for start, stop in pairwise(edges)]


def folder(tmp_path):
    opened = Folder(remote.storage_path(tmp_path / "out"))
    opened.begin(CONTENTS, "photos", "listing", 2)
    return opened


def commit(opened, name="n"):
    rows = made_rows(7)
    return opened.commit(name, UNIT, [Rows(rows, np.ones((6, 3), np.float32))], "features", (3,))


@pytest.mark.parametrize("cuts", [[], [1], [250, 260, 599], list(range(1, 700, 7))])
def test_the_bytes_do_not_depend_on_how_the_rows_came(cuts):
    rows = made_rows(700)
    values = np.random.default_rng(0).normal(size=(sum(row.status == "used" for row in rows), 3)).astype(np.float32)
    whole, counts = encode([Rows(rows, values)], "features", (3,))
    assert counts == {"used": 560, "ignored": 0, "broken": 140}
    assert encode(parts(rows, values, cuts), "features", (3,))[0] == whole


def test_what_was_written_is_read_with_null_where_a_row_is_broken(tmp_path):
    opened = folder(tmp_path)
    commit(opened)
    [table] = opened.tables()
    assert table["features"].to_pylist() == [[1, 1, 1]] * 3 + [None] + [[1, 1, 1]] * 3
    assert table["error"].to_pylist() == [None] * 3 + ["why"] + [None] * 3


def test_a_unit_without_its_record_does_not_exist(tmp_path):
    opened = folder(tmp_path)
    commit(opened)
    (tmp_path / "out" / "_done" / "n.json").unlink()
    assert opened.committed() == {}
    (tmp_path / "out" / "_done" / "n.json").write_text('{"unit": "cut sh')
    assert opened.committed() == {}


def test_a_unit_s_file_that_is_damaged_is_told_with_what_to_do(tmp_path):
    opened = folder(tmp_path)
    commit(opened)
    path = tmp_path / "out" / "part-n.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"missing or damaged. Delete .*n\.json"):
        list(opened.tables())


def test_two_drivers_of_one_job_agree_and_another_job_is_refused(tmp_path):
    folder(tmp_path)
    folder(tmp_path)
    for contents, listing, units in (
        (Contents({**CONTENTS.about, "of": "b"}, "features", (3,), {}), "listing", 2),
        (CONTENTS, "other", 2),
    ):
        with pytest.raises(UsageError, match=r"holds the results of another job: (of|listing) is different"):
            Folder(remote.storage_path(tmp_path / "out")).begin(contents, "photos", listing, units)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    with pytest.raises(UsageError, match=r"already holds thesis\.doc"):
        folder(tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.doc"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 99}', '{"format": "x"}'])
def test_a_manifest_that_is_not_one_is_refused(tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_regraft.json").write_text(content)
    with pytest.raises(RefusedFile):
        folder(tmp_path)


def test_the_name_of_a_unit_is_that_of_its_files_and_of_what_is_computed():
    other = Unit("tar", (File("s.tar", 11),))
    names = {unit_name(UNIT, "a"), unit_name(UNIT, "b"), unit_name(other, "a")}
    assert len(names) == 3
    assert unit_name(Unit(**json.loads(json.dumps({"kind": "tar", "files": [["s.tar", 10]]}))), "a") in names
