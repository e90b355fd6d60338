"""Damaged Parquet files by the thousand: each is read or refused in words. A process of its own reads them.

Arrow's C++ reads them: a crash of it would end the process, so these run in a child that the test outlives.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

ROUNDS = 10_000

SCRIPT = """
import collections, random, sys
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet
from tests.data.sources.test_fuzz import PICTURE, with_changed_bytes

from regraft.core.errors import RegraftError
from regraft.data.units import plan, rows

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
COLUMNS = {
    "image": [[{"bytes": PICTURE, "path": "a.png"}] * 6, [PICTURE, None, b"", b"x", PICTURE, PICTURE], [1] * 6],
    "bytes": [[PICTURE] * 6],
    "path": [["a.png", "../b.png", "", None, "/etc/passwd", "c/\\x1b.png"], [1.5] * 6],
    "label": [["cat", "dog", None, "", "e\\u0301", "x"], [0, 1, 2, -1, None, 0], [[1], [], None, [1, 2], [3], [4]]],
    "part": [["train", "test", "valid", "?", None, ""], [True] * 6],
}
rng, counts = random.Random("parquet"), collections.Counter()
for number in range(rounds):
    names = rng.sample(list(COLUMNS), rng.randrange(1, 5))
    table = pa.table({name: rng.choice(COLUMNS[name]) for name in names})
    about = rng.choice((b"{", b"[]", b'{"info": {"features": {"label": {"names": 3}}}}'))
    metadata = rng.choice((None, {b"huggingface": about}))
    path = folder / "t.parquet"
    parquet.write_table(table.replace_schema_metadata(metadata), path, row_group_size=rng.choice((2, 6)))
    if rng.random() < 0.8:
        path.write_bytes(with_changed_bytes(path.read_bytes(), rng))
    try:
        made = plan(path, 3)
        read = [row for unit in made.units for row in rows(unit, made.folder)]
        for row in read:
            try:
                assert isinstance(row.location.read(), bytes)
            except OSError:
                pass
        counts["read"] += 1
    except RegraftError as error:
        assert str(error)
        counts["refused"] += 1
    except BaseException as error:
        raise AssertionError(f"round {number}: {error!r}") from error
print(dict(counts))
"""


@pytest.mark.slow
def test_a_damaged_parquet_file_is_read_or_refused_in_words(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(ROUNDS)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    with capsys.disabled():
        print(f"\nparquet: {ROUNDS:,} files; {ended.stdout.strip()}")
