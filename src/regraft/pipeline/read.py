"""`regraft.read` and `regraft.split`: from a source to an Index with parts; what the source loses is said once.

What `train` would refuse is decided here alone, so that `inspect` foretells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.core.errors import DataError
from regraft.core.options import takes_options
from regraft.core.progress import log
from regraft.core.text import listed
from regraft.data import read as reading
from regraft.data import split as splitting
from regraft.data import usable
from regraft.data.index import Index
from regraft.data.read import SourceOptions
from regraft.data.split import SplitOptions
from regraft.data.usable import BrokenOptions
from regraft.pipeline.near_duplicates import tied
from regraft.pipeline.options import SplitSourceOptions


@takes_options(SourceOptions)
def read(source: Any, labels: Any = None, *, options: SourceOptions) -> Index:
    """Return the Index of a source; the pixels are looked at later, by `inspect` or `extract`.

    source: a folder of class folders (or of part folders that hold class folders), a .zip or .tar[.gz] of one, a CSV,
            a pandas DataFrame, or a list of paths.
    labels: one per path, if `source` is a list: names or numbers, lists of them for multilabel images, or one-hot rows.
    Raises DataError if the source is not usable as a whole.
    """
    return read_source(source, options, labels=labels)


def read_source(
    source: Any, options: SourceOptions, broken: BrokenOptions | None = None, *, labels: Any = None
) -> Index:
    """Return the index of a source, and log what it loses: classes without images, pictures without labels.

    broken: how many images may be broken; None: any number.
    Raises DataError if more are, by what can be told without decoding them.
    """
    index = reading.read(source, labels, options=options)
    if broken is not None:
        usable.check(index, broken.max_broken)
    if index is not source:
        for note in usable.notes(index):
            log.warning(note)
    return index


@takes_options(SplitSourceOptions)
def split(index: Index, *, keep: Mapping[str, str] | None = None, options: SplitSourceOptions) -> Index:
    """Return the index with a part for every used row; `.train`, `.validation` and `.test` give the parts.

    index: an Index, or a source as for `read`.
    keep:  id → part of an earlier split; images that are in it stay where they were.
    Raises DataError if a class is too small; StoreError if the store, which keeps the fingerprints of near-duplicates,
    refuses.
    """
    return splitting.split(tied(reading.read(index), options.store, options.split), options=options.split, keep=keep)


def divided(index: Index, options: SplitOptions, keep: Mapping[str, str] | None = None) -> Index:
    """Return an index with parts, as `train` needs it; without where cross-validation is the rule.

    keep: id → part of the model to continue from; then there are parts always.
    Raises DataError for what can't be trained on: one class, a class that is too small or has no training image,
    nothing held out.
    """
    check_classes(index)
    if keep is None and splitting.fold_count(index, options):
        return index
    index = splitting.split(index, options=options, keep=keep)
    _check_held_out(index)
    if absent := sorted(set(index.classes) - set(index.train.classes)):
        raise DataError(
            f"{listed(absent)}: no image in the training part of {index.name}; add some, or leave the class out."
        )
    return index


def refusal(index: Index) -> str:
    """Return why `train` with its defaults would refuse an index that is tied and decoded; empty if it would not."""
    try:
        usable.check(index, BrokenOptions().max_broken)
        divided(index, SplitOptions())
    except DataError as error:
        return str(error).partition(":\n")[0].removesuffix(".")
    return ""


def check_classes(index: Index) -> None:
    """Raise DataError for an index of one class."""
    if len(index.classes) == 1 and not index.multilabel:
        raise DataError(
            f"{index.name} has one class only ({index.classes[0]}); a classifier needs two or more. Add a folder with "
            f"pictures of what else it may see, such as other/ beside {index.classes[0]}/."
        )


def _check_held_out(index: Index) -> None:
    if not (index.test or index.validation):
        if lost := usable.lost_parts(index):
            raise DataError(
                f"The {' and the '.join(lost)} part of {index.name} has no usable image, so nothing could be measured:"
                f"{usable.listed_reasons(index.where(lambda row: row.part in lost))}"
            )
        raise DataError(
            f"{index.name} has a training part only, so nothing could be measured. Add a test or a validation part, "
            "or take the class folders out of the part folder: then they are split."
        )
