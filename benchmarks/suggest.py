"""How many labels does `regraft suggest` save? Simulated on images whose labels are known.

    python benchmarks/suggest.py pokemon cifar10-half/train [--images 4000] [--seeds 5] [--preset fast]

A quarter of the pictures, each once, is the test part. Of the others two images of each class are labelled; a model is
trained, which says what to label next, half as many as are labelled, and so on up to six tenths of all. Beside the
accuracy of all labels stands how many labels each way needs to come within half a point of it, in the mean of the
draws. The way that `suggest` takes was chosen on Pokémon, and nothing on CIFAR-10.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import regraft
from regraft.audit import what_to_label
from regraft.model.evidence import directions
from regraft.training.examples import Examples
from regraft.training.heads import linear
from regraft.training.losses import Loss
from regraft.training.options import FitOptions

CLOSE = 0.005
WAYS = ("random", "margin", "margin and k-means", "margin and k-center", "typical")


def features(folder: str, images: int, preset: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features (n, width), labels and pictures (n,) of at most so many images, drawn at random."""
    index = regraft.read(folder).used
    numbers = np.sort(np.random.default_rng(0).permutation(len(index))[:images])
    index = index.with_rows(index.rows[number] for number in numbers)
    groups = regraft.groups(index)
    backbone = "efficientnet_lite0" if preset == "fast" else "efficientnet_lite0+efficientnet_lite2@320"
    made = regraft.extract(index, backbone=backbone)
    return np.asarray(made), np.array(made.index.used.label_codes(made.index.classes)), groups


def probabilities(rows: np.ndarray, labels: np.ndarray, of: np.ndarray, n_classes: int) -> np.ndarray:
    """Return what regraft's default head, trained on rows, says of others."""
    fitted = linear.fit(Examples(rows, labels), None, n_classes, linear.Options(), FitOptions())
    return Loss().probabilities(linear.logits(fitted.weights, of, linear.Options()))


def k_center(points: np.ndarray, labelled: np.ndarray, certainty: np.ndarray, count: int) -> np.ndarray:
    """Return rows one by one: the one whose distance to all labelled and chosen, times its doubt, is largest."""
    nearest = 1 - (points @ labelled.T).max(axis=1)
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(np.argmax(nearest * (1 - certainty))))
        nearest = np.minimum(nearest, 1 - points @ points[chosen[-1]])
    return np.array(chosen)


def typical(points: np.ndarray, labelled: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the most typical row of each cluster without a label (Hacohen et al. 2022, arXiv:2202.02794)."""
    from sklearn.cluster import KMeans

    both = np.concatenate([points, labelled])
    clusters = KMeans(min(len(both), count + len(labelled)), n_init=1, random_state=seed).fit_predict(both)
    density = np.sort(points @ points.T, axis=1)[:, -21:-1].mean(axis=1)
    free = [one for one in np.unique(clusters[: len(points)]) if one not in set(clusters[len(points) :])]
    free.sort(key=lambda one: -(clusters[: len(points)] == one).sum())
    chosen = [max(np.flatnonzero(clusters[: len(points)] == one), key=lambda row: density[row]) for one in free[:count]]
    rest = np.setdiff1d(np.argsort(-density), chosen, assume_unique=True)[: count - len(chosen)]
    return np.array([*chosen, *rest], int)


def choose(
    way: str, points: np.ndarray, labelled: np.ndarray, certainty: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """Return the rows to label next."""
    if way == "random":
        return np.random.default_rng([seed, len(labelled)]).permutation(len(points))[:count]
    if way == "margin":
        return np.argsort(certainty)[:count]
    if way == "margin and k-means":
        among = what_to_label.candidates(certainty, count)
        return among[what_to_label.spread(points[among], certainty[among], count, seed)]
    if way == "typical":
        return typical(points, labelled, count, seed)
    return k_center(points, labelled, certainty, count)


def curve(
    way: str, rows: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray, seed: int
) -> dict[int, float]:
    """Return the accuracy on the test part by how many are labelled."""
    rng, n_classes = np.random.default_rng(seed), int(labels.max()) + 1
    points = directions(rows)
    order = rng.permutation(len(rows))
    known = np.concatenate([order[labels[order] == label][:2] for label in range(n_classes)])
    accuracies = {}
    while True:
        rest = np.setdiff1d(np.arange(len(rows)), known)
        predicted = probabilities(rows[known], labels[known], np.concatenate([test, rows[rest]]), n_classes)
        accuracies[len(known)] = float((predicted[: len(test)].argmax(1) == truth).mean())
        count = min(round(len(known) * 0.5), len(rest))
        if not count or len(known) > len(rows) * 0.6:
            return accuracies
        certainty = what_to_label.certainties(predicted[len(test) :])
        known = np.concatenate([known, rest[choose(way, points[rest], points[known], certainty, count, seed)]])


def main() -> None:
    """Print the curves of each way, and how many labels it needs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", nargs="+")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    for folder in options.data:
        rows, labels, pictures = features(folder, options.images, options.preset)
        curves: dict[str, list[dict[int, float]]] = {way: [] for way in options.ways.split(",")}
        full = []
        for seed in range(options.seeds):
            drawn = np.random.default_rng(seed).permutation(np.unique(pictures))
            held = np.isin(pictures, drawn[: len(drawn) // 4])
            once = np.zeros(len(rows), bool)
            once[np.unique(pictures, return_index=True)[1]] = True
            train, test = once & ~held, once & held
            n_classes = int(labels.max()) + 1
            predicted = probabilities(rows[train], labels[train], rows[test], n_classes)
            full.append(float((predicted.argmax(1) == labels[test]).mean()))
            for way in curves:
                curves[way].append(curve(way, rows[train], labels[train], rows[test], labels[test], seed))
        print(f"{folder}: {train.sum()} pictures, accuracy of all labels {np.mean(full):.1%}, mean of {options.seeds}")
        for way, made in curves.items():
            sizes = list(made[0])
            means = np.mean([[each[size] for size in sizes] for each in made], axis=0)
            needed = next(
                (size for size, mean in zip(sizes, means, strict=True) if mean >= np.mean(full) - CLOSE), None
            )
            points = " ".join(f"{size}:{100 * mean:.1f}" for size, mean in zip(sizes, means, strict=True))
            print(
                f"  {way:22} labels needed {needed or f'more than {sizes[-1]}'}; mean {means.mean():.4f}; {points}",
                flush=True,
            )
        if options.output:
            options.output.write_text(json.dumps({"full": full, "curves": curves}))


if __name__ == "__main__":
    main()
