"""The linear head on features that memory does not hold, against reading them alone, in turns.

Units of made-up features, relu of ten Gaussians, are written once; more rows than they hold are the same units over and
over, from the operating system's cache where they fit into it. So the time is that of decoding, centring and
multiplying: a disk that is slower than decoding would add to reading and training alike. Both use two threads, chunk
after chunk.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import _bench
import numpy as np

from regraft.core.machine import cores
from regraft.core.remote import storage_path
from regraft.data.index import Row
from regraft.data.sources.folder import FileLocation
from regraft.features.unit_shelf import UnitShelf
from regraft.features.units import Rows, encode
from regraft.training import logistic_regression, streamed_rows
from regraft.training.examples import Examples
from regraft.training.heads import linear
from regraft.training.options import FitOptions

WIDTH, CLASSES, PER_UNIT = 1280, 10, 10_000


class Repeated:
    """So many rows of a shelf of units, over and over; counts what is read."""

    def __init__(self, shelf: UnitShelf, units: int, rows: int) -> None:
        self.shelf, self.distinct, self.shape = shelf, units * PER_UNIT, (rows, WIDTH)
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        numbers = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        self.read.append(len(numbers))
        return self.shelf.read([str(number) for number in numbers % self.distinct], (WIDTH,))


def labels(rows: int) -> np.ndarray:
    return np.random.default_rng(1).integers(CLASSES, size=PER_UNIT)[np.arange(rows) % PER_UNIT]


def write(folder: Path, units: int) -> None:
    """Write units of rows that overlap: of a fifth the label is another one."""
    centres = np.random.default_rng(0).normal(0, 0.1, (CLASSES, WIDTH))
    for unit in range(units):
        rng = np.random.default_rng(unit + 2)
        shown = np.where(rng.random(PER_UNIT) < 0.2, rng.integers(CLASSES, size=PER_UNIT), labels(PER_UNIT))
        values = np.maximum(centres[shown] + rng.normal(size=(PER_UNIT, WIDTH)), 0).astype(np.float32)
        rows = [Row(path=str(number), location=FileLocation(""), label="") for number in range(PER_UNIT)]
        (folder / f"part-{unit}.parquet").write_bytes(encode([Rows(rows, values)], "features", (WIDTH,))[0])


def opened(arguments: argparse.Namespace) -> Examples:
    shelf = UnitShelf(storage_path(arguments.folder), Path())
    for unit in range(arguments.units):
        shelf.add(str(unit), ((number, str(unit * PER_UNIT + number)) for number in range(PER_UNIT)))
    return Examples(Repeated(shelf, arguments.units, arguments.rows), labels(arguments.rows))


def read(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Read all rows once, a chunk after the other, on all cores."""
    inputs = opened(arguments).inputs
    starts = range(0, len(inputs), streamed_rows.CHUNK)
    began = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(lambda start: inputs[start : start + streamed_rows.CHUNK].sum(), starts):
            pass
    return {"seconds": time.perf_counter() - began, **used()}


def train(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Solve the head at one strength; all rows are read once, then those that are not kept in each pass."""
    examples = opened(arguments)
    logistic_regression.MAX_ITERATIONS = arguments.iterations
    began = time.perf_counter()
    options = FitOptions(memory=arguments.memory)
    fitted = linear.fit(examples, None, CLASSES, linear.Options(regularisation=arguments.regularisation), options)
    return {
        "seconds": time.perf_counter() - began,
        "readings": round(sum(examples.inputs.read) / arguments.rows, 2),
        "accuracy": round(fitted.history.rows[0].accuracy, 4),
        "sha256": hashlib.sha256(fitted.weights["1.weight"].tobytes()).hexdigest()[:12],
        **used(),
    }


def used() -> dict[str, Any]:
    own = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_s": round(own.ru_utime + own.ru_stime, 1), "peak_mb": own.ru_maxrss // 1024}


CONTESTANTS = {"train": train, "read once": read}


def main() -> None:
    """Measure."""
    parser = _bench.parser(__doc__, data=False, repeats=1)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--units", type=int, default=10, help=f"distinct units of {PER_UNIT:,} rows")
    parser.add_argument("--memory", type=float, default=0.1, help="gigabytes of rows that are kept")
    parser.add_argument("--regularisation", type=float, default=1000.0)
    parser.add_argument("--iterations", type=int, default=1000, help="at most; fewer where a pass takes minutes")
    parser.add_argument("--folder", help="of the units, which are written if there are none; default: a temporary one")
    arguments = parser.parse_args()
    _bench.only_run(CONTESTANTS, arguments)
    about = _bench.header()
    with tempfile.TemporaryDirectory() as scratch:
        arguments.folder = arguments.folder or scratch
        if not list(Path(arguments.folder).glob("part-*")):
            Path(arguments.folder).mkdir(exist_ok=True)
            write(Path(arguments.folder), arguments.units)
        ours, alone = _bench.contest(CONTESTANTS, arguments, folder=arguments.folder)
    title = f"linear head on {arguments.rows:,} rows of {WIDTH} features, {arguments.memory:g} GB of them kept"
    _bench.compare(title, ours, [alone], output=arguments.output, about=about)
    print(f"training took {ours.median / alone.median / ours.notes['readings']:.2f} x the time of reading what it read")


if __name__ == "__main__":
    main()
