"""`regraft serve`: a model, or a folder of models, answers over HTTP until the process is told to stop."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.errors import UsageError
from regraft.core.machine import cores
from regraft.core.options import takes_options
from regraft.core.progress import log
from regraft.serving.options import SHORTEST_TOKEN, ServeOptions, ServerOptions

if TYPE_CHECKING:
    import uvicorn

CONNECTIONS = 512  # at once


@takes_options(ServeOptions)
def serve(model: str | Path, *, options: ServeOptions) -> None:
    """Serve a model, as `regraft serve` does; return when SIGINT (Ctrl-C) or SIGTERM came.

    What was accepted until then is answered first. Prints the address, with the token if one was made.

    model: its folder, or a folder of such folders.
    Raises RefusedFile for a folder without a model, UsageError if the address is unavailable or a package is missing.
    """
    made, token = _token(options.server)
    running = server(Path(model), options, token)
    with _listening(options.server) as listener, _signals_ignored():
        print(_address(listener, options.server.host) + (f"#token={token}" if made else ""), flush=True)
        log.info("Serving %s. Stop it with Ctrl-C.", model)
        running.run(sockets=[listener])


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Let none but uvicorn act on the signals, which ends by them and then gives them to who came before."""
    if threading.current_thread() is not threading.main_thread():  # where uvicorn takes none either
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def server(folder: Path, options: ServeOptions, token: str | None) -> uvicorn.Server:
    """Return what answers for the model or models in `folder`; `token`: what each request must bring, None: nothing."""
    try:
        import uvicorn

        from regraft.serving import app
        from regraft.serving.protocol import Protocol
    except ImportError as error:
        raise UsageError(f"serve needs {error.name}, which is missing: `pip install 'regraft[serve]'`.") from error
    from regraft.serving.models import Models

    workers = options.server.workers or cores() + 1
    pool = ThreadPoolExecutor(workers, "predict")
    application = app.build(app.Server(Models(folder, options, pool, workers), pool, options), token)
    quiet = {"access_log": False, "log_config": None, "server_header": False}
    plain = {"proxy_headers": False, "ws": "none", "lifespan": "on", "limit_concurrency": CONNECTIONS}
    stop = max(1, round(options.server.timeout))
    config = uvicorn.Config(application, http=Protocol, timeout_graceful_shutdown=stop, **quiet, **plain)  # type: ignore[arg-type]
    return uvicorn.Server(config)


def _token(options: ServerOptions) -> tuple[bool, str | None]:
    """Return whether a token was made, and the token that is needed, if any is."""
    wanted = options.token or os.environ.get("REGRAFT_TOKEN")
    if wanted:
        if len(wanted) < SHORTEST_TOKEN:
            raise UsageError(f"REGRAFT_TOKEN has {len(wanted)} characters; expected {SHORTEST_TOKEN} or more.")
        return False, wanted
    return (False, None) if options.is_local else (True, secrets.token_urlsafe(24))


@contextlib.contextmanager
def _listening(options: ServerOptions) -> Iterator[socket.socket]:
    try:
        family = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((options.host, options.port), family=family, backlog=CONNECTIONS)
    except OSError as error:
        raise UsageError(
            f"Can't listen at {options.host}, port {options.port}: {error.strerror or error}. Choose another --port."
        ) from None
    with listener:
        yield listener


def _address(listener: socket.socket, host: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/"
