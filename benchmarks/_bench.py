"""What the benchmarks share: the machine in words, photographs, repeats, and a table of ours against the peers.

A benchmark's contestants are functions of the parsed arguments that return their notes: numbers to show beside the
time, among them "seconds" where not the whole call is what counts. `contest` gives each run a process of its own, one
after the other and in turns, because thread pools of two libraries in one process fight for the cores; `timed` is for
what can share a process. `compare` prints, and with -o appends a JSON line for each contestant.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = (
    "regraft",
    "torch",
    "timm",
    "openvino",
    "nncf",
    "scikit-learn",
    "keras",
    "tensorflow-cpu",
    "fastai",
    "fastapi",
    "litserve",
)
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
MARK = "result: "  # begins the one line of a contestant's output that is read

Contestant = Callable[[argparse.Namespace], Mapping[str, Any]]


@dataclass(frozen=True)
class Result:
    """One contestant: seconds of each repeat, and notes."""

    name: str
    seconds: tuple[float, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> str:
        return f"{min(self.seconds):.3g} to {max(self.seconds):.3g}"


def parser(description: str | None, *, data: bool = True, repeats: int = 3) -> argparse.ArgumentParser:
    """Return a parser with what all benchmarks take; the first line of `description` is its help."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    if data:
        made.add_argument(
            "data",
            nargs="?",
            default=os.environ.get("REGRAFT_DATA"),
            help="photographs: a folder, a .zip, or a folder of such zips; default: $REGRAFT_DATA",
        )
    made.add_argument("--repeats", type=int, default=repeats, help="runs of each contestant")
    made.add_argument("--only", nargs="*", help="names of the contestants to run")
    made.add_argument("-o", "--output", type=Path, help="append the results to this file, a JSON line each")
    made.add_argument("--run", help=argparse.SUPPRESS)  # a contestant's name: the script calls itself with it
    return made


def skip(reason: str) -> None:
    """Say why a benchmark does not run here, and end without an error."""
    print(f"{Path(sys.argv[0]).stem}: skipped: {reason}")
    raise SystemExit(0)


@contextlib.contextmanager
def photographs(data: str | None, name: str) -> Iterator[Path]:
    """Give a folder of photographs; a zip is unpacked for as long as the `with` lasts.

    data: a folder of photographs, a zip of one, or a folder in which NAME.zip lies. Skips where there is none.
    """
    source = Path(data or "").absolute()
    if data and (source / f"{name}.zip").is_file():
        source /= f"{name}.zip"
    if not data or not source.exists():
        skip(f"no photographs {name}.zip; name them by the argument or by REGRAFT_DATA")
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="regraft-bench-") as folder:
        with zipfile.ZipFile(source) as archive:
            archive.extractall(folder)
        yield Path(folder)


def machine() -> dict[str, Any]:
    """Return versions, processor, its features and cores, and the rate of a large matrix product."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "features": [name for name in FEATURES if name in flags],
        "cores": cores(),
        "gflops": {"float32": _gflops("float32"), "bfloat16": _gflops("bfloat16")},
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def header() -> dict[str, Any]:
    """Print the machine in words; return it."""
    facts = machine()
    print(f"{facts['processor']}, {facts['cores']} cores, {' '.join(facts['features']) or 'features unknown'}")
    print("matrix product: " + ", ".join(f"{name} {rate} GFLOP/s" for name, rate in facts["gflops"].items()))
    print(", ".join(f"{name} {version}" for name, version in facts["versions"].items()), flush=True)
    return facts


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gflops(kind: str, side: int = 2048, repeats: int = 5) -> int:
    import torch

    matrix = torch.ones(side, side, dtype=getattr(torch, kind))
    best = min(_seconds(lambda: matrix @ matrix) for _ in range(repeats))
    return round(2 * side**3 / best / 1e9)


def _seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def timed(name: str, function: Callable[[], Mapping[str, Any] | Any], repeats: int = 3) -> Result:
    """Call a function `repeats` times in this process; a mapping that it returns becomes the notes."""
    runs = [_run(function) for _ in range(repeats)]
    return Result(name, tuple(seconds for seconds, _ in runs), runs[-1][1])


def _run(function: Callable[[], Any]) -> tuple[float, dict[str, Any]]:
    started = time.perf_counter()
    notes = function()
    seconds = time.perf_counter() - started
    notes = dict(notes) if isinstance(notes, Mapping) else {}
    return float(notes.pop("seconds", seconds)), notes


def contest(
    contestants: Mapping[str, Contestant], arguments: argparse.Namespace, *, once: Collection[str] = (), **changes: Any
) -> list[Result]:
    """Run each contestant `--repeats` times, in turns, each run in a process of its own; the first one is ours.

    The script is called again with the same words and `--run NAME`; there `only_run`, its first call, runs that one.
    once:    the contestants that are so slow that they run once.
    changes: arguments that the parent decided, such as data=FOLDER; they replace the parsed ones.
    """
    names = [name for name in contestants if not arguments.only or name in arguments.only]
    runs: dict[str, list[tuple[float, dict[str, Any]]]] = {name: [] for name in names}
    for repeat in range(arguments.repeats):
        for name in names:
            if len(runs[name]) == repeat and not (repeat and name in once):  # one that failed is not tried again
                runs[name] += _apart(name, changes)
            if name == next(iter(contestants)) and not runs[name]:
                raise SystemExit("Without our own time there is nothing to compare.")
    return [Result(name, tuple(s for s, _ in measured), measured[-1][1]) for name, measured in runs.items() if measured]


def _apart(name: str, changes: Mapping[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    environment = {**os.environ, "REGRAFT_BENCH": json.dumps(changes, default=str), "KERAS_BACKEND": "tensorflow"}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    command = [sys.executable, *sys.argv, "--run", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        print(f"{name} failed ({done.returncode}):\n" + "\n".join(done.stderr.splitlines()[-15:]), flush=True)
        return []
    result = json.loads(lines[-1].removeprefix(MARK))
    print(f"  {name}: {result['seconds']:.4g} s", file=sys.stderr, flush=True)
    return [(result["seconds"], result["notes"])]


def only_run(contestants: Mapping[str, Contestant], arguments: argparse.Namespace) -> None:
    """In a process that `contest` started, run the one contestant and end; elsewhere do nothing."""
    if arguments.run is None:
        return
    vars(arguments).update(json.loads(os.environ.get("REGRAFT_BENCH", "{}")))
    seconds, notes = _run(lambda: contestants[arguments.run](arguments))
    print(MARK + json.dumps({"seconds": seconds, "notes": notes}), flush=True)
    raise SystemExit(0)


def compare(
    title: str, ours: Result, peers: Sequence[Result] = (), *, output: Path | None = None, about: Mapping[str, Any] = {}
) -> None:
    """Print a table: each contestant's median seconds, how many times ours goes into it, repeats, spread, notes."""
    rows = [("", "seconds", "times ours", "runs", "spread", "")]
    for result in (ours, *peers):
        notes = ", ".join(f"{key} {_short(value)}" for key, value in result.notes.items())
        ratio = f"{result.median / ours.median:.2f}"
        rows.append((result.name, f"{result.median:.4g}", ratio, str(len(result.seconds)), result.spread, notes))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    print(f"\n{title}")
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:5], widths[1:], strict=True)),
        ]
        print("  ".join([*cells, row[5]]).rstrip())
    sys.stdout.flush()
    if output:
        _append(output, title, (ours, *peers), about)


def _append(output: Path, title: str, results: Sequence[Result], about: Mapping[str, Any]) -> None:
    with output.open("a", encoding="utf-8") as file:
        for result in results:
            line = {"benchmark": title, "contestant": result.name, "seconds": result.seconds, "notes": result.notes}
            file.write(json.dumps({**line, "ours": results[0].name, "machine": dict(about)}) + "\n")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def regraft(*words: Any, cache: Path) -> tuple[float, str]:
    """Run a regraft command with everything that it keeps in `cache`; return its seconds, start included, and stdout.

    Raises CalledProcessError if it fails; what it says is on stderr.
    """
    command = [shutil.which("regraft", path=str(Path(sys.executable).parent)) or "regraft", *map(str, words)]
    started = time.perf_counter()
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "REGRAFT_CACHE": str(cache)}
    )
    return time.perf_counter() - started, done.stdout


def weights(path: str | None, name: str) -> Path | None:
    """Return the folder of weights `name`, or None: `given` or REGRAFT_WEIGHTS is it, or the folder that it lies in."""
    folder = Path(path or os.environ.get("REGRAFT_WEIGHTS") or "none").absolute()
    return next(
        (candidate for candidate in (folder / name, folder) if (candidate / "model.safetensors").is_file()), None
    )
