import dataclasses
import hashlib
import threading

import numpy as np
import pytest
import torch
from tests.features.memory import Memory, cut_short, pictures, png, row
from tests.features.runners import runner as runner_of

from regraft.core.errors import RefusedFile
from regraft.core.machine import cores
from regraft.data import decode as decoding
from regraft.data.decode import BrokenImage, decode
from regraft.features import worker as module
from regraft.features.augmentation import POLICIES, View, draw_views
from regraft.features.worker import CHUNK, Task, broken, compute
from regraft.inference import agreement as engine
from regraft.inference.engines import openvino
from regraft.inference.runner import TrunkRunner

VIEWS = tuple(View(POLICIES["strong"], 0, number) for number in (1, 2, 3))


@pytest.fixture(scope="module")
def runner():
    return runner_of()


@pytest.fixture(autouse=True)
def reads():
    """The names of the places that were read, in order."""
    Memory.forget()
    return Memory.read_names


@pytest.fixture
def decoded(monkeypatch):
    """How many images were decoded."""
    counts = []
    monkeypatch.setattr(module, "decoded", lambda *arguments: counts.append(1) or decoding.decoded(*arguments))
    return counts


def close_to(features, answer):
    np.testing.assert_allclose(features, answer, rtol=1e-4, atol=1e-5)


def tasks(rows, views=(None,)):
    return [Task(row, views) for row in rows]


def alone(runner, row, view=None):
    """The features of one image alone, or of one view of it."""
    preprocess = runner.trunk.preprocess
    pixels = decode(row.location.content, preprocess.least_side)
    image = draw_views(pixels, preprocess, row.id, [view])[0] if view else preprocess(pixels)
    return runner(image[None])[0]


def whole(batches):
    """The keys and features of all batches together."""
    batches = list(batches)
    return [key for batch in batches for key in batch.keys], np.concatenate([batch.features[0] for batch in batches])


# In order, each as if alone


def test_features_are_those_of_each_image_alone_in_the_tasks_order(runner, tmp_path):
    rows = pictures(30)
    batches = list(compute(tasks(rows), runner, tmp_path))
    assert [row for batch in batches for row in batch.rows] == rows
    keys, features = whole(batches)
    assert keys == [row.id for row in rows]
    assert features.dtype == np.float32
    close_to(features, [alone(runner, row) for row in rows])
    assert not any(batch.failures for batch in batches)


def test_one_decoding_serves_an_image_and_all_its_views(runner, tmp_path, reads, decoded):
    rows = pictures(5)
    keys, features = whole(compute(tasks(rows, (None, *VIEWS)), runner, tmp_path))
    assert keys == [key for row in rows for key in (row.id, *(row.id + view.key for view in VIEWS))]
    close_to(features, [alone(runner, row, view) for row in rows for view in (None, *VIEWS)])
    assert (len(decoded), len(reads)) == (5, 5)


def test_each_image_has_what_its_own_task_wants(runner, tmp_path):
    rows = pictures(3)
    wanted = [(None,), VIEWS[1:], (None, VIEWS[2])]
    keys, features = whole(compute(map_tasks(rows, wanted), runner, tmp_path))
    pairs = [(row, view) for row, views in zip(rows, wanted, strict=True) for view in views]
    assert keys == [row.id + (view.key if view else "") for row, view in pairs]
    close_to(features, [alone(runner, row, view) for row, view in pairs])


def map_tasks(rows, wanted):
    return [Task(row, tuple(views)) for row, views in zip(rows, wanted, strict=True)]


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_row_is_the_same_bit_for_bit_whatever_goes_with_it(engine, tmp_path):
    if engine == "openvino" and not openvino.precisions():
        pytest.skip("OpenVINO is not installed")
    runner = runner_of(engine=engine)
    every = tasks(pictures(19), (None, VIEWS[0]))
    known = dict(zip(*whole(compute(every, runner, tmp_path)), strict=True))
    for part in (every[:1], every[3:12], every[::-1], tasks([every[7].row]), [Task(every[9].row, (VIEWS[0],))]):
        for key, features in zip(*whole(compute(part, runner, tmp_path)), strict=True):
            np.testing.assert_array_equal(features, known[key])


def test_the_number_of_cores_changes_no_bit(runner, tmp_path, monkeypatch):
    every = tasks(pictures(40), (None, VIEWS[0]))
    batches = []
    for number in (1, 2, 5):
        monkeypatch.setattr(module, "cores", lambda number=number: number)
        batches.append(whole(compute(every, runner, tmp_path)))
    for keys, features in batches[1:]:
        assert keys == batches[0][0]
        np.testing.assert_array_equal(features, batches[0][1])


def test_no_tasks_give_nothing_and_start_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "start", None)
    assert list(compute([], runner_of(), tmp_path)) == []


# What is read, and when


def test_one_thread_reads_in_the_tasks_order(runner, tmp_path, reads):
    list(compute(tasks(pictures(60)), runner, tmp_path))
    assert reads == [f"{seed}.png" for seed in range(60)]
    assert Memory.threads == {threading.get_ident()}


@pytest.mark.parametrize(("views", "images"), [((None,), CHUNK), ((None, *VIEWS), CHUNK // 4)])
def test_images_are_read_a_few_batches_ahead_and_not_further(runner, tmp_path, reads, views, images):
    batches = compute(tasks(pictures(60) * 5, views), runner, tmp_path)
    first = next(batches)
    batches.close()
    assert len(first.rows) == images
    assert images <= len(reads) <= (cores() + 2) * images


def test_only_broken_images_still_leave_in_bounded_batches(runner, tmp_path, reads):
    batches = compute(tasks([row(str(at), cut_short(at)) for at in range(100)] * 5), runner, tmp_path)
    first = next(batches)
    batches.close()
    assert (len(first.rows), first.features[0].shape) == (CHUNK, (0, *runner.trunk.output_shape))
    assert len(reads) <= (cores() + 2) * CHUNK


def test_few_bytes_are_read_ahead_however_large_the_files_are(runner, tmp_path, reads, monkeypatch):
    large = png(0) + bytes(100_000)  # what follows the picture is not read
    monkeypatch.setattr(module, "HELD", 3 * len(large))
    rows = [row(f"{number}", large + bytes([number])) for number in range(12)]
    batches = compute(tasks(rows), runner, tmp_path)
    first = next(batches)
    assert (len(first.rows), len(reads)) == (1, 3)
    keys, features = whole([first, *batches])
    assert keys == [each.id for each in rows]
    close_to(features, [alone(runner, rows[0])] * 12)


def test_an_image_that_later_rules_decode_has_a_name_of_its_own_and_others_keep_theirs(runner, tmp_path):
    plain, later = pictures(1)[0], row("1", png(1), rules=3)
    keys, _ = whole(compute(tasks([plain, later], (None, VIEWS[0])), runner, tmp_path))
    other = hashlib.sha256(f"{later.id} decoded by the rules of version 3".encode()).hexdigest()
    assert keys == [plain.id, plain.id + VIEWS[0].key, other, other + VIEWS[0].key]


@pytest.fixture
def three_threads():
    """Let torch compute with a number of threads that no worker has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("extract")]


def test_no_thread_is_left_and_torch_has_the_threads_it_had_however_it_ends(runner, tmp_path, three_threads):
    batches = compute(tasks(pictures(20)), runner, tmp_path)
    assert len(list(batches)) == 2
    assert (torch.get_num_threads(), workers()) == (3, [])
    batches = compute(tasks(pictures(40)), runner, tmp_path)
    next(batches)
    batches.close()
    assert (torch.get_num_threads(), workers()) == (3, [])


def test_an_interrupt_waits_for_no_thread_and_they_end_with_the_work_that_they_have_begun(
    runner, tmp_path, three_threads
):
    batches = compute(tasks([*pictures(20), row("stop", b"", error=KeyboardInterrupt())]), runner, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(batches)
    assert torch.get_num_threads() == 3
    for thread in workers():
        thread.join()


def test_a_network_computes_with_one_thread_a_worker(runner, tmp_path, monkeypatch):
    seen = set()
    through = TrunkRunner.__call__

    def noted(runner, images):
        seen.add((threading.current_thread().name.partition("_")[0], torch.get_num_threads()))
        return through(runner, images)

    monkeypatch.setattr(TrunkRunner, "__call__", noted)
    list(compute(tasks(pictures(20)), runner, tmp_path))
    assert seen == {("extract", 1)}


def test_an_error_in_a_worker_reaches_the_caller(runner, tmp_path, monkeypatch):
    def fail(runner, images):
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(TrunkRunner, "__call__", fail)
    with pytest.raises(ZeroDivisionError, match="a fault"):
        list(compute(tasks(pictures(40)), runner, tmp_path))


# What fails


def test_broken_images_leave_no_gap_and_have_their_reasons_in_order(runner, tmp_path):
    rows = pictures(20)
    for at in (0, 3, 4, 8, 24):
        rows.insert(at, row(f"broken{at}", cut_short(at)))
    batches = list(compute(tasks(rows, (None, VIEWS[0])), runner, tmp_path))
    assert [row.path for batch in batches for row in batch.rows] == [row.path for row in rows]
    good = [row for row in rows if not row.path.startswith("broken")]
    keys, features = whole(batches)
    assert keys == [key for row in good for key in (row.id, row.id + VIEWS[0].key)]
    close_to(features[::2], [alone(runner, row) for row in good])
    failures = [failure for batch in batches for failure in batch.failures]
    assert [failure.row.path for failure in failures] == ["broken0", "broken3", "broken4", "broken8", "broken24"]
    assert all(failure.reason and failure.lasting for failure in failures)


def short_of_memory(*arguments):
    raise BrokenImage("there is not enough memory for it") from MemoryError()


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        (row("gone", png(0), error=FileNotFoundError(2, "No such file")), "can't be read: No such file"),
        (row("odd", png(0), error=OSError("what is this?")), "can't be read: what is this?"),
        (dataclasses.replace(row("0.png", png(7)), id="0" * 64), "it was changed since it was listed"),
    ],
    ids=["missing", "no words", "changed"],
)
def test_what_is_wrong_with_the_place_says_nothing_of_the_bytes(runner, tmp_path, spoilt, reason):
    (batch,) = compute(tasks([spoilt, *pictures(1, first=1)]), runner, tmp_path)
    (failure,) = batch.failures
    assert (failure.row, failure.reason, failure.lasting) == (spoilt, reason, False)
    assert len(batch.keys) == 1


def test_a_want_of_memory_does_not_last(runner, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "decoded", short_of_memory)
    (batch,) = compute(tasks(pictures(2)), runner, tmp_path)
    assert [failure.lasting for failure in batch.failures] == [False, False]


def test_the_broken_ones_are_found_without_the_network(reads):
    rows = [*pictures(20), row("cut", cut_short(1)), row("gone", b"", error=OSError(5, "Input/output error"))]
    assert [(failure.row.path, failure.lasting) for failure in broken(rows)] == [("cut", True), ("gone", False)]
    assert reads == [row.path for row in rows]
    assert broken([]) == []


def test_weights_that_give_no_numbers_are_refused_by_name(tmp_path):
    bad = runner_of()
    for parameter in bad.trunk.module.parameters():
        parameter.fill_(np.nan)
    with pytest.raises(RefusedFile, match=r"test_resnet with the weights .* gives NaN or infinity for 0\.png"):
        list(compute(tasks(pictures(3)), bad, tmp_path))


# What an engine is checked and calibrated on


@pytest.fixture
def sampled(tmp_path, monkeypatch):
    """Return the images that an engine gets when it asks for so many of some rows."""

    def ask(rows, count):
        batches = []
        start = engine.start

        def asking(trunk, folder, sample, *rest):
            batches.append(sample(count))
            return start(trunk, folder, sample, *rest)

        monkeypatch.setattr(engine, "start", asking)
        list(compute(tasks(rows), runner_of(), tmp_path))
        return batches[0]

    return ask


def test_a_sample_is_spread_over_all_images(sampled, runner):
    rows = pictures(40)
    expected = [runner.trunk.preprocess(decode(row.location.content)) for row in (rows[0], rows[19], rows[39])]
    np.testing.assert_array_equal(sampled(rows, 3), expected)


def test_a_sample_of_more_than_there_is_has_each_image_once_and_no_broken_one(sampled, runner):
    rows = [*pictures(3), row("cut", cut_short(1))]
    images = sampled(rows, 16)
    np.testing.assert_array_equal(images, [runner.trunk.preprocess(decode(row.location.content)) for row in rows[:3]])


def test_a_sample_of_broken_images_is_empty(sampled):
    assert sampled([row(str(at), cut_short(at)) for at in range(3)], 16).shape == (0, 64, 64, 3)
