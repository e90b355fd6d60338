"""Extraction: the features of each image, computed once and kept in the store.

    index + trunks + store → what is missing is computed (see `worker`) → Features

Mostly there is one trunk. Of several each has its own shelf, and their features are joined as they are read, see
`Runner`. Comes after split, before fit. Views are augmentations: the training images
have as many as are wanted and as the disk has room for, the others none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from regraft.core.errors import StoreError
from regraft.core.progress import log
from regraft.core.results import Result
from regraft.core.rng import derive
from regraft.core.text import count
from regraft.data.index import PARTS, Index, Row
from regraft.data.split import group_numbers
from regraft.features.augmentation import View
from regraft.features.fill import fill, fitting_views, passes, reasons_of, settled_shelves
from regraft.features.poses import Pose
from regraft.features.store.shelf import MissingRows, Shelf
from regraft.features.store.store import Store, room
from regraft.features.unit_shelf import UnitShelf
from regraft.features.worker import Task, broken, compute, key
from regraft.features.write import write
from regraft.inference.runner import Runner
from regraft.network.trunk import Tail, Trunk

BATCH = 256  # rows that are read at once


def stream(
    index: Index, runner: Runner, store: Store, poses: Sequence[Pose] = ()
) -> Iterator[tuple[list[Row], np.ndarray]]:
    """Yield the used rows in order, a few at a time, without storing their features: (rows, features).

    store:    where each trunk's converted network is kept.
    rows:     those that failed are marked broken.
    features: (n, *runner.output_shape) float32, for the rows that are not; with poses as many more, those of an image
              after it.
    """
    shelves = settled_shelves(index, runner, store)
    for batch in compute(
        [Task(row, (None, *poses)) for row in index.used], runner, *(shelf.folder for shelf in shelves)
    ):
        rows = Index(tuple(batch.rows)).mark_broken(reasons_of(batch.failures)).rows
        yield list(rows), runner.join(batch.features)


def extract(
    index: Index,
    runner: Runner,
    store: Store,
    views: Sequence[View | Pose] = (),
    *,
    limit: float | None = None,
    check: Callable[[Index], None] | None = None,
) -> Features:
    """Return the features of the used rows, computing only those that the store lacks.

    runner: of the trunks, whose precision is settled here, and whose scales are, if they are not known.
    views:  wanted of each row of the training part, or of every row if there are no parts.
    limit:  GB that the store may take; None: what the disk has.
    check:  called with the index, broken rows marked, before any view is computed, and may raise.

    If there is no room for all, there are fewer views. Maps for a tail that have no room even without views are not
    stored but computed whenever they are read; pooled features, which are small, are refused. What is done is logged.

    Each few seconds' work is durable: a run that was stopped goes on from there. Rows found broken are marked so in
    the result's index. Raises StoreError if the disk has no room, before any feature is computed, or refuses;
    RefusedFile if the trunk's features are not finite.
    """
    shelves = settled_shelves(index, runner, store)
    fitting = fitting_views(index, runner, shelves, views, room(store.folder, limit))
    if fitting is None:
        return Features(index.mark_broken(reasons_of(broken(index.used.rows))), runner, shelves, stored=False)
    unread: dict[str, str] = {}
    for wanted in dict.fromkeys([() if check else fitting, fitting]):
        while todo := passes(index, shelves, wanted, unread):  # again only if a file is unread: it may have a copy
            for numbers, tasks in todo.items():
                unread |= fill([shelves[number] for number in numbers], tasks, runner.only(numbers))
        errors = {key: why for shelf in shelves for key, why in shelf.errors([row.key for row in index.used]).items()}
        marked = index.mark_broken({row.id: errors[row.key] for row in index.used if row.key in errors} | unread)
        if check:
            check(marked)
    features = Features(marked, runner, shelves, views=fitting)
    return features if runner.scales else features.scaled()


class Features(Result):
    """The features of an index's used rows, read from the store as they are asked for.

    index:  the whole index, the rows that were found broken marked so.
    rows:   the used rows, in order; row number k here is features[k].
    runner: what computed them, and computes what is missing.
    stored: whether they are on the disk; otherwise each reading computes them.
    tail:   the network above the cut, if one is to be trained on them.

    Reads as an array does, (len, *shape of one image) float32; a row that
    the disk has lost or damaged is computed again.
    """

    def __init__(
        self,
        index: Index,
        runner: Runner,
        shelves: Sequence[Shelf | UnitShelf],
        *,
        tail: Tail | None = None,
        views: Sequence[View | Pose] = (),
        view: View | Pose | None = None,
        fresh_view: View | None = None,
        stored: bool = True,
    ) -> None:
        self.index = index
        self.rows = index.used.rows
        self.runner = runner
        self.stored = stored
        self.tail = tail
        self._shelves = tuple(shelves)
        self._views = tuple(views)
        self._view = view
        self._fresh_view = fresh_view

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Features: {self.text()}>"

    def text(self) -> str:
        """Return in a line how many there are, of what shape, and what computed them."""
        views = f" and {len(self._views)} augmented views of each training image" if self._views else ""
        recipes = [trunk.recipe for trunk in self.runner.trunks]
        by = " and ".join(f"{recipe.architecture} cut at {recipe.cut}" for recipe in recipes)
        return f"{count(self, 'image')}{views}, {self.shape[1:]} each, by {by}"

    def to_dict(self) -> dict[str, Any]:
        """Return what they are as JSON-able data, without the numbers."""
        trunks = self.runner.trunks
        return {
            "source": self.index.name,
            "images": len(self),
            "shape": list(self.shape[1:]),
            "views": len(self._views),
            "parts": {part: len(rows) for part in PARTS if (rows := self.index.part(part))},
            **_of_network(trunks[0]),
            **({"joined": [_of_network(trunk) for trunk in trunks[1:]]} if len(trunks) > 1 else {}),
            "stored": self.stored,
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write them to a file: .npz or .parquet with the numbers, .html or .json with what they are.

        overwrite: replace a file of this name, if regraft wrote it.
        """
        if Path(path).suffix.lower() in (".npz", ".parquet"):
            write(self, Path(path), overwrite=overwrite)
        else:
            super().save(path, overwrite=overwrite)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def trunk(self) -> Trunk:
        """The trunk, in the precision in which it computed them; raises UsageError if there are several."""
        return self.runner.trunk

    @property
    def store(self) -> Path:
        """The folder of the store that they are read from."""
        return self._shelves[0].folder.parent

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, …), as NumPy has it."""
        return (len(self), *self.runner.output_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always float32."""
        return np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return a copy of these rows: a number, a slice, numbers or booleans, as NumPy takes them."""
        numbers = np.arange(len(self))[rows]
        features = self._read([self.rows[number] for number in np.ravel(numbers)])
        return features.reshape(*np.shape(numbers), *self.runner.output_shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows, for `np.asarray`."""
        if copy is False:
            raise ValueError("Features are read from the disk; they can't become an array without a copy.")
        return self[:].astype(dtype or np.float32, copy=False)

    def part(self, name: str) -> Features:
        """Return the features of one part: "train", "validation" or "test"; views belong to the training part."""
        part = self.with_index(self.index.part(name))
        return part if name == "train" else part.without_views()

    def with_index(self, index: Index) -> Features:
        """Return the features of the used rows of another index over the same images."""
        return self._changed(index=index)

    def without_views(self) -> Features:
        """Return the same features of the images as they are, alone."""
        return self._changed(views=(), view=None, fresh_view=None)

    def scaled(self) -> Features:
        """Return the same features, each trunk's divided by their root mean square over the training part's images.

        Without parts they are over all images. No label is used, and no view.
        """
        part = self.part("train") if any(row.part == "train" for row in self.rows) else self.without_views()
        sums = np.zeros(len(self._shelves))
        for start in range(0, len(part), BATCH):
            features = part._read_each(part.rows[start : start + BATCH])
            sums += [np.square(part.runner.rooted(rows), dtype=np.float64).mean() * len(rows) for rows in features]
        scales = np.sqrt(sums / max(1, len(part))).astype(np.float32)  # what sums by another order differ in is rounded
        return self._changed(runner=self.runner.scaled([float(scale) or 1.0 for scale in scales]))

    def with_tail(self, tail: Tail | None) -> Features:
        """Return the same features, of maps, with the network above them, to be trained."""
        return self._changed(tail=tail)

    @property
    def views(self) -> tuple[Features, ...]:
        """The stored augmentations: for each the features of the same rows."""
        return tuple(self._changed(views=(), view=view) for view in self._views)

    def with_fresh(self, view: View) -> Features:
        """Return the same features, of which `fresh` gives new views like this one."""
        return self._changed(fresh_view=view)

    @property
    def fresh(self) -> Callable[[int], Features] | None:
        """What gives for an epoch's number the same rows, augmented again, computed whenever they are read; or None."""
        fresh = self._fresh_view
        if fresh is None:
            return None
        return lambda number: self._changed(
            view=dataclasses.replace(fresh, number=number), fresh_view=None, stored=False
        )

    def labels(self, classes: Sequence[str]) -> np.ndarray:
        """Return each row's label as its position in `classes`, (n,) int64; raise DataError for another label.

        Where an image may have several: 1 for each that it has, 0 for the others, (n, classes) float32.
        """
        used = self.index.used
        if self.index.multilabel:
            return np.array(used.label_flags(classes), np.float32).reshape(len(self), len(classes))
        return np.array(used.label_codes(classes), np.int64)

    def groups(self) -> np.ndarray:
        """Return a number for each row, (n,) int64, equal for copies and for rows of one group, also in a chain."""
        return np.array(group_numbers(self.rows), np.int64)

    def keys(self, groups: np.ndarray) -> np.ndarray:
        """Return a number for each row, (n,) uint64, equal within its group, that only its group's pictures decide."""
        pictures = np.array([derive(0, "key", row.picture) for row in self.rows], np.uint64)
        least = np.full(groups.max(initial=0) + 1, np.iinfo(np.uint64).max)
        np.minimum.at(least, groups, pictures)
        keys: np.ndarray = least[groups]
        return keys

    def _changed(self, **changes: Any) -> Features:
        own = {
            "index": self.index,
            "runner": self.runner,
            "shelves": self._shelves,
            "tail": self.tail,
            "stored": self.stored,
            "views": self._views,
            "view": self._view,
            "fresh_view": self._fresh_view,
        }
        return Features(**{**own, **changes})

    def _read(self, rows: Sequence[Row]) -> np.ndarray:
        return self.runner.join(self._read_each(rows)) if self.stored else self._compute(rows)

    def _read_each(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Return the features of these rows by each trunk."""
        return [self._read_shelf(number, rows) for number in range(len(self._shelves))]

    def _read_shelf(self, number: int, rows: Sequence[Row]) -> np.ndarray:
        shelf, shape = self._shelves[number], self.runner.trunks[number].output_shape
        keys = [key(row, self._view) for row in rows]
        try:
            return shelf.read(keys, shape)
        except MissingRows as lost:
            log.warning("%s Computing them now.", lost)
            missing = {key(row, self._view): row for row in rows}
            tasks = [Task(missing[name], (self._view,)) for name in lost.ids]
            fill([cast(Shelf, shelf)], tasks, self.runner.only([number]))
            return shelf.read(keys, shape)

    def _compute(self, rows: Sequence[Row]) -> np.ndarray:
        features = np.empty((len(rows), *self.runner.output_shape), np.float32)
        done, folders = 0, [shelf.folder for shelf in self._shelves]
        for batch in compute([Task(row, (self._view,)) for row in rows], self.runner, *folders):
            for failure in batch.failures:
                raise StoreError(f"{failure.row.path} could be read before and can't be now: {failure.reason}")
            joined = self.runner.join(batch.features)
            features[done : done + len(joined)] = joined
            done += len(joined)
        return features


def _of_network(trunk: Trunk) -> dict[str, Any]:
    """Return what computed features, as JSON-able data."""
    recipe = trunk.recipe
    return {
        "architecture": recipe.architecture,
        "cut": recipe.cut,
        "input": recipe.preprocess.size,
        "precision": trunk.choice.precision,
    }
