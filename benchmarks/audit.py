"""How much of what is wrong with a set of photographs `inspect --deep` finds, where the truth is known.

Four trials, each with recall (the share of the faults that is found) and precision (the share of what is found that is
a fault, as far as the truth is known: a fault that nobody knew of counts as a false alarm).

- Near-duplicates made up: of 300 photographs of cats-dogs an altered copy each (compressed, resized, cropped, mirrored,
  framed, lightened, under a bar, tilted), among all 3,000.
- Near-duplicates of Pokémon, counted.
- Labels: the Pokémon pictures that stand under two labels; cats-dogs and Pokémon, one of each copy and without these,
  with 5 % of the labels changed by seed. Beside ours are cleanlab's rules on the same probabilities, if installed.
- Outliers: 20 pictures each of Pokémon and CIFAR-10 planted in cats-dogs.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import _bench
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from regraft.audit import label_errors
from regraft.data.decode import decode
from regraft.data.index import Index, Row
from regraft.data.read import SourceOptions, read
from regraft.features.fingerprints import compare
from regraft.features.store.store import Store
from regraft.pipeline import audit
from regraft.pipeline.extract import extract
from regraft.training import cross_validation
from regraft.training.examples import Examples

Picture = Image.Image


def main() -> None:
    arguments = _bench.parser(__doc__, repeats=5).parse_args()
    trials = {"made-up copies": made_up, "pokemon": pokemon, "labels": flipped, "outliers": planted}
    for name, trial in trials.items():
        if arguments.only and name not in arguments.only:
            continue
        for title, notes in trial(arguments):
            text = ", ".join(
                f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in notes.items()
            )
            print(f"{title}: {text}", flush=True)
            if arguments.output:
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"benchmark": "audit", "contestant": title, "notes": notes}) + "\n")


Results = Iterator[tuple[str, Mapping[str, Any]]]


def scores(detected: set[Any], truth: set[Any]) -> dict[str, Any]:
    right = len(detected & truth)
    return {
        "faults": len(truth),
        "found": len(detected),
        "recall": right / max(1, len(truth)),
        "precision": right / max(1, len(detected)),
    }


# Near-duplicates


def made_up(arguments: argparse.Namespace) -> Results:
    rng = np.random.default_rng(0)
    with _bench.photographs(arguments.data, "cats-dogs") as source, tempfile.TemporaryDirectory() as folder:
        index = read(source).used
        chosen = rng.choice(len(index), 30 * len(CHANGES), replace=False)
        of = {}
        for position, number in enumerate(chosen):
            row, kind = index.rows[number], list(CHANGES)[position % len(CHANGES)]
            path = Path(folder) / str(row.label) / f"{position} {kind}.png"
            path.parent.mkdir(exist_ok=True)
            CHANGES[kind](Image.fromarray(decode(row.location.read())), rng).save(path)
            of[f"{row.label}/{path.name}"] = (row.path, kind)
        copies = (dataclasses.replace(row, part="train") for row in read(folder).used)
        features = extract(compare(index.with_rows([*index.rows, *copies]), Store()), views=0)
        rows, audited = features.rows, audit.examine(features)
        tied = {frozenset(rows[at].path for at in pair) for pair in together(range(len(rows)), near(rows))}
        shown = {frozenset(row.path for row in duplicates.rows) for duplicates in audited.possible}
        truth = {frozenset((path, origin)): kind for path, (origin, kind) in of.items()}
        for name, pairs in {"tied": tied, "tied or shown": tied | shown}.items():
            yield f"near-duplicates made up, {name}", scores(pairs, set(truth))
            detected = Counter(truth[pair] for pair in pairs & truth.keys())
            yield f"{name}, of 30 of each kind", {kind: detected[kind] for kind in CHANGES}
        others = sorted(" = ".join(sorted(pair)) for pair in (tied | shown) - truth.keys())
        yield "other pairs", {"pairs": others[:20]}


def near(rows: Sequence[Row]) -> list[int]:
    """Return a number for each row, equal for versions of one picture."""
    return compare(Index(tuple(rows)), Store()).picture_codes()


def _crop(image: Picture, rng: np.random.Generator, most: float) -> Picture:
    left, top, right, bottom = rng.uniform(0, most, 4)
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))


def _compressed(image: Picture, rng: np.random.Generator) -> Picture:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=int(rng.integers(10, 60)))
    return Image.open(file)


def _resized(image: Picture, rng: np.random.Generator) -> Picture:
    return image.resize(tuple(max(32, int(side * rng.uniform(0.25, 1.5))) for side in image.size))


def _framed(image: Picture, rng: np.random.Generator) -> Picture:
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    return ImageOps.expand(image, int(rng.uniform(0.02, 0.15) * min(image.size)), colour)


def _lightened(image: Picture, rng: np.random.Generator) -> Picture:
    brighter = ImageEnhance.Brightness(image).enhance(rng.uniform(0.6, 1.4))
    return ImageEnhance.Color(ImageEnhance.Contrast(brighter).enhance(rng.uniform(0.6, 1.4))).enhance(rng.uniform(0, 2))


def _under_a_bar(image: Picture, rng: np.random.Generator) -> Picture:
    image, (width, height) = image.copy(), image.size
    ImageDraw.Draw(image).rectangle((0, int((1 - rng.uniform(0.05, 0.12)) * height), width, height), fill="white")
    return image


CHANGES: dict[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "compressed": _compressed,
    "resized": _resized,
    "cropped to 10 %": lambda image, rng: _crop(image, rng, 0.1),
    "cropped to 20 %": lambda image, rng: _crop(image, rng, 0.2),
    "mirrored": lambda image, _: ImageOps.mirror(image),
    "mirrored, cropped": lambda image, rng: _crop(ImageOps.mirror(image), rng, 0.1),
    "framed": _framed,
    "lightened": _lightened,
    "under a bar": _under_a_bar,
    "tilted": lambda image, rng: image.rotate(rng.uniform(-4, 4)),
}


# Pokémon


def pokemon(arguments: argparse.Namespace) -> Results:
    with _bench.photographs(arguments.data, "pokemon") as source:
        index = read(source, options=SourceOptions(conflicts="keep"))
        features = extract(compare(index, Store()), views=0)
        rows = features.rows
        result = audit.examine(features)
        yield (
            "pokemon, one file of each",
            {
                "distinct pictures": len({row.id for row in rows}),
                "groups of near-duplicates": len(result.near_duplicates),
                "pictures in them": sum(len({row.id for row in copies.rows}) for copies in result.near_duplicates),
                "of them under several labels": sum(len(copies.labels) > 1 for copies in result.near_duplicates),
            },
        )
        labels = defaultdict(set)
        for row in rows:
            labels[row.id].add(row.label)
        conflicts = {id for id, names in labels.items() if len(names) > 1}
        contradicted_ids = {row.id for error in result.label_errors for row in error.rows}
        yield "pokemon, pictures under two labels found as likely label errors", scores(contradicted_ids, conflicts)
        first = [error.rows[0].id in conflicts for error in result.label_errors[: len(conflicts)]]
        yield f"pokemon, of the {len(first)} most certain", {"under two labels": sum(first)}
        names = [
            f"{error.rows[0].path} as {error.suggested}"
            for error in result.label_errors
            if error.rows[0].id not in conflicts
        ]
        yield "pokemon, other likely label errors", {"count": len(names), "first": names[:15]}
        yield "pokemon, outliers", {"files": [outlier.rows[0].path for outlier in result.outliers]}


def together(items: Sequence[int], groups: Sequence[Any]) -> set[tuple[int, int]]:
    """Return all pairs of items of one group."""
    members = defaultdict(list)
    for item, group in zip(items, groups, strict=True):
        members[group].append(item)
    return {pair for some in members.values() for pair in combinations(some, 2)}


# Labels


def flipped(arguments: argparse.Namespace) -> Results:
    for name in ("cats-dogs", "pokemon"):
        with _bench.photographs(arguments.data, name) as source:
            index = read(source).used
            firsts = {row.id: dataclasses.replace(row, part=None) for row in reversed(index.rows)}
            features = extract(index.with_rows(firsts.values()), views=0)
            groups = np.array(near(features.rows))
        inputs, labels, classes = features[:], features.labels(index.classes), len(index.classes)
        yield f"{name}, labels as they are", {"likely errors": len(contradicted(inputs, labels, groups, classes, 0))}
        collected: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for seed in range(arguments.repeats):
            for rule, notes in _flip(inputs, labels, groups, classes, seed):
                collected[rule].append(notes)
        for rule, all in collected.items():
            means = {key: float(np.mean([notes[key] for notes in all])) for key in all[0]}
            yield f"{name}, 5 % of labels changed, mean of {len(all)} seeds, {rule}", means


def probabilities(inputs: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int, seed: int) -> np.ndarray:
    return cross_validation.cross_validate(
        Examples(inputs, labels, groups), classes, repeats=label_errors.REPEATS, seed=seed
    ).mean(axis=0)


def contradicted(inputs: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int, seed: int) -> list[int]:
    return label_errors.contradicted(probabilities(inputs, labels, groups, classes, seed), labels)[0].tolist()


def _flip(inputs: np.ndarray, labels: np.ndarray, groups: np.ndarray, classes: int, seed: int) -> Results:
    rng = np.random.default_rng(seed)
    changed = rng.choice(len(labels), round(0.05 * len(labels)), replace=False)
    noisy, truth = labels.copy(), set(changed.tolist())
    noisy[changed] = (noisy[changed] + rng.integers(1, classes, len(changed))) % classes
    predictions = probabilities(inputs, noisy, groups, classes, seed)
    ours = label_errors.contradicted(predictions, noisy)[0].tolist()
    yield "ours", scores(set(ours), truth)
    yield "the most certain 5 % of ours", scores(set(ours[: len(truth)]), truth)
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        return
    for rule in ("prune_by_noise_rate", "both", "confident_learning", "predicted_neq_given"):
        issues = find_label_issues(noisy, predictions.astype(float), filter_by=rule, n_jobs=1)
        yield f"cleanlab's {rule}", scores(set(np.flatnonzero(issues).tolist()), truth)


# Outliers


def planted(arguments: argparse.Namespace) -> Results:
    rng = np.random.default_rng(0)
    with _bench.photographs(arguments.data, "cats-dogs") as source:
        index = read(source).used
        rows, truth = list(index.rows), set()
        yield (
            "cats-dogs as it is",
            {"outliers": [outlier.rows[0].path for outlier in audit.examine(extract(index, views=0)).outliers]},
        )
        for name in ("pokemon", "cifar10-half"):
            with _bench.photographs(arguments.data, name) as other:
                strangers = read(other).used.rows
                for number in rng.choice(len(strangers), 20, replace=False):
                    row = strangers[number]
                    path = f"{name}/{row.path}"
                    rows.append(dataclasses.replace(row, path=path, label=str(rng.choice(index.classes)), part="train"))
                    truth.add(path)
                features = extract(index.with_rows(rows), views=0)
            detected = {row.path for outlier in audit.examine(features).outliers for row in outlier.rows}
            yield f"planted in cats-dogs, up to {name}", scores(detected, truth)


if __name__ == "__main__":
    main()
