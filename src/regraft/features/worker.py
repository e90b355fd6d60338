"""The pure middle of extraction: images in, their features and those of their views out, in order.

    bytes → decoded once → the image as it is, and its views, as the network sees them → features

The same tasks and trunks give the same keys, numbers and errors; one decoding serves all trunks. The caller's
thread reads, in the tasks' order, so that an archive is read forward. Workers,
one more than there are cores, do all the rest, each with one core: none waits
for another's work. What is in memory at once is bounded by the tasks under way.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from regraft.core import threads
from regraft.core.errors import RefusedFile
from regraft.core.machine import cores
from regraft.data import units as listing
from regraft.data.decode import BrokenImage, decoded, group_by_scale
from regraft.data.index import Row
from regraft.data.read import read_file
from regraft.data.resize import import_torch_for
from regraft.features.augmentation import View, draw_views
from regraft.features.poses import Pose, draw_poses
from regraft.inference.runner import Runner, TrunkRunner
from regraft.network.preprocess import Preprocess
from regraft.network.trunk import Trunk

T = TypeVar("T")

CHUNK = 16  # inputs that a worker takes on at least; fewer cost more switching, more cost memory where photos are large
HELD = 128 << 20  # bytes of files that are read and not done, besides one; the pixels have `data/budget`
SPARE = 1  # worker beside one for each core: it decodes while another waits for the interpreter or its engine


@dataclass(frozen=True)
class Task:
    """An image, and what is wanted of it: None is the image as it is, then Views, augmentations, then Poses."""

    row: Row
    views: tuple[View | Pose | None, ...] = (None,)  # the image as it is comes first

    @property
    def keys(self) -> list[str]:
        """The names of the features of each of `views` (see `store`)."""
        return [key(self.row, view) for view in self.views]


@dataclass(frozen=True)
class Failure:
    """A row without features.

    lasting: the bytes are at fault, wherever they are; otherwise only this location, or this moment, is.
    """

    row: Row
    reason: str
    lasting: bool


@dataclass(frozen=True)
class Batch:
    """What became of a few tasks.

    rows:     all of them, in order.
    keys:     of the features, in the order of the tasks and their views; those of failed rows are missing.
    features: by each trunk, (len(keys), *trunk.output_shape) float32.
    failures: the rows that have none.
    """

    rows: list[Row]
    keys: list[str]
    features: list[np.ndarray]
    failures: list[Failure]


def key(row: Row, view: View | Pose | None) -> str:
    """Return the name of the features of an image, or of a view of it."""
    return row.key + (view.key if view else "")


def compute(tasks: Sequence[Task], runner: Runner, *folders: Path, workers: int | None = None) -> Iterator[Batch]:
    """Yield the features of the tasks' images, in order, a few at a time.

    folders: where the converted network of each trunk is kept.
    workers: cores that may be used; None: all of this process's.
    Raises RefusedFile if a trunk gives NaN or infinity: its weights are not usable.
    """
    if not tasks:
        return
    import_torch_for(len(tasks), views=any(isinstance(view, View) for task in tasks for view in task.views))
    for one, folder in zip(runner.each, folders, strict=True):
        one.start(folder, functools.partial(sample, [task.row for task in tasks], one.trunk.preprocess))
    chunks = _chunks(tasks, max(CHUNK, runner.batch))
    yield from _in_workers(functools.partial(_work, runner), chunks, workers or cores())


def broken(rows: Sequence[Row]) -> list[Failure]:
    """Return the rows that can't be decoded; the network has no part in it."""
    return [result for result in of_pixels(rows, 0, lambda _: None) if isinstance(result, Failure)]


def of_pixels(rows: Sequence[Row], least: int, use: Callable[[np.ndarray], T]) -> Iterator[T | Failure]:
    """Yield what `use` makes of each row's pixels, in order, a few ahead.

    least: see `decode`.
    """

    def work(loaded: list[tuple[Task, bytes | Failure]]) -> list[T | Failure]:
        return [_decoded(task.row, data, least, use) for task, data in loaded]

    for results in _in_workers(work, _chunks([Task(row) for row in rows], CHUNK), cores()):
        yield from results


class Worker:
    """What one process of many computes by itself: rows as they are listed in, looked at, and their features out.

    runner:  of the trunk or trunks, in the precision that was settled.
    folders: on this machine, where the converted network of each is kept.
    cores:   that may be used; None: all of this process's.
    """

    def __init__(self, runner: Runner, folders: Sequence[Path], cores: int | None = None) -> None:
        self.runner, self.folders, self.cores = runner, folders, cores
        self._seen = 0  # rows

    def rows(self, rows: Iterable[Row]) -> Iterator[tuple[list[Row], np.ndarray]]:
        """Yield all rows in order, some at a time: looked at, and the features of those that are used, (n_used, …)."""
        for listed in listing.batches(rows):
            looked = self._looked(listed)
            self._seen += len(looked)
            import_torch_for(self._seen, views=False)
            tasks = [Task(row) for row in looked if row.status == "used"]
            batches = list(compute(tasks, self.runner, *self.folders, workers=self.cores))
            reasons = {id(failure.row): failure.reason for batch in batches for failure in batch.failures}
            shape = self.runner.output_shape
            features = [np.empty((0, *shape), np.float32), *(self.runner.join(batch.features) for batch in batches)]
            marked = [row.marked("broken", reasons[id(row)]) if id(row) in reasons else row for row in looked]
            yield marked, np.concatenate(features)

    def _looked(self, rows: Sequence[Row]) -> list[Row]:
        """Return the rows with what their bytes say."""
        with threads.pool(self.cores or cores(), "look") as pool:
            return list(pool.map(lambda row: read_file(row, is_named=False), rows))


# The workers


def _in_workers(
    work: Callable[[list[tuple[Task, bytes | Failure]]], T], chunks: Iterable[list[Task]], workers: int
) -> Iterator[T]:
    """Yield the work's result for each chunk, in order, a few ahead."""
    waiting: deque[tuple[Future[T], int]] = deque()
    held = 0  # bytes
    with _pool(workers + SPARE) as pool:
        for loaded, size in _loaded(chunks):
            waiting.append((pool.submit(work, loaded), size))
            held += size
            while len(waiting) > workers + SPARE or (held > HELD and waiting):
                result, size = waiting.popleft()
                yield result.result()
                held -= size
        while waiting:
            yield waiting.popleft()[0].result()


def _loaded(chunks: Iterable[list[Task]]) -> Iterator[tuple[list[tuple[Task, bytes | Failure]], int]]:
    """Yield the tasks of each chunk with their files, and how many bytes these are; where they are many, a part."""
    for chunk in chunks:
        loaded: list[tuple[Task, bytes | Failure]] = []
        size = 0
        for task in chunk:
            loaded.append((task, data := _read(task.row)))
            size += len(data) if isinstance(data, bytes) else 0
            if size >= HELD // 8 or task is chunk[-1]:
                yield loaded, size
                loaded, size = [], 0


@contextlib.contextmanager
def _pool(count: int) -> Iterator[ThreadPoolExecutor]:
    """Yield so many workers; where PyTorch is loaded, it computes with one core in each of them."""
    torch: Any = sys.modules.get("torch")
    number = torch.get_num_threads() if torch else 0
    one_thread = functools.partial(torch.set_num_threads, 1) if torch else None
    try:
        with threads.pool(count, "extract", one_thread) as pool:
            yield pool
    finally:
        if torch:
            torch.set_num_threads(number)  # for threads that start later


def _chunks(tasks: Sequence[Task], size: int) -> Iterator[list[Task]]:
    """Yield the tasks in lists with at least `size` inputs of the network."""
    chunk: list[Task] = []
    inputs = 0
    for task in tasks:
        chunk.append(task)
        inputs += len(task.views)
        if inputs >= size:
            yield chunk
            chunk, inputs = [], 0
    if chunk:
        yield chunk


def _read(row: Row) -> bytes | Failure:
    try:
        return row.location.read()
    except OSError as error:
        return Failure(row, f"can't be read: {error.strerror or error}", lasting=False)


# What a worker does


def _work(runner: Runner, loaded: list[tuple[Task, bytes | Failure]]) -> Batch:
    preprocesses = [trunk.preprocess for trunk in runner.trunks]
    images: list[list[np.ndarray]] = [[] for _ in preprocesses]
    keys: list[str] = []
    failures: list[Failure] = []
    for task, data in loaded:
        inputs = _inputs(task, data, preprocesses)
        if isinstance(inputs, Failure):
            failures.append(inputs)
        else:
            for of_trunk, more in zip(images, inputs, strict=True):
                of_trunk += more
            keys += task.keys
    features = [_run(one, of_trunk) for one, of_trunk in zip(runner.each, images, strict=True)]
    for rows, trunk in zip(features, runner.trunks, strict=True):
        _check_finite(rows, keys, loaded, trunk)
    return Batch([task.row for task, _ in loaded], keys, features, failures)


def _run(runner: TrunkRunner, images: list[np.ndarray]) -> np.ndarray:
    return runner(np.stack(images)) if images else np.empty((0, *runner.trunk.output_shape), np.float32)


def _inputs(task: Task, data: bytes | Failure, preprocesses: Sequence[Preprocess]) -> list[list[np.ndarray]] | Failure:
    """Return for each network what it is to see of an image and of its views, (S, S, 3) uint8 each."""
    inputs: list[list[np.ndarray]] = [[] for _ in preprocesses]
    for numbers in _groups(data, preprocesses):
        which = [preprocesses[number] for number in numbers]
        made = _decoded(task.row, data, which[0].least_side, functools.partial(_each_input, task, which))
        if isinstance(made, Failure):
            return made
        for number, of_network in zip(numbers, made, strict=True):
            inputs[number] = of_network
    return inputs


def _groups(data: bytes | Failure, preprocesses: Sequence[Preprocess]) -> list[list[int]]:
    """Return the numbers of the networks in groups that one decoding serves; of an image that is broken, all."""
    try:
        return [[0]] if isinstance(data, Failure) else group_by_scale(data, [rule.least_side for rule in preprocesses])
    except BrokenImage:
        return [[0]]  # decoding it says why


def _each_input(task: Task, preprocesses: Sequence[Preprocess], pixels: np.ndarray) -> list[list[np.ndarray]]:
    views = [view for view in task.views if isinstance(view, View)]
    poses = [view for view in task.views if isinstance(view, Pose)]
    return [
        [
            *([preprocess(pixels)] if None in task.views else []),
            *draw_views(pixels, preprocess, task.row.id, views),
            *draw_poses(pixels, preprocess, poses),
        ]
        for preprocess in preprocesses
    ]


def _decoded(row: Row, data: bytes | Failure, least: int, use: Callable[[np.ndarray], T]) -> T | Failure:
    """Return what `use` makes of the image's pixels, which are in memory no longer than that."""
    if isinstance(data, Failure):
        return data
    if row.has_changed(data):
        return Failure(row, "it was changed since it was listed", lasting=False)
    try:
        with decoded(data, least) as pixels:
            return use(pixels)
    except BrokenImage as error:
        return Failure(row, str(error), lasting=not isinstance(error.__cause__, MemoryError))


def _check_finite(
    features: np.ndarray, keys: Sequence[str], loaded: Sequence[tuple[Task, object]], trunk: Trunk
) -> None:
    finite = np.isfinite(features).all(axis=tuple(range(1, features.ndim)))
    if not finite.all():
        recipe, bad = trunk.recipe, keys[int(np.argmin(finite))]
        path = next(task.row.path for task, _ in loaded if bad in task.keys)
        weights = recipe.weights["name"] or recipe.weights["source"]
        raise RefusedFile(
            f"{recipe.architecture} with the weights {weights} gives NaN or infinity for {path}; "
            "expected finite numbers. Choose other --weights."
        )


def sample(rows: Sequence[Row], preprocess: Preprocess, count: int) -> np.ndarray:
    """Return up to `count` of the images, preprocessed, spread over all: (n, S, S, 3) uint8, without broken ones."""
    spread = [rows[number] for number in np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
    results = (_inputs(Task(row), _read(row), [preprocess]) for row in spread)
    images = [image for inputs in results if not isinstance(inputs, Failure) for image in inputs[0]]
    size = preprocess.size
    return np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)
