"""What stored views bring where images are few: accuracy by images a class and by views, over several draws.

Of each data set's training part some images of each class are drawn, a head learns from them and from K views of each,
and is measured on what is held out. First the linear head, which learns from all views at once, and has the rule of
`--views auto`; its choice is marked *. Then a small network that draws among the views in each epoch, beside new views
in each epoch ("fresh": the frozen part is run every time). "kept" is the share of fresh augmentation's gain over no
augmentation that the stored views bring. Nothing is timed here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _bench
import numpy as np

import regraft
from regraft.features.augmentation import count

SETS = ("cats-dogs", "pokemon")
HALVES = "0.5/0.5"  # of a data set without parts: the differences are small, so many images must be held out
FRESH = "fresh"

Accuracies = dict[tuple[str, int, int | str], list[float]]  # head, images a class, views → in per cent, one a draw


def main() -> None:
    """Print the tables of each data set; -o appends their numbers."""
    arguments = _arguments()
    about = _bench.header()
    for source in _sources(arguments.data):
        with tempfile.TemporaryDirectory(prefix="regraft-bench-") as store:
            index, accuracies = _accuracies(source, arguments, Path(store))
        held = len(index.used) - len(index.train)
        print(f"\n{source.stem}, {arguments.backbone}, views {arguments.augmentation}; measured on {held} images")
        for head in _heads(arguments):
            _show(head, accuracies, arguments)
        if arguments.output:
            _append(arguments.output, source.stem, accuracies, {**about, **_plain(arguments)})


def _arguments() -> argparse.Namespace:
    parser = _bench.parser(__doc__, repeats=5)
    parser.add_argument("--images", type=int, nargs="*", default=[5, 10, 20, 40, 80, 200], help="images a class")
    parser.add_argument("--views", type=int, nargs="*", default=[0, 1, 2, 4, 8, 16], help="views of each image")
    parser.add_argument("--augmentation", default="standard", help="the views' policy, as for `regraft train`")
    parser.add_argument("--epochs", type=int, default=30, help="of the small network; 0: the linear head alone")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    return parser.parse_args()


def _plain(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: vars(arguments)[name] for name in ("backbone", "augmentation", "epochs")}


def _sources(data: str | None) -> list[Path]:
    """Return the data sets: those of SETS in a folder of zips, else what is named."""
    if not data or not Path(data).exists():
        _bench.skip("no photographs; name them by the argument or by REGRAFT_DATA")
    zips = [path for name in SETS if (path := Path(str(data), f"{name}.zip")).is_file()]
    return zips or [Path(str(data))]


def _heads(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return each head's options, by its name."""
    network = {"head": "mlp", "epochs": arguments.epochs, "patience": None}
    return {"linear": {"head": "linear"}, **({"mlp": network} if arguments.epochs else {})}


# Measuring


def _accuracies(source: Path, arguments: argparse.Namespace, store: Path) -> tuple[regraft.Index, Accuracies]:
    """Return the index with all that was drawn, and the accuracies.

    The features of all are computed first; then each draw is a reading of the store.
    """
    index = regraft.split(regraft.read(source), split=HALVES)
    draws = {
        (images, draw): drawn
        for images in arguments.images
        for draw in range(arguments.repeats)
        if (drawn := _draw(index, images, draw))
    }
    every = set().union(*draws.values())
    index = index.where(lambda row: row.part != "train" or row.id in every)
    accuracies: Accuracies = {}
    for views in (*sorted(arguments.views, reverse=True), FRESH):
        if views == FRESH and not arguments.epochs:
            continue
        how = {"views": 1, "augment": FRESH} if views == FRESH else {"views": views}
        options = {"backbone": arguments.backbone, "augmentation": arguments.augmentation, "store": store}
        features = regraft.extract(index, **options, **how)
        for (images, draw), drawn in draws.items():
            few = features.with_index(_only(features.index, drawn))
            for head, settings in _heads(arguments).items():
                if head != "linear" or views != FRESH:
                    model = regraft.fit(few, seed=draw, **settings)
                    accuracy = regraft.evaluate(model, few.index, store=store).accuracy
                    accuracies.setdefault((head, images, views), []).append(100 * accuracy)
    return index, accuracies


def _draw(index: regraft.Index, images: int, draw: int) -> set[str]:
    """Return the ids of so many training images of each class; none if a class has fewer."""
    random = np.random.default_rng((images, draw))
    by_class = {name: sorted({row.id for row in index.train if row.label == name}) for name in index.classes}
    if min(map(len, by_class.values())) < images:
        return set()
    return {id for ids in by_class.values() for id in random.choice(ids, images, replace=False).tolist()}


def _only(index: regraft.Index, drawn: set[str]) -> regraft.Index:
    """Return the index without the training images that were not drawn."""
    return index.where(lambda row: row.part != "train" or row.id in drawn)


# Telling


def _show(head: str, accuracies: Accuracies, arguments: argparse.Namespace) -> None:
    """Print a line for each number of images, a column for each number of views."""
    columns: list[int | str] = [*sorted(arguments.views), *([FRESH] if head != "linear" else [])]
    print(f"\n{head}: accuracy in %, mean and standard deviation of {arguments.repeats} draws, by views of an image")
    print("images a class" + "".join(f"{column:>14}" for column in columns))
    for images in sorted({key[1] for key in accuracies if key[0] == head}):
        chosen = count([images])
        cells = [_cell(accuracies[head, images, column], column == chosen and head == "linear") for column in columns]
        print(f"{images:>14}" + "".join(cells))
        if head != "linear":
            print(f"{'kept':>14}" + "".join(_kept(accuracies, head, images, column) for column in columns))


def _cell(accuracies: Sequence[float], chosen: bool) -> str:
    spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
    return f"{statistics.fmean(accuracies):8.2f} ±{spread:3.1f}{'*' if chosen else ' '}"


def _kept(accuracies: Accuracies, head: str, images: int, column: int | str) -> str:
    """Return how much of fresh augmentation's gain a column has; nothing where that gain is below its own error."""
    base, here, fresh = (np.array(accuracies[head, images, key]) for key in (0, column, FRESH))
    gain = fresh - base
    error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
    return f"{(here - base).mean() / gain.mean():>13.0%} " if gain.mean() > error > 0 else f"{'-':>13} "


def _append(output: Path, name: str, results: Accuracies, about: Mapping[str, Any]) -> None:
    with output.open("a", encoding="utf-8") as file:
        for (head, images, views), accuracies in results.items():
            line = {"head": head, "images_a_class": images, "views": views, "accuracies": accuracies}
            file.write(json.dumps({"benchmark": f"views {name}", **line, "machine": dict(about)}) + "\n")


if __name__ == "__main__":
    main()
