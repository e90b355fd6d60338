import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from tests.features.memory import Memory, cut_short, pictures, png, row
from tests.features.runners import runner as runner_of
from tests.features.runners import small_runner

from regraft.core.errors import DataError, RefusedFile, StoreError
from regraft.core.machine import cores
from regraft.data import decode as decoding
from regraft.data.decode import decode
from regraft.data.index import Index
from regraft.data.read import read
from regraft.features import extract, worker
from regraft.features.augmentation import POLICIES, View, draw_views
from regraft.features.extract import stream
from regraft.features.store import environment
from regraft.features.store.shelf import bytes_needed
from regraft.features.store.store import Store
from regraft.inference.runner import Runner


@pytest.fixture(scope="module")
def runner():
    return runner_of()


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "store")
    yield opened
    for info in opened.info():
        environment.close(info.folder)


@pytest.fixture(autouse=True)
def reads():
    """The names of the places that were read, in order."""
    Memory.forget()
    return Memory.read_names


def expected(runner, rows, view=None):
    """The features of each image alone, or of a view of it."""
    return np.concatenate([runner(image(runner.trunk.preprocess, row, view)[None]) for row in rows])


def image(preprocess, row, view):
    """What the network is to see of an image, or of a view of it."""
    pixels = decode(row.location.content)
    return draw_views(pixels, preprocess, row.id, [view])[0] if view else preprocess(pixels)


def close_to(features, answer):
    np.testing.assert_allclose(features, answer, rtol=1e-4, atol=1e-5)


def test_weights_that_give_no_numbers_are_refused_and_nothing_is_stored(store):
    bad = runner_of()
    for parameter in bad.trunk.module.parameters():
        parameter.fill_(np.nan)
    with pytest.raises(RefusedFile, match=r"test_resnet with the weights .* gives NaN or infinity for 0\.png"):
        extract.extract(Index(tuple(pictures(3))), bad, store)
    assert [info.images for info in store.info()] in ([], [0])


# Without a store


def test_a_stream_gives_every_used_row_in_order_with_its_features_or_its_error(runner, store):
    rows = pictures(5)
    rows[1:1] = [row("cut", cut_short(1)), row("ignored", b"", status="ignored", reason="hidden")]
    rows[5:5] = [row("gone", b"", error=FileNotFoundError(2, "No such file or directory"))]
    seen, good = [], []
    for batch, features in stream(Index(tuple(rows)), runner, store):
        seen += batch
        good += [each for each in batch if each.status == "used"]
        close_to(features, expected(runner, [row for row in batch if row.status == "used"]))
    assert [row.path for row in seen] == [row.path for row in rows if row.path != "ignored"]
    assert [row.path for row in good] == [f"{seed}.png" for seed in range(5)]
    assert {row.path: row.reason for row in seen if row.status == "broken"}["gone"] == (
        "can't be read: No such file or directory"
    )
    assert sum(info.images for info in store.info()) == 0


# With a store


def test_stored_features_are_those_of_each_image_alone(runner, store):
    rows = pictures(40)
    features = extract.extract(Index(tuple(rows)), runner, store)
    close_to(np.asarray(features), expected(runner, rows))
    assert features.index.rows == tuple(rows)


def test_a_second_run_reads_no_image(runner, store, reads):
    index = Index((*pictures(5), row("cut", cut_short(1))))
    first = extract.extract(index, runner, store)
    reads.clear()
    second = extract.extract(index, runner, store)
    assert reads == []
    assert np.array_equal(first, second)
    assert first.index == second.index


def test_one_more_image_costs_one_image(runner, store, reads):
    extract.extract(Index(tuple(pictures(5))), runner, store)
    reads.clear()
    features = extract.extract(Index(tuple(pictures(6))), runner, store)
    assert reads == ["5.png"]
    close_to(np.asarray(features), expected(runner, pictures(6)))


def test_equal_bytes_are_computed_once(runner, store, reads):
    rows = [*pictures(3), row("copy.png", png(1))]
    features = extract.extract(Index(tuple(rows)), runner, store)
    assert reads == ["0.png", "1.png", "2.png"]
    assert np.array_equal(features[3], features[1])


def test_a_renamed_folder_costs_nothing(runner, store, tmp_path):
    for seed in range(4):
        file = tmp_path / "photos" / "ab"[seed % 2] / f"{seed}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(seed))
    first = extract.extract(read(tmp_path / "photos"), runner, store)
    (tmp_path / "photos").rename(tmp_path / "renamed")
    index = read(tmp_path / "renamed")
    for file in tmp_path.rglob("renamed/*/*.png"):
        file.unlink()
    assert np.array_equal(extract.extract(index, runner, store), first)


def test_another_trunk_has_a_shelf_of_its_own(runner, store, reads):
    index = Index(tuple(pictures(3)))
    extract.extract(index, runner, store)
    reads.clear()
    extract.extract(index, runner_of(seed=1), store)
    assert len(reads) == 3
    assert [info.images for info in store.info()] == [3, 3]


def test_only_used_rows_are_computed(runner, store, reads):
    rows = [*pictures(2), row("left out", png(9), status="ignored", reason="a conflict")]
    features = extract.extract(Index(tuple(rows)), runner, store)
    assert reads == ["0.png", "1.png"]
    assert (len(features), features.index.rows[2]) == (2, rows[2])


# What is broken


def test_a_broken_image_is_marked_with_its_reason_and_remembered_by_its_bytes(runner, store, reads):
    rows = [*pictures(2), row("cut", cut_short(1)), *pictures(1, first=2)]
    features = extract.extract(Index(tuple(rows)), runner, store)
    (broken,) = features.index.broken
    assert (broken.path, len(features), bool(broken.reason)) == ("cut", 3, True)
    close_to(np.asarray(features), expected(runner, pictures(3)))
    reads.clear()
    again = extract.extract(Index((row("renamed", cut_short(1)),)), runner, store)
    assert (again.index.rows[0].reason, reads) == (broken.reason, [])


def test_a_file_that_cannot_be_read_is_broken_until_it_can(runner, store):
    gone = row("0.png", png(0), error=PermissionError(13, "Permission denied"))
    features = extract.extract(Index((gone, *pictures(1, first=1))), runner, store)
    assert [row.reason for row in features.index.broken] == ["can't be read: Permission denied"]
    close_to(np.asarray(features), expected(runner, pictures(1, first=1)))
    back = extract.extract(Index(tuple(pictures(2))), runner, store)
    close_to(np.asarray(back), expected(runner, pictures(2)))


def test_a_copy_stands_in_for_a_file_that_cannot_be_read(runner, store):
    gone = row("gone.png", png(0), error=OSError(5, "Input/output error"))
    features = extract.extract(Index((gone, *pictures(1), gone)), runner, store)
    assert [row.path for row in features.index.broken] == ["gone.png", "gone.png"]
    close_to(np.asarray(features), expected(runner, pictures(1)))


def test_a_file_that_was_changed_is_not_stored_under_the_old_bytes(runner, store):
    changed = dataclasses.replace(row("0.png", png(7)), id=pictures(1)[0].id)
    features = extract.extract(Index((changed,)), runner, store)
    assert [row.reason for row in features.index.broken] == ["it was changed since it was listed"]
    assert store.info()[0].images == 0
    close_to(np.asarray(extract.extract(Index(tuple(pictures(1))), runner, store)), expected(runner, pictures(1)))


# Stopped in the middle


def test_an_interruption_keeps_what_was_done(runner, store, reads):
    rows = pictures(100)
    stopped = [*rows[:70], row("70.png", png(70), error=KeyboardInterrupt()), *rows[71:]]
    with pytest.raises(KeyboardInterrupt):
        extract.extract(Index(tuple(stopped)), runner, store)
    kept = sum(info.images for info in store.info())
    assert 70 - (cores() + 2) * worker.CHUNK <= kept <= 70
    reads.clear()
    features = extract.extract(Index(tuple(rows)), runner, store)
    assert reads == [f"{seed}.png" for seed in range(kept, 100)]
    close_to(np.asarray(features), expected(runner, rows))


CHILD = """
import os, signal, sys
from pathlib import Path
from regraft.data.read import read
from regraft.data.sources.folder import FileLocation
from regraft.features import extract, fill, worker
from regraft.features.store.store import Store
from tests.features.runners import small_runner

index = read(sys.argv[1])
worker.cores = lambda: 2  # how far ahead it reads, whatever the machine
runner = small_runner()
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


def answer(runner, index):
    preprocess = runner.trunk.preprocess
    return np.concatenate([runner(preprocess(decode(row.location.read()))[None]) for row in index])


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_run_that_was_killed_goes_on_where_it_was(store, photos):
    child = start(
        """
        fill.SAVE_SECONDS = 0
        read_bytes, count = FileLocation.read, iter(range(1000))
        def read_or_die(location):
            if next(count) == 80:
                os.kill(os.getpid(), signal.SIGKILL)
            return read_bytes(location)
        FileLocation.read = read_or_die
        extract.extract(index, runner, store)
        """,
        photos,
        store.folder,
    )
    child.communicate(timeout=120)
    assert child.returncode == -signal.SIGKILL
    kept = store.info()[0].images
    assert 32 <= kept < 100
    index, runner = read(photos), small_runner()
    close_to(np.asarray(extract.extract(index, runner, store)), answer(runner, index))
    assert store.info()[0].images == 100


def test_two_extractions_at_once_both_end_with_all_features(store, photos):
    code = "fill.SAVE_SECONDS = 0\nprint(len(extract.extract(index, runner, store)))"
    children = [start(code, photos, store.folder) for _ in range(2)]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert [output for output, _ in outputs] == ["100\n", "100\n"]
    index, runner = read(photos), small_runner()
    close_to(np.asarray(extract.extract(index, runner, store)), answer(runner, index))
    assert store.info()[0].images == 100


def wide(runner):
    """What runs a trunk whose features are too large for any disk."""
    return Runner(dataclasses.replace(runner.trunk, output_shape=(10**15,)))


def test_what_does_not_fit_on_the_disk_is_refused_before_anything_is_read(runner, store, reads):
    with pytest.raises(StoreError, match=r"features of 3 images take up to .*PB, and there are .*B for the store in "):
        extract.extract(Index(tuple(pictures(3))), wide(runner), store, [VIEWS[0]])
    assert reads == []


# Views

VIEWS = tuple(View(POLICIES["strong"], 0, number) for number in range(1, 6))


def parted(counts=(6, 2, 3)):
    """Pictures in three parts, with labels."""
    parts = [part for part, count in zip(("train", "validation", "test"), counts, strict=True) for _ in range(count)]
    rows = pictures(len(parts))
    return [
        dataclasses.replace(row, part=part, label="cd"[at % 2])
        for at, (row, part) in enumerate(zip(rows, parts, strict=True))
    ]


def held(store):
    (info,) = store.info()
    return info.images, info.views


def test_the_training_images_have_their_views_and_the_others_none(runner, store):
    rows = parted()
    features = extract.extract(Index(tuple(rows)), runner, store, VIEWS[:3])
    assert held(store) == (11, 18)
    close_to(np.asarray(features), expected(runner, rows))
    train = features.part("train")
    assert len(train.views) == 3 and all(view.rows == train.rows for view in train.views)
    for number, view in enumerate(train.views):
        close_to(np.asarray(view), expected(runner, train.rows, VIEWS[number]))
        assert view.views == () and not np.allclose(view, train)
    assert features.part("validation").views == features.part("test").views == ()
    assert features.part("test").fresh is None
    close_to(np.asarray(features.part("test")), expected(runner, rows[8:]))


def test_without_parts_every_image_has_views(runner, store):
    features = extract.extract(Index(tuple(pictures(4))), runner, store, VIEWS[:2])
    assert held(store) == (4, 8)
    close_to(np.asarray(features.views[1]), expected(runner, pictures(4), VIEWS[1]))


def test_views_are_stored_once_and_one_more_costs_one(runner, store, reads, decoded):
    index = Index(tuple(parted()))
    first = extract.extract(index, runner, store, VIEWS[:3])
    assert (len(reads), len(decoded)) == (11, 11)  # one reading and one decoding serve an image and its views
    reads.clear()
    again = extract.extract(index, runner, store, VIEWS[:3])
    assert reads == [] and np.array_equal(again.part("train").views[2], first.part("train").views[2])
    extract.extract(index, runner, store, VIEWS[:2])
    extract.extract(index, runner, store)
    assert reads == []
    more = extract.extract(index, runner, store, VIEWS[:4])
    assert reads == [f"{seed}.png" for seed in range(6)] and held(store) == (11, 24)
    assert np.array_equal(more.part("train").views[0], first.part("train").views[0])


@pytest.fixture
def decoded(monkeypatch):
    """How many images were decoded."""
    counts = []
    monkeypatch.setattr(worker, "decoded", lambda *arguments: counts.append(1) or decoding.decoded(*arguments))
    return counts


def test_an_image_that_moves_into_the_training_part_gets_its_views_then(runner, store, reads):
    rows = parted()
    extract.extract(Index(tuple(rows)), runner, store, VIEWS[:2])
    reads.clear()
    rows[10] = dataclasses.replace(rows[10], part="train")
    features = extract.extract(Index(tuple(rows)), runner, store, VIEWS[:2]).part("train")
    assert reads == ["10.png"] and held(store) == (11, 14)
    close_to(np.asarray(features.views[0]), expected(runner, features.rows, VIEWS[0]))


def test_a_copy_in_another_part_takes_no_view_from_the_training_part(runner, store):
    rows = [dataclasses.replace(row("copy.png", png(2)), part="test", label="c"), *parted()]
    features = extract.extract(Index(tuple(rows)), runner, store, VIEWS[:2]).part("train")
    close_to(np.asarray(features.views[1]), expected(runner, features.rows, VIEWS[1]))


def test_a_broken_training_image_has_no_views_and_is_read_once(runner, store, reads):
    rows = [*parted(), row("cut", cut_short(1), part="train", label="c")]
    features = extract.extract(Index(tuple(rows)), runner, store, VIEWS[:2])
    assert [row.path for row in features.index.broken] == ["cut"]
    assert [len(view) for view in features.part("train").views] == [6, 6] and held(store) == (11, 12)
    reads.clear()
    extract.extract(Index(tuple(rows)), runner, store, VIEWS[:3])
    assert "cut" not in reads


def test_an_interruption_keeps_the_views_that_were_done(runner, store, reads):
    rows = pictures(60)
    stopped = [*rows[:50], row("50.png", png(50), error=KeyboardInterrupt()), *rows[51:]]
    with pytest.raises(KeyboardInterrupt):
        extract.extract(Index(tuple(stopped)), runner, store, VIEWS[:3])
    images, views = held(store)
    assert views == 3 * images and images >= 50 - (cores() + 2) * worker.CHUNK
    reads.clear()
    features = extract.extract(Index(tuple(rows)), runner, store, VIEWS[:3])
    assert reads == [f"{seed}.png" for seed in range(images, 60)] and held(store) == (60, 180)
    close_to(np.asarray(features.views[2]), expected(runner, rows, VIEWS[2]))


def test_a_view_that_the_disk_damaged_is_computed_again_and_said(runner, store, caplog, reads):
    view = extract.extract(Index(tuple(parted())), runner, store, VIEWS[:2]).part("train").views[1]
    whole = np.asarray(view)
    damage(store, whole[3])
    reads.clear()
    close_to(np.asarray(view), whole)
    assert "lost the features of 1 image." in caplog.text
    assert reads == ["3.png"]


# Where the room is small


def gigabytes(runner, rows):
    return bytes_needed(rows, runner.trunk.output_shape, runner.trunk.stored) / 1e9


def test_there_are_as_many_views_as_the_limit_has_room_for_and_that_is_said(runner, store, caplog):
    index = Index(tuple(parted()))
    features = extract.extract(index, runner, store, VIEWS, limit=gigabytes(runner, 11 + 3 * 6))
    assert "enough for 3 of 5 views" in caplog.text and str(store.folder) in caplog.text
    assert len(features.part("train").views) == 3 and held(store) == (11, 18)
    caplog.clear()
    again = extract.extract(index, runner, store, VIEWS[:3], limit=0)  # all is there: nothing more is written
    assert len(again.part("train").views) == 3 and caplog.text == ""


def test_without_room_for_one_view_there_is_none(runner, store, caplog):
    features = extract.extract(Index(tuple(parted())), runner, store, VIEWS[:2], limit=gigabytes(runner, 11))
    assert "enough for 0 of 2 views" in caplog.text
    assert features.part("train").views == () and held(store) == (11, 0)


def test_pooled_features_without_room_are_refused_before_anything_is_read(runner, store, reads):
    with pytest.raises(StoreError, match=r"features of 11 images .*--store-limit.*--store"):
        extract.extract(Index(tuple(parted())), runner, store, VIEWS[:2], limit=gigabytes(runner, 10))
    assert reads == []


@pytest.fixture(scope="module")
def below():
    """What runs a trunk that gives maps for a tail."""
    return runner_of(cut="layer2", tail=True)


def test_maps_for_a_tail_are_stored_as_bfloat16(below, store):
    rows = parted()
    features = extract.extract(Index(tuple(rows)), below, store, VIEWS[:1])
    np.testing.assert_allclose(np.asarray(features), expected(below, rows), rtol=2**-8, atol=1e-6)
    view = features.part("train").views[0]
    np.testing.assert_allclose(np.asarray(view), expected(below, rows[:6], VIEWS[0]), rtol=2**-8, atol=1e-6)
    assert features.stored


def test_maps_without_room_are_computed_whenever_they_are_read_and_that_is_said(below, store, caplog, reads):
    rows = [*parted(), row("cut", cut_short(1), part="train", label="c")]
    features = extract.extract(Index(tuple(rows)), below, store, VIEWS[:2], limit=gigabytes(below, 5))
    assert "computed again in every epoch" in caplog.text and "maps of 12 images" in caplog.text
    assert not features.stored and features.views == ()
    assert [row.path for row in features.index.broken] == ["cut"]
    train = features.part("train")
    for _ in range(2):
        reads.clear()
        close_to(train[[4, 1]], expected(below, [rows[4], rows[1]]))
        assert reads == ["4.png", "1.png"]
    close_to(np.asarray(features), expected(below, rows[:11]))
    assert sum(info.images for info in store.info()) == 0
    assert train[[]].shape == (0, *below.trunk.output_shape)


def test_an_image_that_is_gone_when_it_is_computed_again_is_named(below, store, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(png(seed))
    features = extract.extract(read(sorted(folder.iterdir()), ["a", "b", "a"]), below, store, limit=0)
    (folder / "1.png").unlink()
    with pytest.raises(StoreError, match=r"1\.png could be read before and can't be now"):
        np.asarray(features)
    assert features[[0, 2]].shape == (2, *below.trunk.output_shape)


# New views in every epoch


def test_fresh_views_are_new_in_every_epoch_and_stored_nowhere(runner, store, reads):
    rows = parted()
    features = extract.extract(Index(tuple(rows)), runner, store).with_fresh(VIEWS[0])
    train = features.part("train")
    assert train.fresh is not None and train.views == ()
    reads.clear()
    for number in (1, 2, 7):
        again = dataclasses.replace(VIEWS[0], number=number)
        close_to(np.asarray(train.fresh(number)), expected(runner, train.rows, again))
    assert reads == 3 * [f"{seed}.png" for seed in range(6)]
    assert held(store) == (11, 0)
    np.testing.assert_array_equal(train.fresh(2), train.fresh(2))
    assert not np.allclose(train.fresh(1), train.fresh(2))


def test_what_is_held_out_has_no_fresh_views_and_the_images_themselves_stay_as_they_are(runner, store):
    rows = parted()
    features = extract.extract(Index(tuple(rows)), runner, store).with_fresh(VIEWS[0])
    assert features.part("validation").fresh is None and features.part("test").fresh is None
    assert features.without_views().fresh is None
    close_to(np.asarray(features), expected(runner, rows))


def test_a_part_of_the_training_part_keeps_its_views(runner, store):
    train = extract.extract(Index(tuple(parted())), runner, store, VIEWS[:2]).part("train")
    some = train.with_index(train.index.with_rows(train.rows[2:5]))
    close_to(np.asarray(some.views[1]), expected(runner, train.rows[2:5], VIEWS[1]))


# Features, as an array


@pytest.fixture
def features(runner, store):
    parts = ["train", "train", "test", "validation", "train", "test"]
    labels = ["cat", "dog", "dog", "cat", "cat", "cat"]
    groups = [None, "x", "x", None, "y", None]
    rows = [
        dataclasses.replace(row, part=part, label=label, group=group)
        for row, part, label, group in zip(pictures(6), parts, labels, groups, strict=True)
    ]
    rows.insert(2, row("cut", cut_short(1), part="train", label="dog"))
    rows.append(dataclasses.replace(row("copy.png", png(0)), part="train", label="cat", group="y"))
    return extract.extract(Index(tuple(rows)), runner, store)


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
def test_rows_are_taken_as_numpy_takes_them(features, runner, rows):
    whole = np.asarray(features)
    assert whole.shape == features.shape == (7, *runner.trunk.output_shape)
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


def damage(store, row):
    """Change a bit of a stored row behind the store's back."""
    shelf = Path(store.info()[0].folder)
    environment.close(shelf)
    content = bytearray((shelf / "data.mdb").read_bytes())
    content[content.index(row.tobytes()) + 5] ^= 4
    (shelf / "data.mdb").write_bytes(content)


def test_a_row_that_the_disk_damaged_is_computed_again_and_said(features, store, runner, caplog, reads):
    whole = np.asarray(features)
    damage(store, whole[3])
    reads.clear()
    close_to(features[2:5], whole[2:5])
    assert "lost the features of 1 image." in caplog.text
    assert reads == ["3.png"]
    caplog.clear()
    close_to(np.asarray(features), whole)
    assert caplog.text == ""


def test_features_survive_a_clearing_of_the_store(features, store):
    whole = np.asarray(features)
    store.clear()
    close_to(np.asarray(features), whole)
