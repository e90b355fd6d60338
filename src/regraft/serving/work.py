"""Images wait here for the threads that decode and compute; what waits together is computed together.

Requests come from the event loop and get a future each; a thread takes its part of what waits, so that all threads
have something to do.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from regraft.core.progress import log
from regraft.model.predict import Prediction
from regraft.serving.body import Image

BATCH = 16  # images that a thread takes at once

Compute = Callable[[Sequence[Image], int], list[Prediction]]  # images, top → a prediction for each, in order


@dataclass(frozen=True)
class Answer:
    """Predictions, and the seconds that they waited and took."""

    predictions: list[Prediction]
    waited: float
    took: float


@dataclass(frozen=True)
class _Job:
    images: Sequence[Image]
    top: int
    future: Future[Answer] = field(default_factory=Future)
    since: float = field(default_factory=time.perf_counter)


class Line:
    """What waits for one model, whose engine computes `at_once()` images in the time of one."""

    def __init__(self, compute: Compute, pool: ThreadPoolExecutor, workers: int, at_once: Callable[[], int]) -> None:
        self._compute, self._pool, self._workers, self._at_once = compute, pool, workers, at_once
        self._jobs: deque[_Job] = deque()
        self._lock = threading.Lock()

    def submit(self, images: Sequence[Image], top: int) -> Future[Answer]:
        """Return the future answer for these images."""
        job = _Job(images, top)
        self._jobs.append(job)
        self._pool.submit(self._work)
        return job.future

    def _work(self) -> None:
        jobs = [job for job in self._taken() if job.future.set_running_or_notify_cancel()]
        if jobs:
            self._answer(jobs, time.perf_counter())

    def _taken(self) -> list[_Job]:
        """Take this thread's part of the requests that wait, and no more images than a batch, besides one request."""
        with self._lock:
            at_once = self._at_once()
            most, taken = math.ceil(len(self._jobs) / self._workers / at_once) * at_once, list[_Job]()
            while self._jobs and len(taken) < most:
                if taken and sum(len(job.images) for job in [*taken, self._jobs[0]]) > BATCH:
                    break
                taken.append(self._jobs.popleft())
            return taken

    def _answer(self, jobs: Sequence[_Job], begun: float) -> None:
        try:
            images = [image for job in jobs for image in job.images]
            predictions = iter(self._compute(images, max(job.top for job in jobs)))
            took = time.perf_counter() - begun
            for job in jobs:
                own = [_cut(next(predictions), job.top) for _ in job.images]
                job.future.set_result(Answer(own, begun - job.since, took))
        except Exception as error:
            if len(jobs) > 1:  # one request's fault is not the others'
                for job in jobs:
                    self._answer([job], time.perf_counter())
                return
            log.error("A prediction failed: %s: %s", type(error).__name__, error)
            jobs[0].future.set_exception(error)


def _cut(prediction: Prediction, top: int) -> Prediction:
    return dataclasses.replace(prediction, ranked=prediction.ranked[:top])
