"""Tables and labels of every kind by the thousand: each is read or refused in words, none ends in another error.

Tables are made of headers, fields and encodings as people have them, labels of the types that Python hands over; both
are then damaged. Seeds are fixed. Each test prints how many it tried, and how they ended.
"""

from __future__ import annotations

import collections
import csv
import io
import random

import numpy as np
import pandas as pd
import pytest
from tests.data.sources.test_fuzz import PICTURE, outcome_of, with_changed_bytes

import regraft
from regraft.core.errors import RegraftError
from regraft.data.read import SourceOptions, read, read_inputs

ROUNDS = 10_000
COLUMNS = (
    "path",
    "label",
    "labels",
    "part",
    "group",
    "filename",
    "class",
    "image",
    "target",
    "split",
    "is_valid",
    "id",
)
COLUMNS += ("Path", " label ", "", "cat", "dog", "x", "\ufeffpath", "na\u0308me", "category", "file", "\x1b[31m", "0")
PATHS = ("1.png", "2.png", "a/3.png", "a/3", "1", "absent.png", "", ".", "..", "../x.png", "/etc/passwd", "a//3.png")
PATHS += (
    "C:\\x.png",
    "\x1b[31m.png",
    "a\nb.png",
    "\u202egnp.1",
    "x" * 5000,
    "./1.png",
    "A/3.PNG",
    "a",
    "a/",
    "~/1.png",
)
FIELDS = ("cat", "dog", "cat;dog", "cat|", "", " ", "1", "0", "1.0", "nan", "True", "train", "valid", "test", "banana")
FIELDS += ("=1+1", "\x1b]0;x\x07", "e\u0301", "\u00e9", "Cat", "\u200b", ";", "-1", "1e400", "x" * 3000, "\udcff")
ENCODINGS = ("utf-8",) * 6 + ("utf-8-sig", "utf-16", "cp1252", "utf-16-le", "utf-32")


def table_file(rng):
    """A CSV as a program would write it, its fields drawn; half of them would be usable."""
    likely = rng.random() < 0.5
    header = ["path", "label"] if likely else rng.sample(COLUMNS, rng.randrange(1, 6))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=rng.choice(",,,;\t|"), quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    writer.writerow(header)
    for _ in range(rng.randrange(9)):
        fields = [some_field(name, rng, likely) for name in header]
        writer.writerow(fields if rng.random() < 0.98 else fields[: rng.randrange(len(fields) + 1)])
    return text.getvalue().encode(rng.choice(ENCODINGS), "replace")


def some_field(name, rng, likely):
    if rng.random() < (0.02 if likely else 0.2):
        return rng.choice((*PATHS, *FIELDS))
    return rng.choice(PATHS[:3]) if name.strip().casefold() in ("path", "filename", "image", "file", "id") else "cat"


def some_options(rng):
    columns = {name: rng.choice((None, *COLUMNS)) for name in ("path_column", "label_column", "part_column")}
    return {**columns, "label_from": rng.choice((None, "{label}/*", "{label}_#.png"))} if rng.random() < 0.2 else {}


@pytest.mark.slow
def test_a_table_is_read_or_refused_in_words(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    for name in PATHS[:3]:
        (tmp_path / name).write_bytes(PICTURE)
    rng, counts, path = random.Random("tables"), collections.Counter(), tmp_path / "table.csv"
    for number in range(ROUNDS):
        data = table_file(rng)
        path.write_bytes(with_changed_bytes(data, rng) if rng.random() < 0.4 else data)
        chosen = some_options(rng)
        actions = {
            "labelled": lambda: read(path, options=SourceOptions(**chosen)),  # noqa: B023
            "inputs": lambda: read_inputs(path),
        }
        for kind, action in actions.items():
            try:
                counts[f"{kind} {outcome_of(action)}"] += 1
            except Exception as error:
                raise AssertionError(f"round {number}, {kind}: {path.read_bytes()[:2000]!r} {chosen}") from error
    with capsys.disabled():
        print(f"\ntables: {ROUNDS:,} files; {dict(sorted(counts.items()))}")
    assert min(counts["labelled read"], counts["labelled refused"], counts["inputs read"]) > ROUNDS / 50


VALUES = ("cat", "dog", "Cat", "", "nan", b"cat", b"\xff", 0, 1, -1, 1.0, 1.5, float("nan"), 1e400, True, None, 3 + 4j)
VALUES += (("cat", "dog"), ["cat"], [], [0, 1], [1, 0], [0, 0], [1, 1], [0.3, 0.7], {"cat"}, {"a": 1}, object(), [[1]])
VALUES += (np.int64(3), np.float32("nan"), np.array([0, 1]), np.array("cat"), pd.NA, pd.NaT, pd.Timestamp(0), "e\u0301")


def some_labels(count, rng):
    """Labels in one of the types that Python has for them; mostly as many as there are images."""
    count += rng.choice((0, 0, 0, 0, 0, 0, 1, -1))
    numbers = np.array([rng.randrange(2) for _ in range(count)])
    match rng.randrange(10):
        case 0:
            return [rng.choice(VALUES) for _ in range(count)]
        case 1:
            return numbers.astype(rng.choice(("i8", "u1", "f4", "U3", "S3", "?", "O", "c8", "M8[s]", "f2")))
        case 2:
            return np.eye(2)[numbers].astype(rng.choice(("i8", "f4", "?", "O")))
        case 3:
            return pd.Series(numbers).astype(rng.choice(("category", "string", "Int64", "float", "object")))
        case 4:
            return pd.DataFrame(np.eye(2)[numbers])
        case 5:
            return numbers.reshape(-1, 1)
        case 6:
            return iter(numbers)
        case 7:
            return rng.choice(VALUES)
        case 8:
            return rng.choice((np.zeros((count, 2, 2)), np.zeros(()), np.zeros((0, 3)), np.full((count, 2), np.nan)))
        case _:
            return [rng.sample(("cat", "dog", "hen", 1, None), rng.randrange(3)) for _ in range(count)]


def some_frame(paths, rng):
    columns = {name: [rng.choice(VALUES) for _ in paths] for name in rng.sample(COLUMNS, rng.randrange(3))}
    return pd.DataFrame({"path": paths, "label": [rng.choice(("cat", "dog", *VALUES)) for _ in paths], **columns})


@pytest.mark.slow
def test_labels_are_taken_or_refused_in_words(tmp_path, capsys):
    paths = []
    for number in range(4):
        paths.append(str(tmp_path / f"{number}.png"))
        (tmp_path / f"{number}.png").write_bytes(PICTURE)
    rng, counts = random.Random("labels"), collections.Counter()
    for number in range(ROUNDS):
        labelled = some_frame(paths, rng) if rng.random() < 0.2 else some_labels(len(paths), rng)
        source = (labelled,) if isinstance(labelled, pd.DataFrame) and "path" in labelled else (paths, labelled)
        try:
            index = regraft.read(*source)
        except RegraftError as error:
            assert str(error) and "\x1b" not in str(error)
            counts["refused"] += 1
        except Exception as error:
            raise AssertionError(f"round {number}: {labelled!r}") from error
        else:
            assert all(label and isinstance(label, str) for row in index for label in row.names)
            counts["read"] += 1
    with capsys.disabled():
        print(f"\nlabels: {ROUNDS:,} of them; {dict(counts)}")
    assert min(counts.values()) > ROUNDS / 50
