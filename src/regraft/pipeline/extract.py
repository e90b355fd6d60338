"""`regraft.extract`: from an index to features, by way of the network, the augmented views and the store."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.options import select, takes_options
from regraft.core.progress import log, preparing
from regraft.core.text import count
from regraft.data import read as reading
from regraft.data import usable
from regraft.data.index import Index
from regraft.data.usable import SHOWN_FILES, BrokenOptions
from regraft.features.options import AugmentationOptions, FeatureOptions
from regraft.pipeline import units
from regraft.pipeline.options import ExtractOptions, TrainingFeatureOptions
from regraft.pipeline.own_module import takes_module
from regraft.pipeline.read import read_source
from regraft.pipeline.units import Written

if TYPE_CHECKING:
    from regraft.features.extract import Features
    from regraft.inference.runner import CutNetwork


@takes_module
@takes_options(TrainingFeatureOptions)
def extract(index: Any, output: str | Path | None = None, *, options: TrainingFeatureOptions) -> Features | Written:
    """Return the features of the used rows, computing only those that the store does not have.

    The training part's (without parts: all) have stored views beside them, as many as `views` says; `fit` trains on
    them too.

    index:      an Index, a source as for `read`, or images without labels: one, or a folder of them.
    output:     a folder or URL to which the features are written, unit by unit, on whatever `on` names; what is
                written is returned in a line, and the folder is a source for `train`. None: they are returned.
    preprocess: where `backbone` is a torch module (images (n, 3, S, S) float32 → features): how an image enters it, as
                {"size": S, "mean": …, "std": …} or torchvision's transforms of the weights.
    Raises WeightsMissing, RefusedFile, StoreError.
    """
    if output is not None:
        return read_and_write(index, output, select(ExtractOptions, options))
    read = reading.read if reading.has_labels(index) else reading.read_inputs
    features = compute(read(index), options.features, options.augmentation)
    _log_left_out(features.index)
    return features


def read_and_extract(source: Any, options: ExtractOptions) -> Features:
    """Return the features of all images of a source, once its network is known to work."""
    network = build_network(options.features)
    if reading.has_labels(source):
        index = read_source(source, options.source, options.broken)
    else:
        index = reading.read_inputs(source, options.source)
    return check_broken(compute(index, options.features, network=network, broken=options.broken), options.broken)


def read_and_write(source: Any, output: str | Path, options: ExtractOptions) -> Written:
    """Write the features of all images of a source into a folder or under a URL, unit by unit."""
    return units.extract_units(source, output, build_network(options.features).runner, options)


def build_network(options: FeatureOptions) -> CutNetwork:
    """Return the network that the options ask for; raises what is wrong with their words."""
    from regraft.features.store.store import Store
    from regraft.inference import agreement
    from regraft.inference.runner import CutNetwork, Runner
    from regraft.network.build import build_with_tail

    with preparing("Preparing the network"):
        choice = agreement.choose(options.engine)
        if not options.trains_tail:
            store = Store(options.store.store)
            return CutNetwork(Runner([store.trunk(one, choice, options.tail.pool) for one in options.network.networks]))
        trunk, tail = build_with_tail(options.network.networks[0], choice, options.tail)
        return CutNetwork(Runner(trunk), tail)


def compute(
    index: Index,
    options: FeatureOptions,
    augmentation: AugmentationOptions | None = None,
    network: CutNetwork | None = None,
    broken: BrokenOptions | None = None,
) -> Features:
    """Return the features of the used rows of an index.

    augmentation: which views of the training images are added; None: none.
    network:      the network, if it is built already.
    broken:       how many images may be broken; None: any number.
    Raises DataError if more are, before any view is computed.
    """
    from regraft.features import augmentation as augmenting
    from regraft.features import extract as extraction
    from regraft.features.store.store import Store

    runner, tail = network or build_network(options)
    views, stored = [], []
    if augmentation:
        counts = (index.train if index.train else index).class_counts
        seed = options.network.seed
        views = augmenting.wanted(augmentation.number, augmentation.augmentation, seed, list(counts.values()))
        stored = [] if augmentation.augment == "fresh" else views
        if views and augmentation.number == "auto":
            log.info(
                "A class has few images: %d augmented views of each are trained on too; --views 0: none.", len(views)
            )
    store = Store(options.store.store)
    check = functools.partial(usable.check, max_broken=broken.max_broken) if broken else None
    features = extraction.extract(index, runner, store, stored, limit=options.limit.store_limit, check=check)
    fresh = views and (not stored or not features.stored)
    return (features.with_fresh(views[0]) if fresh else features).with_tail(tail)


def _log_left_out(index: Index) -> None:
    """Name what is not used: broken files one by one, the others by their count."""
    broken = index.broken
    for row in broken.rows[:SHOWN_FILES]:
        log.warning("Left out, broken: %s: %s", row.path, row.reason)
    if len(broken) > SHOWN_FILES:
        log.warning("and %d more broken files; `regraft inspect --json` lists all.", len(broken) - SHOWN_FILES)
    if index.ignored:
        first = index.ignored.rows[0]
        log.info("Ignored %s, such as %s: %s", count(index.ignored, "file"), first.path, first.reason)


def check_broken(features: Features, options: BrokenOptions) -> Features:
    """Return the features, and name what is left out; raise DataError if that is more than the options allow."""
    usable.check(features.index, options.max_broken)
    _log_left_out(features.index)
    return features
