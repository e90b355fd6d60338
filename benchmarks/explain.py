"""Does a heat map fall on the right half of a picture that is made of two, of different classes?

    python benchmarks/explain.py MODEL PHOTOS [--pairs 100] [--seed 0] [--pictures FOLDER]

MODEL is a model folder, PHOTOS a folder of class folders; what the model was trained on is left out. Two photographs
of two classes drawn at random are cropped to 1:2 about their centres and laid side by side; the map is asked for each
of the two classes, and is right if more of what speaks for the class lies on that class's half. Beside it the map is
made with the head's weights drawn at random, where right is a half by chance.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import regraft
from regraft.evaluation.significance import wilson
from regraft.model import heat_map
from regraft.report import heat as overlays

SIDE = 384


def half(path: Path) -> Image.Image:
    """Return the middle of a photograph, 1:2."""
    return ImageOps.fit(ImageOps.exif_transpose(Image.open(path)).convert("RGBA").convert("RGB"), (SIDE // 2, SIDE))


def pair(index: regraft.Index, rng: np.random.Generator) -> tuple[np.ndarray, tuple[str, str]]:
    """Return a picture of two halves, (SIDE, SIDE, 3), and the classes of the left and the right."""
    left, right = rng.choice(index.classes, 2, replace=False)
    rows = [rng.choice([row.location.path for row in index.used if row.label == label]) for label in (left, right)]
    return np.concatenate([np.asarray(half(Path(path))) for path in rows], axis=1), (str(left), str(right))


def on_its_half(values: np.ndarray, side: int) -> bool:
    """Whether more of what speaks for the class lies on this half, 0 or 1."""
    halves = np.array_split(np.maximum(values, 0), 2, axis=1)
    return bool(halves[side].sum() > halves[1 - side].sum())


def main() -> None:
    """Print how many maps fall on the right half, with the interval."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("photos")
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    model, index = regraft.load(options.model), regraft.read(options.photos)
    unseen = index.where(lambda row: row.status == "used" and model.part_of(row.id) in (None, "test"))
    rng = np.random.default_rng(options.seed)
    weights = {name: rng.normal(size=array.shape).astype(np.float32) for name, array in model.head_weights.items()}
    models = {"trained": model, "random head": dataclasses.replace(model, head_weights=weights)}
    right: dict[str, list[bool]] = {name: [] for name in models}
    for number in range(options.pairs):
        picture, labels = pair(unseen, rng)
        seen = heat_map.see(model.trunks, picture)
        for side, label in enumerate(labels):
            for name, each in models.items():
                heat = heat_map.heat_map(each, seen, label)
                right[name].append(on_its_half(heat.values, side))
                if options.pictures and name == "trained":
                    options.pictures.mkdir(parents=True, exist_ok=True)
                    mark = "right" if right[name][-1] else "WRONG"
                    (options.pictures / f"{number:03}-{side}-{label}-{mark}.webp").write_bytes(
                        overlays.overlay(picture, heat) or b""
                    )
    for name, hits in right.items():
        low, high = wilson(sum(hits), len(hits))
        print(f"{name}: {sum(hits)} of {len(hits)} on the right half, {np.mean(hits):.1%} ({low:.1%} to {high:.1%})")


if __name__ == "__main__":
    main()
