"""A folder of features from tar shards: Ray against this process, in turns, with units of several sizes.

The shards are made once, of the photographs again and again with other ids. Seconds are those of the whole command;
beside them is what a command with nothing left to do takes, which is its start.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import sys
import tarfile
import tempfile
from pathlib import Path

import _bench
from commands import Run, run

EXECUTORS = ("local", "ray")


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


def main() -> None:
    """Measure."""
    parser = _bench.parser(__doc__)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--units", type=int, nargs="*", default=[1_000, 10_000], help="images in a shard")
    arguments = parser.parse_args()
    _bench.header()
    with (
        _bench.photographs(arguments.data, "cats-dogs") as photographs,
        tempfile.TemporaryDirectory() as scratch,
    ):
        measure(arguments, photographs, Path(scratch))


if __name__ == "__main__":
    main()
