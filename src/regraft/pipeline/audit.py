"""`regraft inspect --deep`: read → extract → near-copies → cross-validated labels → outliers. No file is touched.

What the frozen network says of the images comes from the store, so a second
look costs little. In memory are the features of the pictures, once, the grey
squares of those that have a candidate for a near-copy, and a few numbers for
each picture; nothing grows with the square of their number.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core.errors import UsageError
from regraft.core.machine import cores
from regraft.core.options import merged
from regraft.core.progress import progress
from regraft.core.text import listed
from regraft.data import read as reading
from regraft.data.index import Index, Row
from regraft.data.read import SourceOptions
from regraft.network.options import FeatureOptions

if TYPE_CHECKING:
    import numpy as np

    from regraft.audit.findings import Audit, Duplicates, LabelError, Outlier
    from regraft.features.extract import Features

FEWEST = 5  # pictures of a class, copies counted once, from which its labels are judged
REPEATS = 3  # of the cross-validation; their mean judges
BESIDE = 3  # nearest pictures that are shown with a finding
NAMED = 5  # classes in a note


@merged
@dataclass(frozen=True, kw_only=True)
class DeepOptions(FeatureOptions, SourceOptions):
    """The choices of `regraft inspect --deep`."""


def inspect(source: Any, options: DeepOptions) -> Audit:
    """Return what needs a second look in labelled images: near-copies, labels in doubt, pictures like no other.

    source: an Index, or a source as for `read`. Pictures under two labels are kept, to be judged: with `conflicts`
            "error" they are refused.
    Raises DataError if nothing in the source can be used, UsageError for features that are maps; WeightsMissing,
    RefusedFile, StoreError as `extract` does.
    """
    from regraft.pipeline import extract as extraction

    if options.trains_tail or options.pool == "none":
        raise UsageError("--deep compares pooled features; leave --tail off, --pool mean and --cut above the input.")
    keep = dataclasses.replace(options, conflicts="error" if options.conflicts == "error" else "keep")
    index = source if isinstance(source, Index) else reading.read(source, options=keep)
    return examine(extraction.extract(index, options), options.seed)


def examine(features: Features, seed: int = 0) -> Audit:
    """Return the findings among the used rows of pooled features."""
    from regraft.audit import suspects
    from regraft.audit.findings import Audit
    from regraft.data.inspect import Inspection

    pictures = _Pictures.of(features)
    numbers, cosines = suspects.neighbours(pictures.features[:])
    pairs = near_duplicates(pictures.rows, numbers, cosines)
    near = _Neighbours(numbers, cosines, _groups(pictures, pairs))
    found, notes = _suspects(pictures, near, seed)
    copies, outliers = _copies(pictures, pairs), _outliers(pictures, near)
    return Audit(Inspection(features.index), tuple(copies), tuple(found), tuple(outliers), tuple(notes))


@dataclass(frozen=True)
class _Pictures:
    """The files of a source, those of equal bytes and label together: a picture, which is looked at once.

    features: a row for each picture, that of its first file.
    files:    all its rows.
    """

    features: Features
    files: list[tuple[Row, ...]]

    @classmethod
    def of(cls, features: Features) -> _Pictures:
        found: defaultdict[tuple[str, str | None], list[Row]] = defaultdict(list)
        for row in features.rows:
            found[row.id, row.label].append(row)
        firsts = features.index.with_rows(rows[0] for rows in found.values())
        return cls(features.without_views().with_index(firsts), [tuple(rows) for rows in found.values()])

    def __len__(self) -> int:
        return len(self.files)

    @property
    def rows(self) -> Sequence[Row]:
        """The first file of each."""
        return self.features.rows

    def take(self, numbers: Iterable[int]) -> Features:
        """Return the features of some of them."""
        return self.features.with_index(self.features.index.with_rows(self.rows[number] for number in numbers))


@dataclass(frozen=True)
class _Neighbours:
    """Which pictures are near which: `numbers` (n, k), nearest first, their `cosines` (n, k), and `groups` (n,).

    groups: equal for copies, near-copies and what the source ties together, also in a chain.
    """

    numbers: np.ndarray
    cosines: np.ndarray
    groups: np.ndarray

    def beside(self, number: int) -> list[int]:
        """Return the nearest pictures that are no copies of this one."""
        near = self.numbers[number]
        return [int(other) for other in near[self.groups[near] != self.groups[number]][:BESIDE]]


# Near-copies


def near_duplicates(rows: Sequence[Row], numbers: np.ndarray, cosines: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of rows that show one picture, by their bytes or their pixels, as many as tie all such together.

    numbers, cosines: of each row's neighbours, see `suspects.neighbours`.
    """
    from scipy.cluster.hierarchy import DisjointSet

    from regraft.audit.near_duplicates import ALIKE, likeness

    firsts: dict[str, int] = {}
    pairs = [(first, at) for at, row in enumerate(rows) if (first := firsts.setdefault(row.id, at)) != at]
    known = DisjointSet(range(len(rows)))
    for one, other in pairs:
        known.merge(one, other)
    candidates = _candidates(numbers, cosines)
    squares = _squares(rows, sorted({number for pair in candidates for number in pair}))
    with progress("comparing pictures", len(candidates)) as advance:
        for one, other in candidates:
            advance(1)
            if known.connected(one, other) or not {one, other} <= squares.keys():
                continue
            if likeness(squares[one], squares[other]) >= ALIKE:
                known.merge(one, other)
                pairs.append((one, other))
    return pairs


def _candidates(numbers: np.ndarray, cosines: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs that are near enough by their features, each once, the nearest first."""
    import numpy as np

    from regraft.audit.near_duplicates import COSINE, NEAREST

    one, place = np.nonzero(cosines[:, :NEAREST] >= COSINE)
    order = np.argsort(-cosines[one, place], kind="stable")
    pairs = zip(one[order].tolist(), numbers[one, place][order].tolist(), strict=True)
    return list(dict.fromkeys((min(pair), max(pair)) for pair in pairs))


def _squares(rows: Sequence[Row], numbers: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the grey squares of these rows; one that has gone or changed meanwhile has none."""
    squares: dict[int, np.ndarray] = {}
    with ThreadPoolExecutor(cores()) as pool, progress("reading pictures", len(numbers)) as advance:
        for number, square in zip(numbers, pool.map(lambda number: _square(rows[number]), numbers), strict=True):
            if square is not None:
                squares[number] = square
            advance(1)
    return squares


def _square(row: Row) -> np.ndarray | None:
    from regraft.audit import near_duplicates as pixels
    from regraft.data.decode import BrokenImage, decode

    try:
        return pixels.grey(decode(row.location.read(), least=pixels.SIDE))
    except (OSError, ValueError, BrokenImage):
        return None


def _copies(pictures: _Pictures, pairs: Sequence[tuple[int, int]]) -> list[Duplicates]:
    """Return the files that show one picture together; those under several labels first, then in several parts."""
    from regraft.audit import suspects
    from regraft.audit.findings import Duplicates

    found: defaultdict[int, list[Row]] = defaultdict(list)
    for group, files in zip(suspects.tied(len(pictures), pairs).tolist(), pictures.files, strict=True):
        found[group] += files
    groups = [Duplicates.of(files) for files in found.values() if len(files) > 1]
    return sorted(groups, key=lambda copies: (len(copies.labels) == 1, len(copies.parts) <= 1))


def _groups(pictures: _Pictures, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the group of each picture (n,), by the pairs and by what the source ties together, also in a chain."""
    from regraft.audit import suspects

    count = len(pictures)
    bundles = [(at, count + bundle) for at, bundle in enumerate(pictures.features.groups().tolist())]
    return suspects.tied(2 * count, [*pairs, *bundles])[:count]


# Labels and outliers


def _suspects(pictures: _Pictures, near: _Neighbours, seed: int) -> tuple[list[LabelError], list[str]]:
    """Return the pictures whose label is in doubt, and in words what could not be judged."""
    from regraft.audit import suspects
    from regraft.audit.findings import LabelError
    from regraft.training import cross_validation
    from regraft.training.examples import Examples

    classes, notes = _judged_classes(pictures, near.groups)
    if len(classes) < 2:
        return [], notes
    judged = [number for number, row in enumerate(pictures.rows) if row.label in classes]
    features = pictures.take(judged)
    examples = Examples(features, features.labels(classes), near.groups[judged])
    shares = cross_validation.cross_validate(examples, len(classes), repeats=REPEATS, seed=seed).mean(axis=0)
    found = []
    for at, seen in zip(*suspects.contradicted(shares, examples.labels), strict=True):
        of_label, number = shares[at, examples.labels[at]], judged[at]
        beside = tuple(pictures.rows[other] for other in near.beside(number))
        found.append(
            LabelError(pictures.files[number], classes[seen], float(shares[at, seen]), float(of_label), beside)
        )
    return found, notes


def _judged_classes(pictures: _Pictures, groups: np.ndarray) -> tuple[list[str], list[str]]:
    """Return the classes that are large enough for a cross-validation, and in words which are not."""
    separate: defaultdict[str, set[int]] = defaultdict(set)
    for row, group in zip(pictures.rows, groups.tolist(), strict=True):
        separate[row.label or ""].add(group)
    classes = sorted(label for label, found in separate.items() if len(found) >= FEWEST)
    few = sorted(separate.keys() - set(classes))
    if len(classes) < 2:
        return classes, [f"No label was judged: that takes two classes of {FEWEST} separate pictures or more each."]
    return classes, [
        f"Not judged, with fewer than {FEWEST} separate pictures each: {listed(few, NAMED)}."
    ] if few else []


def _outliers(pictures: _Pictures, near: _Neighbours) -> list[Outlier]:
    """Return the pictures that are far from all others, the farthest first."""
    from regraft.audit import suspects
    from regraft.audit.findings import Outlier

    distances = suspects.distances(near.numbers, near.cosines, near.groups)
    return [
        Outlier(
            pictures.files[number],
            float(distances[number]),
            tuple(pictures.rows[other] for other in near.beside(number)),
        )
        for number in suspects.far_out(distances).tolist()
    ]
