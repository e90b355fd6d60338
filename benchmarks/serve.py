"""Images a second of `regraft serve` over HTTP, against `regraft extract` on the same photographs, in turns.

wrk sends photographs for so many seconds, one a request; what it takes of the processor counts. Its clients stay in a
loop: so many connections are answered and asked again at once. Random weights, as only time counts.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _bench

NETWORK = ("--backbone", "efficientnet_lite0", "--weights", "random", "--engine", "openvino")
LUA = """
local files, requests, number = {%s}, {}, 0
function request()  -- not before the first call is wrk's Host known
  number = number %% #files + 1
  if not requests[number] then
    local file = io.open(files[number], "rb")
    requests[number] = wrk.format("POST", "/predict", nil, file:read("*a"))
    file:close()
  end
  return requests[number]
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


def load(port: int, script: Path, clients: int, seconds: int) -> dict[str, float]:
    words = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}"]
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
    """Return a process's memory in megabytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1000


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
    paths = ", ".join(f'"{path}"' for path in sorted(photos.rglob("*.jpg")))
    script = folder / "load.lua"
    script.write_text(LUA % paths)
    began = time.perf_counter()
    words = regraft("serve", folder / "model", "--port", "0", "--store", folder / "store", "--engine", "openvino")
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = int(server.stdout.readline().strip().rstrip("/").rpartition(":")[2])
        show("start to address", {"seconds": time.perf_counter() - began})
        show("warm-up", load(port, script, 16, 3))
        for _ in range(arguments.repeats):
            show("extract", extract(photos, folder))
            for clients in (1, 4, 16):
                show(f"serve, {clients} clients", load(port, script, clients, arguments.seconds))
        show("memory", {"MB": memory(server.pid)})
    finally:
        server.terminate()
        server.wait(60)


def main() -> None:
    parser = _bench.parser(__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="of each load")
    parser.add_argument("--images", type=int, default=600, help="photographs that are sent and extracted")
    arguments = parser.parse_args()
    if shutil.which("wrk") is None:
        _bench.skip("wrk is not on this machine")
    with _bench.photographs(arguments.data, "cats-dogs") as photos, tempfile.TemporaryDirectory() as folder:
        run(arguments, sampled(photos, Path(folder) / "photos", arguments.images), Path(folder))


if __name__ == "__main__":
    main()
