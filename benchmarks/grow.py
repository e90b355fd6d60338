"""Many images: the time an image takes, and the memory, as there are more of them.

Reading, extraction and the linear head's fit of 1,000, 10,000 and 60,000 images, each in a process of its own with an
empty store. Both numbers should stay where they are: "times ours" compares the seconds an image (the network is made
before) with those of the smallest size, and the peaks are counted over what the process takes once its libraries are
imported; the fit's has the features in it. Where there are too few photographs they serve again with a byte appended,
which makes other images of them.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from _bench import compare, contest, header, only_run, parser, photographs, skip

SIZES = (1_000, 10_000, 60_000)
FIRST = 16  # images put through the network before the clock starts
STATUS = Path("/proc/self/status")


def main() -> None:
    words = parser(__doc__, repeats=1)
    words.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of images, the smallest first")
    arguments = words.parse_args()
    contestants = {f"{count:,} images": functools.partial(grow, count) for count in arguments.sizes}
    only_run(contestants, arguments)
    if not STATUS.exists():
        skip("peak memory is read from /proc, which only Linux has")
    about = header()
    with (
        photographs(arguments.data, "cifar10-half") as source,
        tempfile.TemporaryDirectory(prefix="regraft-bench-") as folder,
    ):
        for count in arguments.sizes:
            write(source, Path(folder) / str(count), count)
        first, *others = contest(contestants, arguments, data=folder)
    compare("grow: seconds an image, read and extracted", first, others, output=arguments.output, about=about)


def write(source: Path, folder: Path, count: int) -> None:
    """Write so many photographs into class folders, the classes in turn; a class is the name of a file's folder."""
    classes: dict[str, list[Path]] = {}
    for path in sorted(file for file in source.rglob("*.*") if file.is_file()):
        classes.setdefault(path.parent.name, []).append(path)
    endless = [again(paths) for paths in classes.values()]
    in_turn = itertools.chain.from_iterable(zip(*endless, strict=True))
    for number, (path, appended) in enumerate(itertools.islice(in_turn, count)):
        target = folder / path.parent.name / f"{number:06}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes() + appended)


def again(paths: list[Path]) -> Iterator[tuple[Path, bytes]]:
    """Yield each path with nothing to append, then each with one byte, and so on."""
    for time_over in itertools.count():
        for path in paths:
            yield path, bytes(time_over)


def grow(count: int, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Return the seconds an image, the peaks in MB over the idle process, and the seconds of the fit."""
    import regraft
    from regraft.features import extract  # noqa: F401  what `regraft.extract` imports at its first call
    from regraft.network import build, frozen  # noqa: F401  what `regraft.extract` imports at its first call

    source = Path(arguments.data) / str(count)
    idle = memory("VmRSS")
    with tempfile.TemporaryDirectory(prefix="regraft-bench-") as store:
        few = list(itertools.islice(source.rglob("*.*"), FIRST))
        regraft.extract(regraft.read(few, [path.parent.name for path in few]), store=Path(store), views=0)
        started = time.perf_counter()
        features = regraft.extract(regraft.read(source), store=Path(store), views=0)
        extracted, peak = time.perf_counter(), memory("VmHWM")
        regraft.fit(features)
        return {
            "seconds": (extracted - started) / (count - FIRST),
            "images": len(features),
            "peak MB": round(peak - idle),
            "with fit MB": round(memory("VmHWM") - idle),
            "fit s": time.perf_counter() - extracted,
        }


def memory(name: str) -> float:
    """Return MB from this process's status: VmRSS is what it takes now, VmHWM the most that it took."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
