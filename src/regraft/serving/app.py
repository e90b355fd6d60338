"""The paths of the server, each a few lines: what enters is checked in `guard` and `body`, computed in `work`.

An error is {"error": "what, and what to do"}; no answer has a path of this machine, or a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files as resources

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from regraft.core.progress import log
from regraft.core.version import __version__
from regraft.serving.body import Image, announced_size, read_images
from regraft.serving.guard import Guard
from regraft.serving.metrics import Counted, Metrics
from regraft.serving.models import Models, Served
from regraft.serving.options import ServeOptions
from regraft.serving.work import Answer

PAGE, SHARED = resources("regraft.serving") / "page", resources("regraft.exports") / "templates" / "web" / "page"
PARTS = {  # the page's files, where they lie, and what they are
    "index.html": (PAGE, "text/html"),
    "page.js": (PAGE, "text/javascript"),
    "shared.js": (SHARED, "text/javascript"),
    "style.css": (SHARED, "text/css"),
}
LOOK = 1.0  # seconds between two looks at whether a folder was replaced
HELD = 8  # largest requests whose bytes may be in memory at once


class Server:
    """What the paths answer from."""

    def __init__(self, models: Models, pool: ThreadPoolExecutor, options: ServeOptions) -> None:
        self.models, self.pool, self.options, self.limits = models, pool, options, options.server
        self.metrics = Metrics()
        self._held = 0  # bytes of requests that are not answered

    def routes(self) -> list[Route]:
        """Return the paths."""
        return [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/model", self.model),
            Route("/models", self.names),
            Route("/health", self.health),
            Route("/ready", self.ready),
            Route("/metrics", self.measured),
            Route("/openapi.json", self.openapi),
            Route("/", self.page),
            *(Route(f"/{name}", self.page) for name in PARTS if name != "index.html"),
        ]

    async def predict(self, request: Request) -> Response:
        """Answer what `regraft predict --json` prints: a list, an item for each image in order."""
        served, top = self._served(request), self._top(request)
        with self._admitted(announced_size(request, self.limits)):
            images = await read_images(request, self.limits)
            answer = await self._computed(served, images, top)
        items = [prediction.to_dict() for prediction in answer.predictions]
        self.metrics.images.update(item["status"] for item in items)
        timing = f"queue;dur={1000 * answer.waited:.1f}, predict;dur={1000 * answer.took:.1f}"
        status = 200 if any(item["status"] == "ok" for item in items) else 422
        return JSONResponse(items, status, {"server-timing": timing})

    @contextlib.contextmanager
    def _admitted(self, size: int) -> Iterator[None]:
        """Hold a place in the line, and room for the body; raise HTTPException if there is none."""
        if self.metrics.waiting >= self.limits.queue or self._held + size > HELD * self.limits.max_bytes:
            raise _busy("The server has as much to do as it takes on; send it again.")
        self.metrics.waiting += 1
        self._held += size
        try:
            yield
        finally:
            self.metrics.waiting -= 1
            self._held -= size

    async def _computed(self, served: Served, images: list[Image], top: int) -> Answer:
        future = asyncio.wrap_future(served.line.submit(images, top))
        try:
            return await asyncio.wait_for(future, self.limits.timeout)
        except TimeoutError:
            raise _busy(f"There was no answer within {self.limits.timeout:g} s; send it again.") from None

    def _served(self, request: Request) -> Served:
        served = self.models.served
        name = request.query_params.get("model", next(iter(served)) if len(served) == 1 else "")
        if name not in served:
            raise HTTPException(404, f"Which model? ?model= is one of: {', '.join(served)}.")
        return served[name]

    def _top(self, request: Request) -> int:
        text = request.query_params.get("top", str(self.options.top.top))
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
            raise HTTPException(400, "?top= is how many labels to name: a whole number, 1 or more.")
        return int(text)

    async def model(self, request: Request) -> Response:
        """Say what the model is."""
        return JSONResponse(self._served(request).describe())

    async def names(self, request: Request) -> Response:  # noqa: ARG002
        """Say which models there are."""
        return JSONResponse(list(self.models.served))

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        """Say that the server runs."""
        return JSONResponse({"status": "ok", "version": __version__})

    async def ready(self, request: Request) -> Response:  # noqa: ARG002
        """Say whether a request is answered at once."""
        ready = self.models.is_ready
        return JSONResponse({"ready": ready}, 200 if ready else 503, None if ready else {"retry-after": "1"})

    async def measured(self, request: Request) -> Response:  # noqa: ARG002
        """Give what was counted."""
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002
        """Describe the paths, for tools."""
        described = json.loads((PAGE / "openapi.json").read_text("utf-8"))
        described["info"]["version"] = __version__
        return JSONResponse(described)

    async def page(self, request: Request) -> Response:
        """Give the page and its parts."""
        name = request.url.path.lstrip("/") or "index.html"
        folder, kind = PARTS[name]
        return Response((folder / name).read_bytes(), media_type=kind)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002
        """Keep an eye on the folders while the server runs; at the end wait for what is being computed."""
        task = asyncio.create_task(self._refreshing())
        yield
        task.cancel()
        self.pool.shutdown(wait=True, cancel_futures=True)

    async def _refreshing(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.models.refresh)
            except Exception as error:  # the models that are served stay; the next look may find all well
                log.error("The models can't be looked at: %s: %s", type(error).__name__, error)
            await asyncio.sleep(LOOK)


def _busy(message: str) -> HTTPException:
    return HTTPException(503, message, {"retry-after": "1"})


async def _failed(request: Request, error: Exception) -> Response:  # noqa: ARG001
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    return JSONResponse({"error": "The prediction failed; the server's log says why."}, 500)


def build(server: Server, token: str | None) -> Starlette:
    """Return the application."""
    routes, limits = server.routes(), server.limits
    paths = frozenset(route.path for route in routes)
    middleware = [Middleware(Counted, metrics=server.metrics, is_path=paths.__contains__)]
    if limits.allowed_origins:
        words = ["Authorization", "Content-Type"]
        cors = Middleware(CORSMiddleware, limits.allowed_origins, allow_methods=["GET", "POST"], allow_headers=words)
        middleware.append(cors)
    middleware.append(Middleware(Guard, options=limits, token=token))
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: _failed, Exception: _failed},
        lifespan=server.lifespan,
    )
