"""What the server counts, as text that Prometheus reads."""

from __future__ import annotations

import bisect
import itertools
import time
from collections import Counter
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds


class Metrics:
    """Counters; all are changed in the event loop's thread alone."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self.images: Counter[str] = Counter()  # by status: ok, broken
        self._buckets = [0] * (len(BOUNDS) + 1)  # of answers to /predict, each once
        self._seconds = 0.0
        self.waiting = 0  # requests of /predict under way

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self.requests[path, status] += 1
        if path == "/predict":
            self._buckets[bisect.bisect_left(BOUNDS, seconds)] += 1
            self._seconds += seconds

    def text(self) -> str:
        """Return all of it in Prometheus' text format."""
        lines = _head("requests_total", "counter", "requests answered")
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'regraft_requests_total{{path="{path}",status="{status}"}} {count}')
        lines += _head("predict_seconds", "histogram", "seconds to the answer of /predict")
        counts = list(itertools.accumulate(self._buckets))
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), counts, strict=True):
            lines.append(f'regraft_predict_seconds_bucket{{le="{bound}"}} {count}')
        lines += [f"regraft_predict_seconds_sum {self._seconds:.6f}", f"regraft_predict_seconds_count {counts[-1]}"]
        lines += _head("images_total", "counter", "images by what became of them")
        lines += [f'regraft_images_total{{status="{status}"}} {self.images[status]}' for status in ("ok", "broken")]
        lines += _head("requests_waiting", "gauge", "requests of /predict that are not answered yet")
        return "\n".join([*lines, f"regraft_requests_waiting {self.waiting}", ""])


def _head(name: str, kind: str, help: str) -> list[str]:
    return [f"# HELP regraft_{name} {help}", f"# TYPE regraft_{name} {kind}"]


class Counted:
    """Counts each answer by its path, if that is one of the server's own, its status, and its seconds."""

    def __init__(self, app: ASGIApp, metrics: Metrics, is_path: Callable[[str], bool]) -> None:
        self.app, self.metrics, self.is_path = app, metrics, is_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        path = scope["path"] if self.is_path(scope["path"]) else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.answered(path, message["status"], time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, counted)
