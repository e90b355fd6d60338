"""A folder of features from tar shards: Ray against this process, in turns, with units of several sizes.

The shards are made once, of the photographs again and again with other ids. Seconds are those of the whole command;
beside them is what a command with nothing left to do takes, which is its start. `--cores 1`: all of it uses one core.

`--grow` measures what grows with the rows instead, on the machine that gives the command: the plan of so many files,
all units of it (computed by Ray, of features that are repeated, as images would only repeat their decoding), and the
counts, copies and conflicts of an inspection. Each is a process of its own, and its peak memory is told.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import _bench
import numpy as np
from commands import Run, run

EXECUTORS = ("local", "ray")
WIDTH = 1280  # features of a row


def shards(photographs: list[Path], folder: Path, count: int, per_shard: int) -> Path:
    """Write so many images into tar shards; each has bytes of its own, by a comment behind its end."""
    folder.mkdir()
    for start in range(0, count, per_shard):
        with tarfile.open(folder / f"{start:08}.tar", "w") as tar:
            for number in range(start, min(start + per_shard, count)):
                photo = photographs[number % len(photographs)]
                for ending, content in (
                    ("jpg", photo.read_bytes() + b"%d" % number),
                    ("cls", photo.parent.name.encode()),
                ):
                    member = tarfile.TarInfo(f"{number:08}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


def command(executor: str, source: Path, output: Path, cache: Path) -> Run:
    """Run `regraft extract` in a process of its own."""
    return run([sys.executable, "-m", "regraft", "extract", str(source), "-o", f"{output}/", "--on", executor], cache)


def measure(arguments: argparse.Namespace, photographs: Path, scratch: Path) -> None:
    """Print a line for each executor and size of unit."""
    images = sorted(photographs.rglob("*.jpg"))
    cache = scratch / "cache"
    print(f"{arguments.images:,} images; seconds: median (least to most) of {arguments.repeats}")
    for per_shard in arguments.units:
        source = shards(images, scratch / f"shards-{per_shard}", arguments.images, per_shard)
        command("local", source, scratch / "warm", cache)  # the network is converted
        seconds: dict[str, list[float]] = {name: [] for name in EXECUTORS}
        starts: dict[str, list[float]] = {name: [] for name in EXECUTORS}
        for _ in range(arguments.repeats):
            for name in EXECUTORS:
                seconds[name].append(command(name, source, scratch / "out", cache).seconds)
                starts[name].append(command(name, source, scratch / "out", cache).seconds)
                shutil.rmtree(scratch / "out")
        shutil.rmtree(scratch / "warm")
        local = statistics.median(seconds["local"])
        for name in EXECUTORS:
            median, begun = statistics.median(seconds[name]), statistics.median(starts[name])
            spread = f"{min(seconds[name]):.1f} to {max(seconds[name]):.1f}"
            without = (median - begun) / (local - statistics.median(starts["local"]))
            print(
                f"units of {per_shard:>6,}  {name:6} {median:7.1f} s ({spread}), {median / local:.2f} x local; "
                f"start {begun:.1f} s, without it {without:.2f} x"
            )


# What grows with the rows


@dataclass(frozen=True)
class Repeated:
    """Features of rows whose images are not looked at: the same few again and again."""

    def open(self, *_: Any) -> Any:
        """Return what gives them."""
        from regraft.features.units import Rows

        values = np.random.default_rng(0).normal(size=(512, WIDTH)).astype(np.float32)
        values.view(np.uint32)[...] &= 0xFFFF0000  # bfloat16, as an engine gives them

        def compute(rows: Iterator[Any]) -> Iterator[Any]:
            while some := list(itertools.islice(rows, 256)):
                known = [replace(row, id=hashlib.sha256(row.path.encode()).hexdigest()) for row in some]
                yield Rows(known, values[[int(row.id[:8], 16) % 512 for row in known]])

        return compute


def made_plan(count: int) -> Any:
    """Return the plan of so many files, in a hundred class folders."""
    from regraft.core import remote
    from regraft.data.shards import File, files
    from regraft.data.units import Plan

    folder = remote.storage_path("photographs")
    listed = [File(f"class-{number % 100:02}/photo-{number:08}.jpg", 100_000 + number) for number in range(count)]
    return Plan(folder, tuple(files.units(folder, listed, 10_000)))


def plan(count: int, _: Path) -> str:
    """Plan so many files."""
    return f"{len(made_plan(count).units)} units"


def units(count: int, scratch: Path) -> str:
    """Compute all units by Ray."""
    from regraft.features.options import ExecutorOptions
    from regraft.features.units import Contents
    from regraft.pipeline import options, units

    contents = Contents({"kind": "features"}, "features", (WIDTH,), {})
    chosen = options.ExtractOptions(executor=ExecutorOptions(on="ray"))
    units._run(made_plan(count), scratch / "features", contents, Repeated(), None, chosen)
    size = sum(path.stat().st_size for path in (scratch / "features").glob("part-*"))
    return f"{size / count:.0f} bytes a row"


def inspection(count: int, scratch: Path) -> str:
    """Bring the rows of an inspection together; each tenth picture is a copy of another one."""
    from regraft.data import inspect_units

    def rows(_: Any, planned: Iterable[Any]) -> Iterator[Any]:
        for unit in planned:
            yield looked_at(unit)

    tempfile.tempdir = str(scratch)
    values = inspect_units.inspect(made_plan(count), rows).to_dict()
    return f"{values['used']:,} used, {values['copies']:,} copies"


def looked_at(unit: Any) -> Any:
    """Return the table that a worker returns for a unit."""
    import pyarrow

    from regraft.data import inspect_units

    numbers = [file.size - 100_000 for file in unit.files]
    pictures = [number - 1 if number % 10 == 9 else number for number in numbers]
    known = {
        "id": [hashlib.sha256(b"%d" % picture).hexdigest() for picture in pictures],
        "path": [file.path for file in unit.files],
        "label": ["one"] * len(numbers),
        "status": ["used"] * len(numbers),
        "format": ["JPEG"] * len(numbers),
        "width": [500] * len(numbers),
        "height": [375] * len(numbers),
        "remarks": [[] for _ in numbers],
    }
    schema = inspect_units._schema()
    columns = {name: known.get(name, [None] * len(numbers)) for name in schema.names}
    return pyarrow.table(columns, schema=schema)


GROWING = {"plan": plan, "units": units, "inspection": inspection}


def grow(counts: Iterable[int]) -> None:
    """Print a line for each number of rows and what grows with it."""
    for name in GROWING:
        for count in counts:
            words = [sys.executable, __file__, "--one", name, "--rows", str(count)]
            done = subprocess.run(words, capture_output=True, text=True)
            print(f"{name:10} {count:>9,} rows  {done.stdout.strip() or done.stderr[-800:]}", flush=True)


def one(name: str, count: int) -> None:
    """Do one of what grows, in this process, and print what it took."""
    import regraft.pipeline.units  # noqa: F401 - what is imported counts for the base

    base, started, used = _peak(), time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        about = GROWING[name](count, Path(scratch))
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    print(f"{seconds:7.1f} s, {cpu:6.1f} CPU-s here, peak {_peak():5.0f} MB (at the start {base:.0f}); {about}")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure."""
    parser = _bench.parser(__doc__)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--units", type=int, nargs="*", default=[1_000, 10_000], help="images in a shard")
    parser.add_argument("--cores", type=int, help="that all of it may use; default: all")
    parser.add_argument("--grow", type=int, nargs="*", help="rows; default: 10,000 to a million")
    parser.add_argument("--one", choices=GROWING, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one, arguments.rows)
        return
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    _bench.header()
    if arguments.grow is not None:
        grow(arguments.grow or [10_000, 100_000, 1_000_000])
        return
    with (
        _bench.photographs(arguments.data, "cats-dogs") as photographs,
        tempfile.TemporaryDirectory() as scratch,
    ):
        measure(arguments, photographs, Path(scratch))


if __name__ == "__main__":
    main()
