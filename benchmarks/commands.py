"""Whole commands, each a fresh process with its start: seconds, how many times `import timm` that is, and peak memory.

CPU seconds, of all cores together, and their ratio to `import timm`'s hold where others use the machine, too.

The store is warm and the network converted, as on the second day of use. `import timm` runs in turns with them, so that
the ratio holds on a machine whose speed drifts.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import _bench

PEER = "import timm"
# A torchvision whose compiled part does not fit its torch stops timm otherwise; the two lines take no time.
IMPORT = """
import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm
"""
ALL = 3000  # photographs, or as many as there are


class Run(NamedTuple):
    seconds: float
    cpu_seconds: float
    megabytes: float  # the process's peak


LAUNCHER = """
import resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
seconds, used = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
print(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
sys.exit(done.stderr if done.returncode else 0)
"""  # a small process: what it starts would else count the memory of this one, which has imported PyTorch, as its own


def run(words: list[str], cache: Path) -> Run:
    """Run a command in a process of its own; raise if it fails."""
    launcher = [sys.executable, "-c", LAUNCHER, *words]
    done = subprocess.run(launcher, capture_output=True, text=True, env={**os.environ, "REGRAFT_CACHE": str(cache)})
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed: {done.stderr}")
    return Run(*map(float, done.stdout.split()))


def sample(source: Path, target: Path, per_class: int, start: int = 0) -> Path:
    """Copy so many photographs of each class."""
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        for path in sorted(folder.glob("*"))[start : start + per_class]:
            shutil.copy(path, target / folder.name)
    return target


def commands(photographs: Path, scratch: Path, cache: Path, preset: str) -> dict[str, Callable[[], list[str]]]:
    """Return what is measured, by name: each gives its command's words; what must be there is made once."""
    chosen = ["--preset", preset, "--quiet"]
    regraft = [shutil.which("regraft", path=str(Path(sys.executable).parent)) or "regraft"]
    every = scratch / "all"
    for part in sorted(photographs.iterdir()):
        for folder in sorted(part.iterdir()):
            (every / folder.name).mkdir(parents=True, exist_ok=True)
            for path in sorted(folder.iterdir())[: ALL // 2]:
                shutil.copy(path, every / folder.name / f"{part.name}-{path.name}")
    thousand, hundred = sample(every, scratch / "thousand", 500), sample(every, scratch / "hundred", 50)
    photo = next((thousand / "cat").iterdir())
    run([*regraft, "train", str(every), "-o", str(scratch / "model"), *chosen], cache)
    seeds, fresh = iter(range(1, 10_000)), iter(range(10_000))

    def extract() -> list[str]:
        """Photographs that the store does not have: each run forgets them, but not the converted network."""
        number = next(fresh)
        folder = scratch / f"new-{number}"
        for path in thousand.rglob("*.jpg"):
            copy = folder / path.parent.name / path.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(
                path.read_bytes() + b"\0" + str(number).encode()
            )  # after the end: other bytes, same pixels
        return [*regraft, "extract", str(folder), "-o", str(scratch / f"features-{number}.npz"), "--quiet"]

    model = str(scratch / "model")
    return {
        PEER: lambda: [sys.executable, "-c", IMPORT],
        "predict, one photograph": lambda: [*regraft, "predict", model, str(photo)],
        f"train, linear head, {ALL:,} images, warm": lambda: [
            *(*regraft, "train", str(every), "-o", str(scratch / f"again-{(seed := next(seeds))}")),
            *("--seed", str(seed), *chosen),
        ],
        "evaluate, 1,000 images, warm": lambda: [*regraft, "evaluate", model, str(thousand), "--part", "all"],
        "extract, 1,000 new JPEGs, network converted": extract,
        "backbones": lambda: [*regraft, "backbones"],
        "store": lambda: [*regraft, "store"],
        "report MODEL": lambda: [*regraft, "report", model, "-o", str(scratch / f"report-{next(fresh)}.html")],
        "inspect, 100 images": lambda: [*regraft, "inspect", str(hundred)],
        "--help": lambda: [*regraft, "--help"],
    }


def main() -> None:
    parser = _bench.parser(__doc__, repeats=5)
    parser.add_argument("--preset", default="fast", help="of the model: fast is one small network, balanced two")
    arguments = parser.parse_args()
    with _bench.photographs(arguments.data, "cats-dogs") as folder, tempfile.TemporaryDirectory() as scratch:
        _bench.header()
        cache = Path(scratch) / "cache"
        measured = commands(folder, Path(scratch), cache, arguments.preset)
        runs: dict[str, list[Run]] = {name: [] for name in measured}
        for repeat in range(arguments.repeats + 1):
            for name, words in measured.items():
                result = run(words(), cache)
                if repeat:  # the first is not counted: files in memory, networks converted
                    runs[name].append(result)
        _table(runs)


def _table(runs: dict[str, list[Run]]) -> None:
    peer, peer_cpu = _medians(runs[PEER])
    print(f"\n{'':46}  seconds  times {PEER}  spread           CPU s  times {PEER}     MB")
    for name, results in runs.items():
        seconds = [result.seconds for result in results]
        (median, cpu), megabytes = _medians(results), max(result.megabytes for result in results)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        ratios = f"{median:7.2f}  {median / peer:17.2f}  {spread:14}  {cpu:6.2f}  {cpu / peer_cpu:17.2f}"
        print(f"{name:46}  {ratios}  {megabytes:5.0f}")


def _medians(results: list[Run]) -> tuple[float, float]:
    """Return the medians of the seconds and of the CPU seconds."""
    return statistics.median(r.seconds for r in results), statistics.median(r.cpu_seconds for r in results)


if __name__ == "__main__":
    main()
