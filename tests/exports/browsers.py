"""What the tests of web exports need that Python's packages don't have: onnxruntime-web's files, and a browser."""

from __future__ import annotations

import contextlib
import functools
import http.server
import os
import shutil
import threading
from pathlib import Path

import pytest


def web_runtime():
    """Return the folder of onnxruntime-web; skip where REGRAFT_ONNXRUNTIME_WEB does not name it."""
    folder = os.environ.get("REGRAFT_ONNXRUNTIME_WEB")
    if not folder:
        pytest.skip("REGRAFT_ONNXRUNTIME_WEB names no folder of onnxruntime-web, as `npm pack` gives it")
    return Path(folder)


@contextlib.contextmanager
def opened_browser():
    """Yield Chromium with a camera that is made up; skip where it, or Playwright, is not installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is tried by Playwright")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("the page is tried in Chromium, which is not on this machine")
    words = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=words)
        try:
            yield browser
        finally:
            browser.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def served(folder):
    """Yield the address of a folder, and a function that stops its server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def stop():
        server.shutdown()
        server.server_close()
        thread.join()

    try:
        yield f"http://127.0.0.1:{server.server_port}/", stop
    finally:
        if thread.is_alive():
            stop()
