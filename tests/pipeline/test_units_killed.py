"""Runs that are killed at random moments, again and again, end with the bytes of the run that was not."""

import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from tests.conftest import PLAIN, write_photos

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("REGRAFT_KILLS", "10"))
SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, **PLAIN}
SCRIPT = f"import sys, regraft; regraft.extract(sys.argv[1], sys.argv[2], on=sys.argv[3], unit_rows=4, **{SMALL!r})"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), per_class=60)


def start(photos, folder, executor):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(photos), str(folder), executor], start_new_session=True)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def wait_for_units(process, folder, more):
    """Wait until so many units more are committed, or the process has ended."""
    before = len(list(folder.glob("_done/*")))
    while process.poll() is None and len(list(folder.glob("_done/*"))) < before + more:
        time.sleep(0.01)


@pytest.mark.parametrize("executor", ["local", "ray"])
@pytest.mark.parametrize("victim", ["driver", "worker", "raylet"])
def test_a_run_that_is_killed_at_random_moments_ends_as_the_one_that_was_not(photos, tmp_path, executor, victim):
    if executor == "ray":
        pytest.importorskip("ray")
    elif victim != "driver":
        pytest.skip("one process has no workers")
    assert start(photos, tmp_path / "whole", "local").wait() == 0
    chance, folder = random.Random(0), tmp_path / "killed"
    for _ in range(KILLS):
        process = start(photos, folder, executor)
        wait_for_units(process, folder, chance.randint(0, 2))
        time.sleep(chance.random())
        _kill(process, victim)
        if victim != "worker":
            process.wait()
            _kill_session(process)
        elif process.wait() == 0:
            break
    assert start(photos, folder, executor).wait() == 0
    assert files(folder) == files(tmp_path / "whole")
    assert (folder / "_SUCCESS").exists()


def _kill(process, victim):
    names = {"worker": "ray::_compute", "raylet": "raylet"}
    try:
        below = psutil.Process(process.pid).children(recursive=True)
        victims = [one for one in below if victim in names and names[victim] in " ".join(one.cmdline())]
    except psutil.NoSuchProcess:
        return
    for one in victims[:1] or ([process] if victim == "driver" else []):
        one.send_signal(signal.SIGKILL)


def _kill_session(process):
    """End what a killed driver has left."""
    for one in psutil.process_iter():
        try:
            if os.getsid(one.pid) == process.pid:
                one.kill()
        except (psutil.Error, OSError):
            pass
