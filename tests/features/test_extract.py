import dataclasses
import hashlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from regraft.core.errors import DataError, RefusedFile, StoreError
from regraft.data.decode import decode
from regraft.data.index import Index, Row
from regraft.data.read import read
from regraft.features import environment, extract
from regraft.features.extract import compute, stream
from regraft.features.options import FeatureOptions
from regraft.features.store import Store
from regraft.features.trunk import build

OPTIONS = {"backbone": "test_resnet", "weights": "random", "size": 64}


@pytest.fixture(scope="module")
def trunk():
    return build(FeatureOptions(**OPTIONS))


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "store")
    yield opened
    for info in opened.info():
        environment.close(info.folder)


def png(seed):
    """The bytes of a noisy picture, another for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40 + seed % 7, 50, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def cut_short(seed):
    return png(seed)[:2000]


@dataclass(frozen=True)
class Memory:
    """A place that holds its bytes itself and notes each reading; `error` is raised instead."""

    name: str
    content: bytes
    error: BaseException | None = None
    read_names: ClassVar[list[str]] = []
    threads: ClassVar[set[int]] = set()

    def read(self):
        self.read_names.append(self.name)
        self.threads.add(threading.get_ident())
        if self.error:
            raise self.error
        return self.content


@pytest.fixture(autouse=True)
def reads():
    """The names of the places that were read, in order."""
    Memory.read_names.clear()
    Memory.threads.clear()
    return Memory.read_names


def row(name, content, error=None, **about):
    return Row(path=name, place=Memory(name, content, error), id=hashlib.sha256(content).hexdigest(), **about)


def pictures(count, first=0, **about):
    return [row(f"{seed}.png", png(seed), **about) for seed in range(first, first + count)]


def expected(trunk, rows):
    """What the trunk says of each image alone."""
    return np.concatenate([trunk(trunk.preprocess(decode(row.place.content))[None]) for row in rows])


def close_to(features, answer):
    np.testing.assert_allclose(features, answer, rtol=1e-4, atol=1e-5)


# The pure middle


def test_features_are_those_of_each_image_alone_in_the_rows_order(trunk):
    rows = pictures(10)
    batches = list(compute(rows, trunk, batch_size=4))
    assert [len(batch.good) for batch in batches] == [4, 4, 2]
    assert [row for batch in batches for row in batch.rows] == rows
    close_to(np.concatenate([batch.features for batch in batches]), expected(trunk, rows))


def test_broken_images_make_no_batch_smaller(trunk):
    rows = pictures(9)
    for at in (0, 3, 4, 8, 11):
        rows.insert(at, row(f"broken{at}", cut_short(at)))
    batches = list(compute(rows, trunk, batch_size=4))
    assert [len(batch.good) for batch in batches] == [4, 4, 1]
    assert [row.path for batch in batches for row in batch.rows] == [row.path for row in rows]


def test_only_broken_images_still_leave_in_bounded_stretches(trunk, reads):
    batches = compute([row(str(at), cut_short(at)) for at in range(100)], trunk, batch_size=4)
    first = next(batches)
    batches.close()
    assert (len(first.rows), first.features.shape) == (32, (0, *trunk.output_shape))
    assert len(reads) < 50


def test_images_are_read_a_batch_ahead_of_the_network_and_not_further(trunk, reads):
    batches = compute(pictures(60), trunk, batch_size=4)
    next(batches)
    batches.close()
    assert 4 <= len(reads) <= 9


def test_one_thread_reads_in_the_rows_order(trunk, reads):
    list(compute(pictures(30), trunk, batch_size=8))
    assert reads == [f"{seed}.png" for seed in range(30)]
    assert len(Memory.threads) == 1


def test_no_rows_give_no_batches(trunk):
    assert list(compute([], trunk)) == []


def test_weights_that_give_no_numbers_are_refused_by_name_and_nothing_is_stored(store):
    bad = build(FeatureOptions(**OPTIONS))
    for parameter in bad.module.parameters():
        parameter.fill_(np.nan)
    with pytest.raises(RefusedFile, match=r"test_resnet with the weights .* gives NaN or infinity for 0\.png"):
        extract.extract(Index(tuple(pictures(3))), bad, store)
    assert store.info()[0].images == 0


def test_a_row_is_the_same_bit_for_bit_whatever_goes_with_it_if_batches_are_full(trunk):
    rows = pictures(11)
    whole = np.concatenate([batch.features for batch in compute(rows, trunk, batch_size=4, full=True)])
    for part in (rows[:1], rows[3:9]):
        again = np.concatenate([batch.features for batch in compute(part, trunk, batch_size=4, full=True)])
        np.testing.assert_array_equal(again, whole[[rows.index(row) for row in part]])


# Without a store


def test_a_stream_gives_every_used_row_in_order_with_its_features_or_its_error(trunk):
    rows = pictures(5)
    rows[1:1] = [row("cut", cut_short(1)), row("ignored", b"", status="ignored", reason="hidden")]
    rows[5:5] = [row("gone", b"", error=FileNotFoundError(2, "No such file or directory"))]
    seen, good = [], []
    for found, features in stream(Index(tuple(rows)), trunk):
        seen += found
        good += [found for found in found if found.status == "used"]
        close_to(features, expected(trunk, [row for row in found if row.status == "used"]))
    assert [row.path for row in seen] == [row.path for row in rows if row.path != "ignored"]
    assert [row.path for row in good] == [f"{seed}.png" for seed in range(5)]
    assert {row.path: row.reason for row in seen if row.status == "broken"}["gone"] == (
        "can't be read: No such file or directory"
    )


# With a store


def test_stored_features_are_those_of_each_image_alone(trunk, store):
    rows = pictures(40)
    features = extract.extract(Index(tuple(rows)), trunk, store)
    close_to(np.asarray(features), expected(trunk, rows))
    assert features.index.rows == tuple(rows)


def test_a_second_run_reads_no_image(trunk, store, reads):
    index = Index((*pictures(5), row("cut", cut_short(1))))
    first = extract.extract(index, trunk, store)
    reads.clear()
    second = extract.extract(index, trunk, store)
    assert reads == []
    assert np.array_equal(first, second)
    assert first.index == second.index


def test_one_more_image_costs_one_image(trunk, store, reads):
    extract.extract(Index(tuple(pictures(5))), trunk, store)
    reads.clear()
    features = extract.extract(Index(tuple(pictures(6))), trunk, store)
    assert reads == ["5.png"]
    close_to(np.asarray(features), expected(trunk, pictures(6)))


def test_equal_bytes_are_computed_once(trunk, store, reads):
    rows = [*pictures(3), row("copy.png", png(1))]
    features = extract.extract(Index(tuple(rows)), trunk, store)
    assert reads == ["0.png", "1.png", "2.png"]
    assert np.array_equal(features[3], features[1])


def test_a_renamed_folder_costs_nothing(trunk, store, tmp_path):
    for seed in range(4):
        file = tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(seed))
    first = extract.extract(read(tmp_path / "photos"), trunk, store)
    (tmp_path / "photos").rename(tmp_path / "renamed")
    index = read(tmp_path / "renamed")
    for file in tmp_path.rglob("renamed/*/*.png"):
        file.unlink()
    assert np.array_equal(extract.extract(index, trunk, store), first)


def test_another_trunk_has_a_shelf_of_its_own(trunk, store, reads):
    index = Index(tuple(pictures(3)))
    extract.extract(index, trunk, store)
    reads.clear()
    extract.extract(index, build(FeatureOptions(**{**OPTIONS, "seed": 1})), store)
    assert len(reads) == 3
    assert [info.images for info in store.info()] == [3, 3]


def test_only_used_rows_are_computed(trunk, store, reads):
    rows = [*pictures(2), row("left out", png(9), status="ignored", reason="a conflict")]
    features = extract.extract(Index(tuple(rows)), trunk, store)
    assert reads == ["0.png", "1.png"]
    assert (len(features), features.index.rows[2]) == (2, rows[2])


# What is broken


def test_a_broken_image_is_marked_with_its_reason_and_remembered_by_its_bytes(trunk, store, reads):
    rows = [*pictures(2), row("cut", cut_short(1)), *pictures(1, first=2)]
    features = extract.extract(Index(tuple(rows)), trunk, store)
    (broken,) = features.index.broken
    assert (broken.path, len(features), bool(broken.reason)) == ("cut", 3, True)
    close_to(np.asarray(features), expected(trunk, pictures(3)))
    reads.clear()
    again = extract.extract(Index((row("renamed", cut_short(1)),)), trunk, store)
    assert (again.index.rows[0].reason, reads) == (broken.reason, [])


def test_a_file_that_cannot_be_read_is_broken_until_it_can(trunk, store):
    gone = row("0.png", png(0), error=PermissionError(13, "Permission denied"))
    features = extract.extract(Index((gone, *pictures(1, first=1))), trunk, store)
    assert [row.reason for row in features.index.broken] == ["can't be read: Permission denied"]
    close_to(np.asarray(features), expected(trunk, pictures(1, first=1)))
    back = extract.extract(Index(tuple(pictures(2))), trunk, store)
    close_to(np.asarray(back), expected(trunk, pictures(2)))


def test_a_copy_stands_in_for_a_file_that_cannot_be_read(trunk, store):
    gone = row("gone.png", png(0), error=OSError(5, "Input/output error"))
    features = extract.extract(Index((gone, *pictures(1), gone)), trunk, store)
    assert [row.path for row in features.index.broken] == ["gone.png", "gone.png"]
    close_to(np.asarray(features), expected(trunk, pictures(1)))


def test_a_file_that_was_changed_is_not_stored_under_the_old_bytes(trunk, store):
    changed = dataclasses.replace(row("0.png", png(7)), id=pictures(1)[0].id)
    features = extract.extract(Index((changed,)), trunk, store)
    assert [row.reason for row in features.index.broken] == ["it was changed since it was listed"]
    assert store.info()[0].images == 0
    close_to(np.asarray(extract.extract(Index(tuple(pictures(1))), trunk, store)), expected(trunk, pictures(1)))


# Stopped in the middle


def test_an_interruption_keeps_what_was_done(trunk, store, reads):
    rows = pictures(100)
    stopped = [*rows[:70], row("70.png", png(70), error=KeyboardInterrupt()), *rows[71:]]
    with pytest.raises(KeyboardInterrupt):
        extract.extract(Index(tuple(stopped)), trunk, store)
    reads.clear()
    features = extract.extract(Index(tuple(rows)), trunk, store)
    full = 70 // extract.BATCH * extract.BATCH
    assert reads == [f"{seed}.png" for seed in range(full, 100)]
    close_to(np.asarray(features), expected(trunk, rows))


CHILD = """
import os, signal, sys
from pathlib import Path
from regraft.data.read import read
from regraft.data.sources.folder import FilePlace
from regraft.features import extract
from regraft.features.options import FeatureOptions
from regraft.features.store import Store
from regraft.features.trunk import build

index = read(sys.argv[1])
trunk = build(FeatureOptions(backbone="test_resnet", weights="random", size=64))
store = Store(Path(sys.argv[2]))
"""


def start(code, *arguments):
    command = [sys.executable, "-c", CHILD + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    for seed in range(100):
        file = folder / "ab"[seed % 2] / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(seed))
    return folder


def answer(trunk, index):
    return np.concatenate([trunk(trunk.preprocess(decode(row.place.read()))[None]) for row in index])


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_run_that_was_killed_goes_on_where_it_was(trunk, store, photos):
    child = start(
        """
        extract.SAVE_SECONDS = 0
        read_bytes, count = FilePlace.read, iter(range(1000))
        def read_or_die(place):
            if next(count) == 80:
                os.kill(os.getpid(), signal.SIGKILL)
            return read_bytes(place)
        FilePlace.read = read_or_die
        extract.extract(index, trunk, store)
        """,
        photos,
        store.folder,
    )
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    kept = store.info()[0].images
    assert 32 <= kept < 100
    index = read(photos)
    close_to(np.asarray(extract.extract(index, trunk, store)), answer(trunk, index))
    assert store.info()[0].images == 100


def test_two_extractions_at_once_both_end_with_all_features(trunk, store, photos):
    code = "extract.SAVE_SECONDS = 0\nprint(len(extract.extract(index, trunk, store)))"
    children = [start(code, photos, store.folder) for _ in range(2)]
    said = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert [output for output, _ in said] == ["100\n", "100\n"]
    index = read(photos)
    close_to(np.asarray(extract.extract(index, trunk, store)), answer(trunk, index))
    assert store.info()[0].images == 100


def test_what_does_not_fit_on_the_disk_is_refused_before_anything_is_read(store, reads):
    @dataclass
    class Wide:
        """A trunk whose features are too large for any disk."""

        digest: str = "f" * 64
        output_shape: tuple[int, ...] = (10**15,)

        def describe(self) -> dict[str, Any]:
            return {}

    with pytest.raises(StoreError, match=r"features of 3 images take up to .*PB, and the disk of .* has .* free"):
        extract.extract(Index(tuple(pictures(3))), Wide(), store)
    assert reads == []


# Features, as an array


@pytest.fixture
def features(trunk, store):
    parts = ["train", "train", "test", "validation", "train", "test"]
    labels = ["cat", "dog", "dog", "cat", "cat", "cat"]
    groups = [None, "x", "x", None, "y", None]
    rows = [
        dataclasses.replace(row, part=part, label=label, group=group)
        for row, part, label, group in zip(pictures(6), parts, labels, groups, strict=True)
    ]
    rows.insert(2, row("cut", cut_short(1), part="train", label="dog"))
    rows.append(dataclasses.replace(row("copy.png", png(0)), part="train", label="cat", group="y"))
    return extract.extract(Index(tuple(rows)), trunk, store)


@pytest.mark.parametrize(
    "rows",
    [
        0,
        -1,
        np.int64(3),
        slice(None),
        slice(1, 6, 2),
        slice(5, 5),
        [4, 4, 0],
        np.array([6, -2]),
        np.array([], np.int64),
        np.arange(7) % 2 == 0,
        np.array([[0, 1], [2, 3]]),
    ],
    ids=str,
)
def test_rows_are_taken_as_numpy_takes_them(features, trunk, rows):
    whole = np.asarray(features)
    assert whole.shape == features.shape == (7, *trunk.output_shape)
    taken = features[rows]
    assert np.array_equal(taken, whole[rows])
    assert (taken.dtype, taken.shape) == (np.float32, whole[rows].shape)


def test_a_row_that_is_not_there_is_an_index_error(features):
    with pytest.raises(IndexError):
        features[7]


def test_an_array_of_another_kind_is_a_copy_of_the_same_numbers(features):
    assert np.array_equal(np.asarray(features, np.float64), np.asarray(features).astype(np.float64))
    with pytest.raises(ValueError, match="without a copy"):
        np.array(features, copy=False)


def test_a_part_has_the_features_of_its_rows(features):
    whole = np.asarray(features)
    for part in ("train", "validation", "test"):
        numbers = [number for number, row in enumerate(features.rows) if row.part == part]
        assert np.array_equal(features.part(part), whole[numbers])
        assert features.part(part).rows == tuple(features.rows[number] for number in numbers)


def test_labels_are_places_among_the_classes(features):
    assert features.labels(["dog", "cat"]).tolist() == [1, 0, 0, 1, 1, 1, 1]
    assert features.labels(["dog", "cat"]).dtype == np.int64
    with pytest.raises(DataError, match=r"1\.png has the label 'dog'"):
        features.labels(["cat"])


def test_copies_and_equal_groups_share_a_number_also_in_a_chain(features):
    numbers = features.groups()
    assert numbers.dtype == np.int64
    together = {frozenset(np.flatnonzero(numbers == number).tolist()) for number in numbers}
    # rows: 0, 1 (x), 2 (x), 3, 4 (y), 5, 6 = a copy of 0 in group y
    assert together == {frozenset({0, 4, 6}), frozenset({1, 2}), frozenset({3}), frozenset({5})}


def test_a_row_that_the_disk_damaged_is_computed_again_and_said(features, store, trunk, caplog, reads):
    whole = np.asarray(features)
    shelf = Path(store.info()[0].folder)
    environment.close(shelf)
    content = bytearray((shelf / "data.mdb").read_bytes())
    content[content.index(whole[3].tobytes()) + 5] ^= 4
    (shelf / "data.mdb").write_bytes(content)
    reads.clear()
    close_to(features[2:5], whole[2:5])
    assert "lost the features of 1 images" in caplog.text
    assert reads == ["3.png"]
    caplog.clear()
    close_to(np.asarray(features), whole)
    assert caplog.text == ""


def test_features_survive_a_clearing_of_the_store(features, store):
    whole = np.asarray(features)
    store.clear()
    close_to(np.asarray(features), whole)
