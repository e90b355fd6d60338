"""From an index to features: the trunk, the views that are wanted, and the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regraft.core.progress import log
from regraft.data import read as reading
from regraft.data.index import Index
from regraft.data.read import ReadOptions
from regraft.features.options import ViewOptions
from regraft.network.options import FeatureOptions

if TYPE_CHECKING:
    from regraft.features.extract import Features
    from regraft.network.trunk import Trunk


def extract(
    index: Index, options: FeatureOptions, viewing: ViewOptions | None = None, built: Trunk | None = None
) -> Features:
    """Return the features that `options` ask for.

    viewing: says what views of the training images, if any.
    built:   the trunk, if there is one already.
    """
    from regraft.features import augmentation
    from regraft.features import extract as extraction
    from regraft.features.store import Store
    from regraft.network import trunk

    built = built or trunk.build(options, tail=options.trains_tail)
    counts = (index.train if index.train else index).class_counts
    wanted = (
        augmentation.wanted(viewing.number, viewing.augmentation, options.seed, list(counts.values()))
        if viewing
        else []
    )
    if wanted and viewing and viewing.number == "auto":
        log.info("There are few images of a class: %d views of each are learnt from too; --views 0: none.", len(wanted))
    stored = [] if viewing and viewing.augment == "fresh" else wanted
    features = extraction.extract(index, built, Store(options.store), stored, limit=options.store_limit)
    _say_left_out(features.index)
    anew = wanted and (not stored or not features.stored)
    return features.with_fresh(wanted[0]) if anew else features


def _say_left_out(index: Index) -> None:
    """Name what is not used: broken files one by one, the others by their count."""
    broken = index.broken
    for row in broken.rows[: reading.SHOWN_FILES]:
        log.warning("Left out, broken: %s: %s", row.path, row.reason)
    if len(broken) > reading.SHOWN_FILES:
        log.warning("and %d more broken files; `regraft inspect --json` lists all.", len(broken) - reading.SHOWN_FILES)
    if index.ignored:
        first = index.ignored.rows[0]
        log.info("Ignored %d files, such as %s: %s", len(index.ignored), first.path, first.reason)


def checked(features: Features, options: ReadOptions) -> Features:
    """Return the features; raise DataError if more images are broken than the options allow."""
    reading.check_broken(features.index, options.max_broken)
    return features
