"""Ctrl-C while threads are in the middle of images that never end: the program ends at once, with 130."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import write_photos

# The first image that is decoded presses Ctrl-C; it and all others would take for ever.
SCRIPT = """
import importlib, os, signal, sys, threading
import regraft.cli
module = importlib.import_module(sys.argv.pop(1))
started = []
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore

def endless(*arguments, **options):
    started.append(1)
    if len(started) == 1:
        os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait()

setattr(module, sys.argv.pop(1), endless)
sys.exit(regraft.cli.main())
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(
    ("function", "words"),
    [
        (("regraft.data.inspect", "decode"), ["inspect"]),
        (("regraft.features.worker", "decoded"), ["extract", "-o", "features.npz", "--engine", "torch"]),
    ],
    ids=["inspect", "extract"],
)
def test_an_interrupt_ends_the_program_at_once_with_130_whatever_its_threads_do(tmp_path, function, words):
    photos = write_photos(tmp_path / "photos")
    command = [sys.executable, "-c", SCRIPT, *function, words[0], str(photos), *words[1:]]
    environment = {**os.environ, "REGRAFT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 130, done.stderr
    assert done.stderr.endswith("Interrupted; what is stored is kept. The same command goes on from there.\n")
    assert "Traceback" not in done.stderr
