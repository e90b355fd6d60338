"""Runs that lose their processes and machines at random moments end with the bytes of the run that lost none.

`REGRAFT_KILLS` says how often each victim is killed (10); each kill is a line on stdout.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from tests.conftest import PLAIN, write_photos

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("REGRAFT_KILLS", "10"))
SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, **PLAIN}
SCRIPT = (
    "import sys, regraft\n"
    "regraft.extract(sys.argv[1], sys.argv[2], on=sys.argv[3], address=(sys.argv[4:] or [None])[0],"
    f" unit_rows=2, **{SMALL!r})"
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), per_class=200)


@pytest.fixture(scope="module")
def whole(photos):
    """The folder of a run that nothing disturbs."""
    folder = photos.parent / "whole"
    assert start(photos, folder, "local").wait() == 0
    return folder


def start(photos, folder, *words, script=SCRIPT):
    return subprocess.Popen([sys.executable, "-c", script, str(photos), str(folder), *words], start_new_session=True)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def committed(folder):
    """When the files of the committed units were written, in nanoseconds, by name."""
    names = [f"part-{record.stem}.parquet" for record in folder.glob("_done/*.json")]
    return {name: (folder / name).stat().st_mtime_ns for name in names}


def wait_for_units(process, folder, more):
    """Wait until so many units more are committed, or the process has ended."""
    before = len(list(folder.glob("_done/*")))
    while process.poll() is None and len(list(folder.glob("_done/*"))) < before + more:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("executor", "victim"), [("local", "driver"), ("ray", "driver"), ("ray", "raylet"), ("ray", "worker")]
)
def test_a_run_that_is_killed_at_random_moments_ends_as_the_one_that_was_not(photos, whole, tmp_path, executor, victim):
    if executor == "ray":
        pytest.importorskip("ray")
    chance, folder, kills = random.Random(0), tmp_path / "killed", 0
    process = start(photos, folder, executor)
    known = {}
    while kills < KILLS:
        wait_for_units(process, folder, chance.randint(0, 3))
        time.sleep(chance.random() / 3)
        if process.poll() == 0:
            break
        if _kill(process, victim):
            kills += 1
            known |= committed(folder)
            print(f"{executor}: {victim} killed, {len(known)} of {len(files(whole))} units committed", flush=True)
        if victim != "worker" or process.poll() is not None:
            process.wait()
            _kill_session(process)
            process = start(photos, folder, executor)
    assert process.wait() == 0
    assert kills
    assert files(folder) == files(whole)
    assert known.items() <= committed(folder).items(), "a unit that was committed is not written again"
    assert (folder / "_SUCCESS").exists()


def _kill(process, victim):
    """Kill a process of the run; return whether there was one."""
    names = {"worker": "ray::_compute", "raylet": "raylet"}
    try:
        below = psutil.Process(process.pid).children(recursive=True)
        victims = [one for one in below if victim in names and names[victim] in " ".join(one.cmdline())]
        for one in victims[:1] or ([process] if victim == "driver" else []):
            one.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return bool(victims) or victim == "driver"


def _kill_session(process):
    """End what a killed driver has left."""
    for one in psutil.process_iter():
        try:
            if os.getsid(one.pid) == process.pid:
                one.kill()
        except (psutil.Error, OSError):
            pass


DYING = """
import dataclasses, os, pathlib, signal
from regraft.features.executors import ray as executor


@dataclasses.dataclass(frozen=True)
class Dying:
    job: object
    cores: int | None = None

    def __call__(self, unit):
        from regraft.core import remote

        write = remote.write

        def dying(target, content):
            mark = pathlib.Path(self.job.output + "-" + target.path[-20:])
            if "_done" in target.path and target.path[-6] in "01234" and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            write(target, content)

        remote.write = dying
        try:
            return self.job(unit)
        finally:
            remote.write = write


run = executor.run
executor.run = lambda work, units: run(Dying(work), units)
"""  # the process of each third unit ends once between its file and its record


def test_a_worker_that_ends_between_file_and_record_has_its_unit_computed_again(photos, whole, tmp_path):
    pytest.importorskip("ray")
    assert start(photos, tmp_path / "out", "ray", script=DYING + SCRIPT).wait() == 0
    deaths = len(list(tmp_path.glob("out-*")))
    print(f"{deaths} workers ended between file and record")
    assert deaths > 10
    assert files(tmp_path / "out") == files(whole)


def test_two_drivers_at_once_agree(photos, whole, tmp_path):
    pytest.importorskip("ray")
    drivers = [start(photos, tmp_path / "out", executor) for executor in ("local", "ray", "local")]
    assert [driver.wait() for driver in drivers] == [0, 0, 0]
    assert files(tmp_path / "out") == files(whole)
    assert len(committed(tmp_path / "out")) == len(files(whole))


def node(*words):
    """Start a machine of a Ray cluster, of one core, on loopback; the first one is its head."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1"]
    ray += ["--node-ip-address", "127.0.0.1", *words]
    return subprocess.Popen(ray, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_machine_that_is_removed_and_one_that_joins_change_no_bit(photos, whole, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    head = ("--head", "--port", str(port), "--include-dashboard", "false", "--temp-dir", f"/tmp/ray-{port}")
    other = ("--address", f"127.0.0.1:{port}")
    machines = [node(*head)]
    try:
        _wait_for_port(port)
        machines.append(node(*other))
        process = start(photos, tmp_path / "out", "ray", f"127.0.0.1:{port}")
        wait_for_units(process, tmp_path / "out", 20)
        _kill_session(machines[1])
        print(f"machine removed, {len(committed(tmp_path / 'out'))} of {len(files(whole))} units committed")
        wait_for_units(process, tmp_path / "out", 20)
        machines.append(node(*other))
        assert process.wait() == 0
    finally:
        for machine in reversed(machines):
            _kill_session(machine)
            machine.wait()
    assert files(tmp_path / "out") == files(whole)


def _wait_for_port(port):
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
