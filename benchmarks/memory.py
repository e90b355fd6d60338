"""Peak memory over idle, and CPU seconds, of whole commands on few but very large images, and on bombs of archives.

The images are made here: 32 TIFFs of 60 MB, a JPEG of 178 megapixels as it is and progressive, a PNG of 150, and a
lossless WebP of 178, of a single colour and 300 KB, which is refused; a tar of a million empty members, and a zip of 16
members of 500 MB of zeros. Idle is the same command on one small image. The budget is `regraft.data.budget.LIMIT` for
what is decoded and `regraft.features.worker.HELD` for files read ahead.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import _bench
from PIL import Image

Image.MAX_IMAGE_PIXELS = None
SIDE = 13_377  # 178.9 megapixels


class Peak(NamedTuple):
    megabytes: float
    seconds: float  # of user and system, in all cores
    outcome: str


def noise(width: int, height: int, seed: int) -> Image.Image:
    import numpy as np

    rows = np.random.default_rng(seed).integers(0, 256, (64, width, 3), dtype=np.uint8)
    return Image.fromarray(np.tile(rows, (-(-height // 64), 1, 1))[:height])


def tiffs(folder: Path) -> None:
    for number in range(32):
        noise(5000, 4000, number).save(folder / f"{number}.tif")


def one(name: str, width: int, height: int, **options: object) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        Image.new("RGB", (width, height), (90, 120, 30)).save(folder / name, **options)

    return make


def empty_members(folder: Path) -> None:
    import tarfile

    block = tarfile.TarInfo("cat/0000000.jpg").tobuf(tarfile.USTAR_FORMAT)
    with (folder / "source.tar").open("wb") as file:
        for number in range(1_000_000):
            header = block.replace(b"0000000.jpg", b"%07d.jpg" % number, 1)
            total = sum(header[:148]) + sum(header[156:]) + 8 * 32
            file.write(header[:148] + b"%06o\0 " % total + header[156:])
        file.write(bytes(1024))


def zeros(folder: Path) -> None:
    import zipfile

    with zipfile.ZipFile(folder / "source.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(16):
            with archive.open(f"{'cat' if number % 2 else 'dog'}/{number}.jpg", "w", force_zip64=True) as member:
                for _ in range(500):
                    member.write(bytes(1_000_000))


CASES: dict[str, Callable[[Path], None]] = {
    "idle": one("small.png", 64, 64),
    "32 TIFFs of 60 MB": tiffs,
    "JPEG, 178 MP": one("1.jpg", SIDE, SIDE),
    "progressive JPEG, 110 MP": one("1.jpg", 10_500, 10_500, progressive=True),
    "PNG, 150 MP": one("1.png", 12_247, 12_247),
    "WebP, 60 MP": one("1.webp", 7_745, 7_745, quality=50, method=0),
    "WebP, 178 MP": one("1.webp", SIDE, SIDE, lossless=True, method=0),
    "tar, 1,000,000 empty": empty_members,
    "zip, 16 times 500 MB of 0": zeros,
}


def peak(words: list[str], cache: Path) -> Peak:
    """Run a command in a process of its own; return its most memory and how it ended."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "REGRAFT_CACHE": str(cache)}
    )
    output = process.stdout.read().decode() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    lines = (line.strip() for line in output.splitlines())
    reasons = [line for line in lines if line.startswith("regraft:") or "takes" in line or "Please report" in line]
    seconds = usage.ru_utime + usage.ru_stime
    return Peak(usage.ru_maxrss / 1024, seconds, " ".join([f"exit {process.returncode}", *reasons[:1]]))


def main() -> None:
    parser = _bench.parser(__doc__, data=False, repeats=1)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # that the images of --run are written to
    arguments = parser.parse_args()
    if arguments.run:
        CASES[arguments.run](arguments.folder)
        return
    regraft = shutil.which("regraft", path=str(Path(sys.executable).parent)) or "regraft"
    print(f"{'':26}{'inspect':>18}{'extract':>18}   MB over idle, CPU seconds")
    idle: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="regraft-bench-") as scratch:
        for name in CASES:
            if arguments.only and name not in (*arguments.only, "idle"):
                continue
            folder = Path(scratch, "images", "class")
            folder.mkdir(parents=True)
            # apart: a process's peak begins with that of the one that starts it
            subprocess.run([sys.executable, __file__, "--run", name, "--folder", str(folder)], check=True)
            source = str(next(folder.glob("source.*"), folder.parent))
            commands = {
                "inspect": [regraft, "inspect", source],
                "extract": [regraft, "extract", source, "-o", str(Path(scratch, "features.npz")), "--max-broken", "1"],
            }
            peaks = {verb: peak(words, Path(scratch, "cache")) for verb, words in commands.items()}
            idle = idle or {verb: measured.megabytes for verb, measured in peaks.items()}
            cells = [f"{each.megabytes - idle[verb]:10,.0f}{each.seconds:6,.1f} s" for verb, each in peaks.items()]
            print(
                f"{name:26}{''.join(cells)}   {peaks['inspect'].outcome[:120]}; {peaks['extract'].outcome[:120]}",
                flush=True,
            )
            shutil.rmtree(folder.parent)
            Path(scratch, "features.npz").unlink(missing_ok=True)
    print("idle: " + ", ".join(f"{verb} {megabytes:,.0f} MB" for verb, megabytes in idle.items()))


if __name__ == "__main__":
    main()
