"""Rows brought together by id: all leave once, those of one id together, however small a bucket is."""

import hashlib
import random

import pytest

from regraft.data.rows_by_id import RowsById

pyarrow = pytest.importorskip("pyarrow")


def ids(count):
    return [hashlib.sha256(b"%d" % number).hexdigest() for number in range(count)]


@pytest.mark.parametrize("bucket", [1, 7, 100, 10_000])
def test_every_row_leaves_once_and_copies_leave_together(tmp_path, bucket):
    added = ids(300) * 2 + ["", "", "f" * 64, "0" * 64, "0" * 64]
    random.Random(0).shuffle(added)
    rows = RowsById(tmp_path, bucket)
    for start in range(0, len(added), 50):
        part = added[start : start + 50]
        rows.add(pyarrow.table({"id": part, "at": range(start, start + len(part))}))
    buckets = [table.to_pylist() for table in rows.buckets()]
    assert sorted(row["at"] for table in buckets for row in table) == list(range(len(added)))
    homes = [(row["id"], number) for number, table in enumerate(buckets) for row in table]
    assert len(set(homes)) == len(set(added))
    assert len(buckets) == -(-len(added) // bucket)


def test_no_rows_have_no_buckets(tmp_path):
    assert list(RowsById(tmp_path).buckets()) == []
