"""Images a second of `regraft serve` over HTTP, against `regraft extract` and other servers, in turns.

wrk sends photographs as multipart for so many seconds, one a request; what it takes of the processor counts. Its
clients stay in a loop: so many connections are answered and asked again at once. At "half load" they wait in
between, by an exponential draw, so that half as many requests come as 16 clients had answered. Random weights, as only
time counts.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _bench
import psutil

NETWORK = ("--backbone", "efficientnet_lite0", "--weights", "random", "--engine", "openvino")
CLIENTS = 16
PEERS = {"FastAPI": "fastapi", "LitServe": "litserve"}  # each with timm, float32: _serve_NAME.py
LUA = r"""
local files, requests, number, pause = {%s}, {}, 0, %f
local head = '--x\r\nContent-Disposition: form-data; name="%s"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
local headers = {["Content-Type"] = "multipart/form-data; boundary=x"}
function request()  -- not before the first call is wrk's Host known
  number = number %% #files + 1
  if not requests[number] then
    local file = io.open(files[number], "rb")
    requests[number] = wrk.format("POST", "/predict", headers, head .. file:read("*a") .. "\r\n--x--\r\n")
    file:close()
  end
  return requests[number]
end
if pause > 0 then
  function delay() return -pause * math.log(1 - math.random()) end
end
function done(summary, latency)
  local errors = summary.errors.status + summary.errors.timeout + summary.errors.read + summary.errors.connect
  print("ANSWER", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors)
end
"""


def regraft(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "regraft", *map(str, words)]


def extract(photos: Path, folder: Path) -> dict[str, float]:
    """Return the images a second of `regraft extract`, its start taken off: with all images, less with one."""
    one, files = folder / "one", list(photos.rglob("*.jpg"))
    one.mkdir(exist_ok=True)
    shutil.copy(files[0], one)
    seconds = []
    for source in (one, photos):
        store, output = folder / "store-of-a-run", folder / f"{time.monotonic_ns()}.npz"
        shutil.copytree(folder / "store", store, ignore=shutil.ignore_patterns("*.mdb"))  # the network, no features
        words = regraft("-q", "extract", source, "-o", output, "--store", store, *NETWORK)
        began = time.perf_counter()
        subprocess.run(words, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
        shutil.rmtree(store)
    return {"images": len(files) - 1, "per_second": (len(files) - 1) / (seconds[1] - seconds[0])}


def load(port: int, script: str, clients: int, seconds: int) -> dict[str, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        words = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", file.name, f"http://127.0.0.1:{port}"]
        output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    count, micros, median, tail, errors = map(float, re.search(r"ANSWER\t(.*)", output)[1].split())
    return {
        "images": count,
        "per_second": 1e6 * count / micros,
        "p50_ms": median / 1000,
        "p99_ms": tail / 1000,
        "errors": errors,
    }


def memory(pid: int) -> float:
    """Return the memory of a process and those that it started, in megabytes."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True))) / 1e6


def first_answer(port: int, photo: Path, field: str) -> None:
    """Ask until there is an answer."""
    words = ["curl", "-sf", "-o", "/dev/null", "-F", f"{field}=@{photo}", f"http://127.0.0.1:{port}/predict"]
    for _ in range(3000):
        if subprocess.run(words).returncode == 0:
            return
        time.sleep(0.02)
    raise SystemExit(f"The server at port {port} does not answer.")


def measure(name: str, command: list[str], port: int, field: str, photos: Path, seconds: int) -> None:
    """Start a server, ask it in several ways, and stop it."""
    files = sorted(photos.rglob("*.jpg"))
    listed = ", ".join(f'"{path}"' for path in files)
    began = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        first_answer(port, files[0], field)
        show(f"{name}, first answer", {"seconds": time.perf_counter() - began})
        script = LUA % (listed, 0, field)
        load(port, script, CLIENTS, 3)  # as a warm-up
        one = load(port, script, 1, seconds)
        show(f"{name}, 1 client", one)
        full = load(port, script, CLIENTS, seconds)
        show(f"{name}, {CLIENTS} clients", full)
        pause = max(0, 2000 * CLIENTS / max(full["per_second"], 0.1) - one["p50_ms"])  # milliseconds
        half = load(port, LUA % (listed, pause, field), CLIENTS, seconds)
        show(f"{name}, half load", {**half, "p99_by_median_of_one": half["p99_ms"] / one["p50_ms"]})
        show(f"{name}, memory", {"MB": memory(server.pid)})
    finally:
        started = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        server.wait(60)
        for process in started:  # some servers leave theirs behind
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def show(name: str, notes: dict[str, float]) -> None:
    print(f"{name:28}", "  ".join(f"{key} {value:,.1f}" for key, value in notes.items()), flush=True)


def sampled(photos: Path, folder: Path, count: int) -> Path:
    """Copy so many of the photographs, spread over all, into a folder of class folders."""
    files = sorted(photos.rglob("*.jpg"))
    for path in files[:: max(1, len(files) // count)][:count]:
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name / f"{path.parent.parent.name}-{path.name}")
    return folder


def run(arguments: argparse.Namespace, photos: Path, folder: Path) -> None:
    subprocess.run(
        regraft("-q", "train", photos, "-o", folder / "model", "--store", folder / "store", *NETWORK),
        check=True,
        capture_output=True,
    )
    for _ in range(arguments.repeats):
        show("regraft extract", extract(photos, folder))
        port = free_port()
        ours = regraft("serve", folder / "model", "--port", port, "--store", folder / "store", "--engine", "openvino")
        measure("regraft serve", ours, port, "image", photos, arguments.seconds)
        for name, package in PEERS.items():
            if importlib.util.find_spec(package) is None:
                print(f"{name}: skipped: it is not installed")
                continue
            port, script = free_port(), Path(__file__).parent / f"_serve_{package}.py"
            field = "request" if package == "litserve" else "image"
            measure(name, [sys.executable, str(script), str(port)], port, field, photos, arguments.seconds)


def main() -> None:
    parser = _bench.parser(__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="of each load")
    parser.add_argument("--images", type=int, default=600, help="photographs that are sent and extracted")
    arguments = parser.parse_args()
    for program in ("wrk", "curl"):
        if shutil.which(program) is None:
            _bench.skip(f"{program} is not on this machine")
    _bench.header()
    with _bench.photographs(arguments.data, "cats-dogs") as photos, tempfile.TemporaryDirectory() as folder:
        run(arguments, sampled(photos, Path(folder) / "photos", arguments.images), Path(folder))


if __name__ == "__main__":
    main()
