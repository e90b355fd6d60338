"""What copies of pictures do to a measured accuracy: reported, and on new pictures, with near-duplicates tied or not.

- Of 250 pictures of Pokémon a copy each, saved again as JPEG of quality 80. `regraft train --split 0.8/0.2` reports an
  accuracy; the truth is the same model's on the pictures that are left, none of them a version of one of the 250.
- Of 80 pictures a copy each that differs by a comment in the JPEG alone: how many pairs are on two sides of a split.
- 250 pictures four times each, saved again at four qualities: the interval, and that of the 250.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import _bench
import numpy as np
from PIL import Image

import regraft
from regraft.data.decode import decode
from regraft.data.index import Index, Row

Results = Iterator[tuple[str, Mapping[str, Any]]]
CHOICES = ("ignore", "tie")


def main() -> None:
    arguments = _bench.parser(__doc__, repeats=5).parse_args()
    with _bench.photographs(arguments.data, "pokemon") as source:
        pictures = distinct(regraft.split(regraft.read(source), split="0.5/0.5"))
        for results in (commented(pictures), four_times(pictures), saved_again(pictures, arguments.repeats)):
            for title, notes in results:
                print(f"{title}: " + ", ".join(f"{name} {value}" for name, value in notes.items()), flush=True)


def distinct(index: Index) -> list[Row]:
    """Return one file of each picture."""
    return list({row.picture: row for row in index.used}.values())


def saved_again(pictures: Sequence[Row], repeats: int) -> Results:
    measured = defaultdict(list)
    for seed in range(repeats):
        chosen, left = drawn(pictures, 250, seed)
        with tempfile.TemporaryDirectory() as folder:
            for number, row in enumerate(chosen):
                write(row, Path(folder, row.label), f"{number} again.jpg", quality=80)
                write(row, Path(folder, row.label), f"{number}.png")
            for choice in CHOICES:
                report = regraft.train(
                    folder, Path(folder, f".{choice}"), near_duplicates=choice, split="0.8/0.2", views=0, seed=seed
                )
                truth = regraft.evaluate(report.model, left, part="all").accuracy
                measured[choice].append((report.accuracy, truth))
    for choice, accuracies in measured.items():
        reported, truth = 100 * np.mean(accuracies, axis=0)
        title = f"250 pictures and a copy of each, near-duplicates {choice}, mean of {repeats} seeds"
        yield title, {"reported": f"{reported:.1f} %", f"on {len(left.used)} new pictures": f"{truth:.1f} %"}


def commented(pictures: Sequence[Row]) -> Results:
    chosen, _ = drawn(pictures, 80, 0)
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(chosen):
            write(row, Path(folder, row.label), f"{number}.jpg", quality=90)
            write(row, Path(folder, row.label), f"{number} again.jpg", quality=90, comment=b"scanned")
        for choice in CHOICES:
            parts = defaultdict(set)
            for row in regraft.split(folder, near_duplicates=choice, seed=0).used:
                parts[row.path.split(".")[0].split(" ")[0]].add(row.part)
            apart = sum(len(sides) > 1 for sides in parts.values())
            yield f"80 pairs, near-duplicates {choice}", {"on two sides": apart}


def four_times(pictures: Sequence[Row]) -> Results:
    chosen, left = drawn(pictures, 250, 0)
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(chosen):
            for quality in (95, 85, 75, 65):
                write(row, Path(folder, row.label), f"{number} {quality}.jpg", quality=quality)
        report = regraft.train(left, Path(folder, ".model"), split="0.8/0.2", views=0, size=64)
        for name, keep in (("four times each", lambda _: True), ("once", lambda row: row.path.endswith("95.jpg"))):
            evaluation = regraft.evaluate(report.model, regraft.read(folder).where(keep), part="all").evaluation
            low, high = (100 * end for end in evaluation.accuracy_interval)
            count = f"{evaluation.n} images, {evaluation.pictures} pictures"
            accuracy = f"{100 * evaluation.accuracy:.1f} %"
            yield (
                f"250 pictures, {name}",
                {"counted": count, "accuracy": accuracy, "interval": f"{low:.1f} to {high:.1f} %"},
            )


def drawn(pictures: Sequence[Row], count: int, seed: int) -> tuple[list[Row], Index]:
    """Return so many pictures, as many of each class, and an index of the others, without parts."""
    rng, rows = np.random.default_rng(seed), defaultdict(list)
    for row in pictures:
        rows[row.label].append(dataclasses.replace(row, part=None))
    chosen = [
        of_class[number]
        for of_class in rows.values()
        for number in rng.choice(len(of_class), count // len(rows), replace=False)
    ]
    ids = {row.id for row in chosen}
    left = [row for of_class in rows.values() for row in of_class if row.id not in ids]
    return chosen, Index(tuple(left), "the others")


def write(row: Row, folder: Path, name: str, **options: Any) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(decode(row.location.read())).save(folder / name, **options)


if __name__ == "__main__":
    main()
