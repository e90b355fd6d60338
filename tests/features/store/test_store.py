import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch

from regraft.core.errors import StoreError
from regraft.features.store import environment
from regraft.features.store.shelf import MissingRows, bytes_needed
from regraft.features.store.store import Store, default_folder, room
from regraft.inference import agreement, engines

DIGEST = "a" * 64
ABOUT = {"architecture": "resnet50", "cut": "pooled"}
WIDTH = 700
RECORD = 4 + 4 * WIDTH  # bytes: a checksum and the numbers

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")

# What another process starts with: the same images and numbers as `ids` and `rows` here.
CHILD = """
import hashlib, os, signal, sys
from pathlib import Path
import numpy as np
from regraft.features.store.store import Store

def ids(count):
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]

def rows(count, width=700):
    return np.arange(count * width, dtype=np.float32).reshape(count, width)

shelf = Store(Path(sys.argv[1])).shelf("a" * 64, {"architecture": "resnet50", "cut": "pooled"})
"""


def ids(count):
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def rows(count, width=WIDTH):
    return np.arange(count * width, dtype=np.float32).reshape(count, width)


def sorted_by_value(content):
    """Return a database whose two pages of facts say that a key has several values, where LMDB's assertion waited."""
    changed = bytearray(content)
    for page in (0, 4096):
        changed[page + 44] |= 0x04  # MDB_DUPSORT, of the free pages
    return bytes(changed)


def views(count, number=1):
    """The keys of one augmented view of the first images."""
    return [id + f"{number:016x}" for id in ids(count)]


def start(folder, code):
    command = [sys.executable, "-W", "error", "-c", CHILD + textwrap.dedent(code), str(folder)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def run(folder, code):
    with start(folder, code) as child:
        output = child.communicate(timeout=60)[0]
    assert child.returncode == 0
    return output.strip()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def shelf(folder):
    shelf = Store(folder).shelf(DIGEST, ABOUT)
    yield shelf
    environment.close(shelf.folder)


def data_file(shelf):
    return shelf.folder / "data.mdb"


def rewrite(shelf, change):
    """Let `change` alter the bytes of the data file while no one has it open."""
    environment.close(shelf.folder)
    content = bytearray(data_file(shelf).read_bytes())
    data_file(shelf).write_bytes(change(content))


def flip_a_bit_of(shelf, row):
    def change(content):
        at = content.index(row.tobytes())
        content[at + 10] ^= 1
        return content

    rewrite(shelf, change)


# What goes in comes out


def test_features_are_read_back_bit_for_bit_in_the_order_asked_for(shelf):
    features = np.random.default_rng(0).integers(0, 2**31, (5, 2, 3), np.uint32).view(np.float32)
    features[0, 0] = [-0.0, 1e-45, np.finfo(np.float32).max]
    shelf.put(ids(5), features)
    order = [4, 0, 0, 2]
    read = shelf.read([ids(5)[number] for number in order], (2, 3))
    assert read.tobytes() == features[order].tobytes()


def test_what_is_read_is_a_copy_that_later_changes_leave_alone(shelf):
    shelf.put(ids(1), rows(1))
    shelf.read(ids(1), (WIDTH,))[:] = -1
    assert np.array_equal(shelf.read(ids(1), (WIDTH,)), rows(1))


def test_a_reading_of_several_stretches_gives_the_same_rows_and_names_all_that_are_lost(shelf, monkeypatch):
    monkeypatch.setattr(environment, "MAPPED", 5 * RECORD)
    monkeypatch.setattr("regraft.features.store.shelf.LOOKED_UP", RECORD)
    shelf.put(ids(20), rows(20), {id: id[:5] for id in ids(40)[35:]})
    order = np.random.default_rng(0).integers(0, 20, 50)
    assert np.array_equal(shelf.read([ids(20)[number] for number in order], (WIDTH,)), rows(20)[order])
    assert shelf.missing([*ids(40)[::-1], *ids(30)]) == ids(35)[:19:-1]
    assert shelf.errors(ids(40)[::-1]) == {id: id[:5] for id in ids(40)[35:]}
    with pytest.raises(MissingRows) as caught:
        shelf.read(ids(40)[10:], (WIDTH,))
    assert caught.value.ids == ids(40)[20:]


@pytest.mark.skipif(sys.platform != "linux", reason="reads what is mapped from /proc")
@pytest.mark.parametrize(
    "use",
    [
        lambda shelf: shelf.read(ids(200), (WIDTH,)),
        lambda shelf: [shelf.read([id], (WIDTH,)) for id in ids(200)],
        lambda shelf: shelf.missing(ids(200)),
        lambda shelf: shelf.errors(ids(200)),
        lambda shelf: shelf.put(ids(200), rows(200)),
    ],
    ids=["read", "read one by one", "missing", "errors", "put"],
)
def test_no_use_however_long_leaves_the_file_in_memory(shelf, monkeypatch, use):
    shelf.put(ids(200), rows(200))
    assert str(data_file(shelf)) in Path("/proc/self/maps").read_text()
    monkeypatch.setattr(environment, "MAPPED", RECORD - 1)
    monkeypatch.setattr("regraft.features.store.shelf.LOOKED_UP", RECORD)
    use(shelf)
    assert str(data_file(shelf)) not in Path("/proc/self/maps").read_text()


def test_no_ids_give_no_rows(shelf):
    assert shelf.read([], (2, 3)).shape == (0, 2, 3)


def test_missing_are_those_with_neither_features_nor_an_error_each_once_and_in_order(shelf):
    shelf.put(ids(3)[:1], rows(1), {ids(3)[1]: "cut short"})
    unknown = ids(9)[5:]
    assert shelf.missing([unknown[2], *ids(3)[:2], unknown[0], unknown[2]]) == [unknown[2], unknown[0]]


def test_errors_are_kept_word_for_word(shelf):
    shelf.put([], rows(0), {ids(1)[0]: "défectueux ✗"})
    assert shelf.errors(ids(3)) == {ids(1)[0]: "défectueux ✗"}


def test_features_that_are_there_are_not_written_over(shelf):
    shelf.put(ids(1), rows(1))
    shelf.put(ids(1), rows(1) + 1)
    assert np.array_equal(shelf.read(ids(1), (WIDTH,)), rows(1))


def test_rows_that_were_never_stored_are_named(shelf):
    shelf.put(ids(2)[:1], rows(1))
    with pytest.raises(MissingRows) as caught:
        shelf.read([*ids(2), ids(2)[1]], (WIDTH,))
    assert caught.value.ids == [ids(2)[1]]


def test_a_put_that_fails_stores_nothing(shelf):
    with pytest.raises(ValueError, match="shorter"):
        shelf.put(ids(3), rows(2))
    assert shelf.missing(ids(3)) == ids(3)


def test_the_map_grows_when_it_is_full(shelf, monkeypatch):
    monkeypatch.setattr(environment, "FIRST_MAP", 1 << 16)
    shelf.put(ids(100), rows(100))
    assert data_file(shelf).stat().st_size > 100 * WIDTH * 4 > 1 << 16
    assert np.array_equal(shelf.read(ids(100), (WIDTH,)), rows(100))


def test_a_map_that_another_process_grew_is_followed(shelf, folder, monkeypatch):
    monkeypatch.setattr(environment, "FIRST_MAP", 1 << 16)
    shelf.put(ids(1), rows(1))
    run(folder, "shelf.put(ids(100), rows(100))")
    assert np.array_equal(shelf.read(ids(100), (WIDTH,)), rows(100))
    shelf.put(ids(101)[100:], rows(101)[100:])
    assert shelf.missing(ids(101)) == []


# Augmented views


def test_an_images_views_are_rows_of_their_own(shelf):
    shelf.put([*ids(2), *views(2), *views(2, 2)], rows(6))
    assert np.array_equal(shelf.read([*views(2, 2), *ids(1), *views(1)], (WIDTH,)), rows(6)[[4, 5, 0, 2]])


def test_a_view_is_missing_unless_it_has_features_or_its_image_an_error(shelf):
    shelf.put([*ids(2), *views(1)], rows(3), {ids(3)[2]: "cut short"})
    assert shelf.missing([*views(4), *ids(4)]) == [views(4)[1], views(4)[3], ids(4)[3]]
    assert shelf.errors([*views(3), *ids(3)]) == {views(3)[2]: "cut short", ids(3)[2]: "cut short"}


def test_an_error_of_a_view_is_its_images(shelf):
    shelf.put([], rows(0), {views(1)[0]: "cut short"})
    assert shelf.errors(ids(1)) == {ids(1)[0]: "cut short"}


def test_views_are_counted_apart_from_images(shelf, folder):
    shelf.put([*ids(4), *views(3), *views(2, 2)], rows(9), {ids(6)[5]: "cut short"})
    (info,) = Store(folder).info()
    assert (info.images, info.views) == (4, 5)
    assert "4 images and 5 views of them" in Store(folder).text()
    assert Store(folder).to_dict()["shelves"][0]["views"] == 5


# Kept as bfloat16


@pytest.fixture
def half_shelf(folder):
    shelf = Store(folder).shelf(DIGEST, ABOUT, "bfloat16")
    yield shelf
    environment.close(shelf.folder)


def test_bfloat16_rounds_as_torch_does_and_comes_back_as_float32(half_shelf):
    bits = np.random.default_rng(0).integers(0, 2**32, (40, 20, 50), np.uint32)
    bits[:8] &= 0xFFFF8000  # half-way between two neighbours, or exact
    bits[8:16] &= 0x807FFFFF  # subnormal
    numbers = bits.view(np.float32)
    numbers[~np.isfinite(numbers)] = 0
    numbers[0, 0, :3] = [-0.0, np.finfo(np.float32).max, -np.finfo(np.float32).max]
    half_shelf.put(ids(40), numbers)
    read = half_shelf.read(ids(40), (20, 50))
    assert read.dtype == np.float32
    assert read.tobytes() == torch.from_numpy(numbers).bfloat16().float().numpy().tobytes()


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_features_of_any_layout_and_float_type_are_stored_by_their_values(folder, kind):
    shelf = Store(folder).shelf(DIGEST, ABOUT, kind)
    numbers = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)  # whole and small: exact in every type
    shelf.put(ids(2), numbers.astype(np.float16).transpose(0, 2, 1))
    assert np.array_equal(shelf.read(ids(2), (4, 3)), numbers.transpose(0, 2, 1))
    environment.close(shelf.folder)


def test_bfloat16_takes_half_the_disk(folder):
    for digest, kind in (("a" * 64, "float32"), ("b" * 64, "bfloat16")):
        Store(folder).shelf(digest, ABOUT, kind).put(ids(100), rows(100, 20_000))
    taken = {info.folder.name: info.bytes for info in Store(folder).info()}
    assert 0.49 < taken["b" * 64] / taken["a" * 64] < 0.53


def test_a_flipped_bit_of_bfloat16_is_noticed(half_shelf):
    half_shelf.put(ids(9), rows(9))
    flip_a_bit_of(half_shelf, (rows(9)[4].view(np.uint32) >> 16).astype("<u2")[:2])  # 2800 and 2801, both exact or cut
    with pytest.raises(MissingRows) as caught:
        half_shelf.read(ids(9), (WIDTH,))
    assert len(caught.value.ids) == 1


def test_a_row_of_the_other_type_counts_as_lost_and_is_written_again(shelf, half_shelf):
    shelf.put(ids(1), rows(1))
    with pytest.raises(MissingRows):
        half_shelf.read(ids(1), (WIDTH,))
    half_shelf.put(ids(1), np.ones((1, WIDTH), np.float32))
    assert np.array_equal(half_shelf.read(ids(1), (WIDTH,)), np.ones((1, WIDTH)))


# Several at once


def test_another_process_reads_what_this_one_has_open(shelf, folder):
    shelf.put(ids(4), rows(4), {ids(9)[8]: "cut short"})
    output = run(
        folder,
        """
        print((shelf.read(ids(4), (700,)) == rows(4)).all())
        print(shelf.errors(ids(9)))
        print(shelf.missing(ids(6)))
        """,
    )
    assert output.splitlines() == ["True", str({ids(9)[8]: "cut short"}), str(ids(6)[4:])]


def test_two_processes_fill_one_shelf_at_once(shelf, folder):
    fill = """
        for at in range(0, 200, 5):
            shelf.put(ids(200)[at : at + 5], rows(200)[at : at + 5], {ids(201)[200]: "cut short"})
    """
    children = [start(folder, fill), start(folder, fill)]
    assert [child.wait(timeout=60) for child in children] == [0, 0]
    for child in children:
        child.communicate()
    assert np.array_equal(shelf.read(ids(200), (WIDTH,)), rows(200))
    assert shelf.missing(ids(201)) == []


def test_threads_of_one_process_share_a_shelf(folder, shelf):
    failed = []

    def fill(number):
        try:
            own = Store(folder).shelf(DIGEST, ABOUT)
            for at in range(number, 64, 8):
                own.put(ids(64)[at : at + 1], rows(64)[at : at + 1])
                assert np.array_equal(own.read(ids(64)[at : at + 1], (WIDTH,)), rows(64)[at : at + 1])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert np.array_equal(shelf.read(ids(64), (WIDTH,)), rows(64))


@posix
def test_a_store_may_be_reached_by_two_names(shelf, folder, tmp_path):
    shelf.put(ids(2), rows(2))
    (tmp_path / "link").symlink_to(folder)
    other = Store(tmp_path / "link").shelf(DIGEST, ABOUT)
    assert np.array_equal(other.read(ids(2), (WIDTH,)), rows(2))


@posix
def test_what_was_put_before_a_kill_is_there_after_it(shelf, folder):
    child = start(
        folder,
        """
        for at in range(0, 10_000):
            shelf.put(ids(at + 1)[at:], rows(1) + at)
            print(at, flush=True)
        """,
    )
    last = [int(child.stdout.readline()) for _ in range(20)][-1]
    child.kill()
    last = max([last, *map(int, child.communicate()[0].split()[:-1])])
    assert np.array_equal(shelf.read(ids(last + 1), (WIDTH,)), rows(1) + np.arange(last + 1, dtype=np.float32)[:, None])
    stored = last + 1 + (shelf.missing(ids(last + 2)) == [])
    shelf.put(ids(10_001)[-1:], rows(1))
    assert Store(folder).info()[0].images == stored + 1


@posix
def test_a_process_killed_inside_a_transaction_leaves_nothing_of_it_and_no_lock(shelf, folder):
    shelf.put(ids(1), rows(1))
    child = start(
        folder,
        """
        from regraft.features.store import shelf as module
        put, count = module._put, iter(range(9))
        def put_or_die(*arguments):
            put(*arguments)
            if next(count) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
        module._put = put_or_die
        shelf.put(ids(20)[10:], rows(10))
        """,
    )
    child.communicate(timeout=60)
    assert child.returncode == -9
    assert shelf.missing(ids(20)) == ids(20)[1:]
    shelf.put(ids(20), rows(20))
    assert np.array_equal(shelf.read(ids(20), (WIDTH,)), rows(20))


@posix
def test_a_forked_process_reads_and_writes_the_shelf_that_its_parent_has_open(shelf, folder):
    output = run(
        folder,
        """
        shelf.put(ids(1), rows(1))
        child = os.fork()
        if child == 0:
            shelf.read(ids(1), (700,))
            shelf.put(ids(2), rows(2))
            os._exit(0)
        code = os.waitpid(child, 0)[1]
        shelf.put(ids(3), rows(3))
        print(code, shelf.missing(ids(3)))
        """,
    )
    assert output == "0 []"
    assert np.array_equal(shelf.read(ids(3), (WIDTH,)), rows(3))


# Damage


def test_a_flipped_bit_is_noticed_and_repaired_by_the_next_put(shelf):
    shelf.put(ids(9), rows(9))
    flip_a_bit_of(shelf, rows(9)[4])
    with pytest.raises(MissingRows) as caught:
        shelf.read(ids(9), (WIDTH,))
    assert caught.value.ids == [ids(9)[4]]
    shelf.put(ids(9)[4:5], rows(9)[4:5])
    assert np.array_equal(shelf.read(ids(9), (WIDTH,)), rows(9))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: content[:-4096], id="cut by a page"),
        pytest.param(lambda content: content[: len(content) // 2 + 5], id="cut in half"),
        pytest.param(lambda content: content[:100], id="cut to its first bytes"),
        pytest.param(lambda content: np.random.default_rng(0).bytes(len(content)), id="garbage"),
        pytest.param(lambda content: bytes(len(content)), id="zeros"),
        pytest.param(lambda content: sorted_by_value(content), id="flags of another kind of database"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_left_as_it_is(shelf, change):
    shelf.put(ids(50), rows(50))
    rewrite(shelf, change)
    before = data_file(shelf).read_bytes()
    for use in (
        lambda: shelf.read(ids(1), (WIDTH,)),
        lambda: shelf.put(ids(1), rows(1)),
        lambda: shelf.missing(ids(1)),
    ):
        with pytest.raises(StoreError, match=r"damaged.* Delete that folder") as caught:
            use()
        assert str(shelf.folder) in str(caught.value)
    assert data_file(shelf).read_bytes() == before


def test_a_damaged_shelf_does_not_hide_the_others_and_is_cleared_with_them(shelf, folder):
    shelf.put(ids(2), rows(2))
    good = Store(folder).shelf("b" * 64, ABOUT)
    good.put(ids(3), rows(3))
    rewrite(shelf, lambda content: content[:5000])
    shelves = {info.folder.name: info for info in Store(folder).info()}
    assert "damaged" in shelves[DIGEST].problem
    assert (shelves["b" * 64].images, shelves["b" * 64].problem) == (3, "")
    assert "damaged" in Store(folder).text()
    Store(folder).clear()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (json.dumps({"format": 3, "about": {}}), "format 3; this regraft reads up to 2. Update regraft"),
        ("{", "damaged: about.json"),
        ("[]", "damaged: about.json"),
        ('{"format": "x", "about": {}}', "damaged: about.json"),
    ],
)
def test_a_later_format_and_a_damaged_description_are_refused(shelf, content, says):
    shelf.put(ids(1), rows(1))
    (shelf.folder / "about.json").write_text(content)
    with pytest.raises(StoreError, match=says):
        shelf.read(ids(1), (WIDTH,))


def test_a_shelf_of_the_first_format_is_read(shelf):
    shelf.put(ids(3), rows(3))
    (shelf.folder / "about.json").write_text(json.dumps({"format": 1, "about": ABOUT}))
    assert np.array_equal(shelf.read(ids(3), (WIDTH,)), rows(3))


# The disk refuses


@posix
def test_a_file_that_may_not_grow_ends_in_one_line_and_keeps_what_was_stored(shelf, folder):
    output = run(
        folder,
        """
        import resource
        from regraft.core.errors import StoreError
        shelf.put(ids(2), rows(2))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))
        try:
            shelf.put(ids(100), rows(100))
        except StoreError as error:
            print(error)
        print((shelf.read(ids(2), (700,)) == rows(2)).all(), len(shelf.missing(ids(100))))
        """,
    )
    line, after = output.splitlines()
    assert str(shelf.folder) in line
    assert "disk" in line
    assert "--store or REGRAFT_CACHE" in line
    assert after == "True 98"
    shelf.put(ids(100), rows(100))
    assert shelf.missing(ids(100)) == []


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk: needs root on Linux")
def test_a_full_disk_ends_in_one_line_and_can_be_read_and_cleared(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        shelf = Store(disk).shelf(DIGEST, ABOUT)
        shelf.put(ids(10), rows(10))
        with pytest.raises(StoreError, match=r"full|no room"):
            shelf.put(ids(1000), rows(1000))
        assert shelf.missing(ids(1000)) == ids(1000)[10:]
        with pytest.raises(OSError, match="No space"), (disk / "fill").open("wb", buffering=0) as fill:
            while True:
                fill.write(bytes(4096))
        with pytest.raises(StoreError, match="no room"):
            Store(disk).shelf("b" * 64, ABOUT).put(ids(1), rows(1))
        assert run(disk, "print((shelf.read(ids(10), (700,)) == rows(10)).all())") == "True"
        assert Store(disk).clear() > 10 * RECORD
    finally:
        environment.close(disk / DIGEST)
        environment.close(disk / ("b" * 64))
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_without_room_for_the_lock_is_refused_before_it_is_made(shelf, monkeypatch):
    shelf.folder.mkdir(parents=True)
    monkeypatch.setattr(environment, "LEAST_ROOM", 1 << 80)
    with pytest.raises(StoreError, match="no room is left"):
        shelf.put(ids(1), rows(1))
    assert not (shelf.folder / "lock.mdb").exists()


@posix
def test_a_folder_that_may_not_be_written_is_refused_with_what_to_do(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match=r"no right to write there.*--store or REGRAFT_CACHE") as caught:
            Store(closed / "store").shelf(DIGEST, ABOUT).missing(ids(1))
    finally:
        if root:
            os.seteuid(0)
    assert str(closed) in str(caught.value)


@contextlib.contextmanager
def read_only(folder):
    """Let nothing be written in a folder: a mount for root, whom no mode refuses, else modes."""
    if os.geteuid():
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o500 if path.is_dir() else 0o400)
        yield
        return
    bound = ["mount", "--bind", str(folder), str(folder)]
    if sys.platform != "linux" or subprocess.run(bound, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@posix
@pytest.mark.parametrize("locked", [True, False], ids=["with its lock", "without"])
def test_a_store_that_may_only_be_read_is_read_and_a_write_is_refused_with_what_to_do(shelf, folder, locked):
    shelf.put(ids(10), rows(10), {ids(12)[11]: "cut short"})
    environment.close(shelf.folder)
    if not locked:
        (shelf.folder / "lock.mdb").unlink()
    with read_only(folder):
        assert np.array_equal(shelf.read(ids(10), (WIDTH,)), rows(10))
        assert shelf.missing(ids(12)) == [ids(12)[10]]
        assert shelf.errors(ids(12)) == {ids(12)[11]: "cut short"}
        assert Store(folder).info()[0].images == 10
        for write in (lambda: shelf.put(ids(11), rows(11)), Store(folder).clear):
            with pytest.raises(StoreError, match=r"no right to write there.*--store or REGRAFT_CACHE"):
                write()
        assert np.array_equal(shelf.read(ids(10), (WIDTH,)), rows(10))
        environment.close(shelf.folder)


def test_an_error_of_lmdbs_counts_as_damage_only_if_it_is_there_again_when_the_file_is_opened_afresh(shelf):
    shelf.put(ids(1), rows(1))
    outcomes = [lmdb.CorruptedError("once"), "read", lmdb.PanicError("twice"), lmdb.PanicError("twice")]

    def work(transaction):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert environment.run(shelf.folder, work) == "read"
    with pytest.raises(StoreError, match=r"twice\. Fix that, or choose another place"):
        environment.run(shelf.folder, work)
    assert outcomes == []


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "store").write_text("notes")
    with pytest.raises(StoreError, match="store"):
        Store(tmp_path / "store").shelf(DIGEST, ABOUT).missing(ids(1))
    assert Store(tmp_path / "store").info() == []


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [1, 100, 490, 600, 1280, 5000])
def test_the_bytes_needed_are_never_fewer_than_taken_nor_many_more(folder, width, kind):
    shelf = Store(folder).shelf(DIGEST, ABOUT, kind)
    keys = [*ids(480), *views(480)]
    for at in range(0, 960, 32):
        shelf.put(keys[at : at + 32], rows(32, width))
    taken, announced = Store(folder).info()[0].bytes, bytes_needed(960, (width,), kind)
    environment.close(shelf.folder)
    assert taken <= announced <= 2.5 * taken


def test_room_is_the_free_disk_without_a_limit(folder):
    assert 0 < room(folder) <= shutil.disk_usage(folder.parent).total


def test_room_is_what_the_limit_leaves_of_all_shelves(shelf, folder):
    shelf.put(ids(200), rows(200))
    Store(folder).shelf("b" * 64, ABOUT).put(ids(100), rows(100))
    held = sum(info.bytes for info in Store(folder).info())
    assert held > 300 * RECORD
    assert room(folder, held / 1e9 + 0.001) == pytest.approx(1e6, abs=1)


def test_room_is_never_more_than_the_disk_has_nor_less_than_nothing(shelf, folder):
    shelf.put(ids(200), rows(200))
    assert room(folder, 1e9) <= shutil.disk_usage(folder).total
    assert room(folder, 1e-6) == 0


def test_an_absent_store_has_the_room_of_its_limit(folder):
    assert room(folder / "deeper", 0.001) == 1e6
    assert not folder.exists()


# What is there, and clearing it


def test_info_tells_what_each_shelf_is_about_and_what_it_takes(shelf, folder):
    shelf.put(ids(7), rows(7), {ids(9)[7]: "cut short", ids(9)[8]: "empty"})
    (info,) = Store(folder).info()
    assert (info.about, info.images, info.problem) == (ABOUT, 7, "")
    assert 7 * RECORD < info.bytes < 7 * 2 * 4096 + (1 << 16)
    assert Store(folder).to_dict()["shelves"][0]["images"] == 7
    assert "resnet50 cut at pooled: 7 images" in Store(folder).text()


def test_what_the_converted_network_takes_is_told_apart_so_that_the_rest_is_what_was_announced(shelf, folder):
    shelf.put(ids(500), rows(500))
    (shelf.folder / engines.CONVERTED).mkdir()
    (shelf.folder / engines.CONVERTED / "network.bin").write_bytes(bytes(10_000_000))
    (info,) = Store(folder).info()
    assert info.network == pytest.approx(10e6, abs=4096)
    assert 500 * RECORD < info.bytes - info.network <= bytes_needed(500, (WIDTH,))
    assert "500 images, 2.1 MB, and 10.0 MB for the converted network" in Store(folder).text()


def test_an_absent_store_is_empty(folder):
    assert (Store(folder).info(), Store(folder).clear(), Store(folder).to_dict()["bytes"]) == ([], 0, 0)
    assert not folder.exists()


def test_clear_deletes_shelves_and_nothing_else(shelf, folder):
    shelf.put(ids(5), rows(5))
    own = {
        folder / "notes.txt": "a",
        folder / "photos" / "data.mdb": "b",
        folder / "photos" / "about.json": "c",
        folder / ("c" * 64) / "about.json": "d",
        folder / ("d" * 64) / "about.json": "e",
        folder / ("d" * 64) / "data.mdb": "f",
        folder / ("d" * 64) / "holiday.jpg": "g",
    }
    for file, text in own.items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    before = Store(folder).info()[0].bytes
    assert Store(folder).clear() == before > 5 * RECORD
    assert {file: file.read_text() for file in folder.rglob("*") if file.is_file()} == own


def test_what_an_engine_keeps_on_a_shelf_is_counted_and_cleared_with_it(shelf, folder):
    shelf.put(ids(5), rows(5))
    alone = folder / ("b" * 64)  # a network was converted there, and no features were stored
    for location in (shelf.folder, alone):
        (location / engines.CONVERTED).mkdir(parents=True)
        (location / engines.CONVERTED / "network.bin").write_bytes(bytes(1 << 20))
        (location / agreement.PROOF).write_text("{}")
    shelves = {info.folder.name: info for info in Store(folder).info()}
    assert [(info.images, info.problem) for info in (shelves[DIGEST], shelves["b" * 64])] == [(5, ""), (0, "")]
    assert min(info.bytes for info in shelves.values()) >= 1 << 20
    assert Store(folder).clear() >= 2 << 20
    assert list(folder.iterdir()) == []


def test_what_a_killed_conversion_left_does_not_keep_a_shelf_from_being_cleared(shelf, folder):
    shelf.put(ids(5), rows(5))
    (shelf.folder / f".{engines.CONVERTED}.abcdef.partial").mkdir()
    assert Store(folder).clear() > 5 * RECORD
    assert list(folder.iterdir()) == []


def test_a_clearing_that_was_killed_is_finished_by_the_next(shelf, folder):
    shelf.put(ids(5), rows(5))
    environment.close(shelf.folder)
    shelf.folder.rename(folder / f"{DIGEST}.cleared")
    (folder / f"{DIGEST}.cleared" / "about.json").unlink()
    assert Store(folder).info() == []
    assert Store(folder).clear() > 5 * RECORD
    assert list(folder.iterdir()) == []


def test_a_cleared_shelf_is_empty_and_can_be_filled_again(shelf, folder):
    shelf.put(ids(5), rows(5))
    Store(folder).clear()
    assert shelf.missing(ids(5)) == ids(5)
    shelf.put(ids(5), rows(5))
    assert np.array_equal(shelf.read(ids(5), (WIDTH,)), rows(5))


@posix
def test_a_process_that_uses_a_shelf_goes_on_when_another_clears_it(shelf, folder):
    child = start(
        folder,
        """
        shelf.put(ids(5), rows(5))
        print("filled", flush=True)
        sys.stdin.readline()
        print(len(shelf.missing(ids(5))))
        shelf.put(ids(5), rows(5))
        """,
    )
    assert child.stdout.readline() == "filled\n"
    Store(folder).clear()
    assert child.communicate("go on\n", timeout=60)[0] == "5\n"
    assert child.returncode == 0
    assert np.array_equal(shelf.read(ids(5), (WIDTH,)), rows(5))


# Where it is


def test_the_default_folder_is_the_one_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    assert default_folder() == tmp_path / "cache"
    assert Store().folder == (tmp_path / "cache" / "store").resolve()


def test_the_default_folder_is_else_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("REGRAFT_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert tmp_path in default_folder().parents or sys.platform == "win32"
    assert default_folder().name == "regraft"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("REGRAFT_CACHE", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/regraft"))
    with pytest.raises(StoreError, match="Set REGRAFT_CACHE or --store"):
        default_folder()
