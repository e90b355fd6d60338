"""The split: every used image gets a part, train, validation or test.

An index enters, the same index with `part` set leaves. Parts that the source
gives are kept. Otherwise:

1. Versions of one picture (`Row.picture`: equal bytes, near-duplicates), and
   images in one group of the source, form a *group*, also in a chain (a is a
   copy of b, and b in one group with c). A group is never divided. Most groups
   are a single image.
2. A group belongs to the class that most of its images have (ties: by name).
3. The groups of each class are ordered by a hash of the seed and the group's
   own name (its first group in the source, else its id): other rows, their
   order and their paths have no influence.
4. Along this order come test, validation and train. Their boundaries are the
   split's fractions, rounded to whole images, with at least one image a part.
   A group is in the part in which its middle is, so that a part is off by half
   a group at most.
5. If a part has then no image of a class (all are in groups with images of
   other classes, or a group is large), its smallest group that is not needed
   elsewhere is moved there.

So the fractions of every class are exact to the image where groups are single
images, and one more image moves at most one other across each boundary. To
move none, pass the earlier parts as `keep`.

With few images a held-out part says little. `folds` is the alternative: each
image is evaluated with a model that was trained without it.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from typing import Literal

from regraft.core.errors import DataError, UsageError
from regraft.core.options import Options, option, require
from regraft.core.rng import derive, seed_option
from regraft.core.text import listed
from regraft.data.index import PARTS, Index, Row

_ORDER = ("test", "validation", "train")  # along the drawn order
_FRACTIONS = "0.8/0.1/0.1"
_FOLDS = 5
RARE = 10  # images; multilabel images whose rarest label is rarer are not stratified by it
FEW = 30  # images of the smallest class; with fewer, `auto` means cross-validation


@dataclass(frozen=True, kw_only=True)
class SplitOptions(Options):
    """How the images are split where the source does not say."""

    GROUP = "Images"

    split: str = option(
        "auto",
        "fractions of train/validation/test, or of train/test; or 5-fold, for cross-validation; "
        f"auto: {_FRACTIONS}, but {_FOLDS}-fold where a class has fewer than {FEW} images",
        "Main options",
    )
    seed: int = seed_option()
    near_duplicates: Literal["tie", "ignore"] = option(
        "tie",
        "the same picture saved again, resized, mirrored or lightly cropped: tie, so that all its versions are on one "
        "side of a split, or ignore",
    )
    per_class: int | None = option(None, "train on at most so many images of each class, for a trial; none: on all")

    def check(self) -> None:
        """Raise UsageError for invalid fractions or folds, or for `per_class` together with folds."""
        numbers = _numbers(self.split)
        are_fractions = len(numbers) in (2, 3) and min(numbers) > 0 and _whole(numbers) is not None
        require(
            self.split == "auto" or are_fractions or (self.folds or 0) >= 2,
            "split",
            self.split,
            "auto, two or three fractions above 0 that add up to 1, such as 0.8/0.1/0.1 or 0.8/0.2, or folds: 5-fold",
        )
        few = self.per_class
        require(few is None or few >= 1, "per_class", few, "1 or more, or none")
        require(few is None or not self.folds, "per_class", few, "none where folds are asked for")

    @property
    def folds(self) -> int | None:
        """How many folds were asked for; None for parts."""
        count = self.split.removesuffix("-fold")
        return int(count) if count != self.split and count.isascii() and count.isdigit() else None

    @property
    def fractions(self) -> dict[str, Fraction]:
        """The fraction of each part, exact, adding up to 1."""
        numbers = _numbers(_FRACTIONS if self.split == "auto" else self.split)
        parts = PARTS if len(numbers) == 3 else ("train", "test")
        return {part: number / sum(numbers) for part, number in zip(parts, numbers, strict=True)}


def _numbers(text: str) -> list[Fraction]:
    try:
        return [Fraction(word.strip()) for word in text.split("/")]
    except ValueError:
        return []


def _whole(numbers: list[Fraction]) -> int | None:
    """Return 1 for fractions, 100 for percentages, None if the numbers add up to neither."""
    return next((whole for whole in (1, 100) if abs(sum(numbers, Fraction()) / whole - 1) <= Fraction(1, 10**6)), None)


def split(index: Index, *, options: SplitOptions = SplitOptions(), keep: Mapping[str, str] | None = None) -> Index:
    """Return the index with a part for every used row, by the rules above.

    keep: id → part of an earlier split; those images stay where they were.

    With parts from the source, an image of a group that is also in the test part is ignored in the others, and one
    that is also in the validation part is ignored in train: no picture and no version of it is in two parts.
    Raises DataError if only some rows have a part, or a class has fewer groups than there are parts; UsageError if
    the options are for folds, which are not parts.
    """
    if options.folds:
        raise UsageError(
            f"--split is {options.split!r}, which gives folds and not parts; expected fractions, such as {_FRACTIONS}."
        )
    rows = index.used.rows
    without_part = sum(row.part is None for row in rows)
    if 0 < without_part < len(rows):
        raise _some_without_part(rows, without_part)
    if without_part:
        rows_with_parts = _with_parts(rows, _drawn_parts(_strata(index), options, keep or {}))
    else:
        rows_with_parts = _without_leaks(rows)
    return _limited(_with_used(index, rows_with_parts), options)


def folds(index: Index, options: SplitOptions) -> list[Index]:
    """Return the index once for each fold, its used rows in the parts train and test; empty if parts are to be used.

    Every used row is in the test part of one fold, groups together, each class spread evenly, as many times as
    `fold_count` says.
    Raises DataError if a class has a single group.
    """
    count = fold_count(index, options)
    if not count:
        return []
    from sklearn.model_selection import StratifiedGroupKFold  # here, as it takes over a second and is seldom needed

    labels, numbers = [row.label for row in _strata(index)], group_numbers(index.used.rows)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=derive(options.seed, "folds") % 2**32)
    return [_fold(index, set(map(int, test))) for _, test in splitter.split(labels, labels, numbers)]


def fold_count(index: Index, options: SplitOptions) -> int:
    """Return how many folds there are: as asked for, or as many as the smallest class has groups; 0 if there are parts.

    Parts from the source come before folds. Raises DataError if a class has a single group.
    """
    few = options.split == "auto" and options.per_class is None and _are_few(index)
    wanted = options.folds or (_FOLDS if few else 0)
    if not wanted or any(row.part for row in index.used.rows):
        return 0
    groups = _make_groups(_strata(index), options.seed)
    _check_sizes(groups, ("train", "test"))
    return min(wanted, *Counter(label for group in groups for label in group.labels).values())


def _strata(index: Index) -> Sequence[Row]:
    """Return the used rows, each with the one label by which it is stratified.

    For a multilabel image that is its rarest label. Images whose rarest label is too rare form a stratum together, or,
    if they are too few for that, join the largest one.
    """
    rows, counts = index.used.rows, index.used.class_counts
    if not index.multilabel:
        return rows
    rarest = [min(row.names, key=lambda name: (counts[name], name), default="") for row in rows]
    sizes = Counter(rarest)
    rare = sum(size for size in sizes.values() if size < RARE)
    others = "" if rare >= RARE or rare == len(rows) else sizes.most_common(1)[0][0]
    strata = (name if sizes[name] >= RARE else others for name in rarest)
    return [dataclasses.replace(row, label=name) for row, name in zip(rows, strata, strict=True)]


def _are_few(index: Index) -> bool:
    counts = index.class_counts
    return bool(counts) and min(counts.values()) < FEW


def _fold(index: Index, test: set[int]) -> Index:
    parts = ["test" if at in test else "train" for at in range(len(index.used))]
    return _with_used(index, _with_parts(index.used.rows, parts))


def _with_parts(rows: Iterable[Row], parts: Iterable[str]) -> Iterator[Row]:
    return (dataclasses.replace(row, part=part) for row, part in zip(rows, parts, strict=True))


def _with_used(index: Index, used: Iterator[Row]) -> Index:
    """Return the index with its used rows replaced, in order."""
    return index.with_rows([next(used) if row.status == "used" else row for row in index.rows])


def _limited(index: Index, options: SplitOptions) -> Index:
    """Return the index with training rows beyond `per_class` ignored: the last ones of the drawn order."""
    if options.per_class is None:
        return index
    rows = index.train.rows
    counts, selected = Counter[str](), set[int]()
    for group in _make_groups(_strata(index.train), options.seed):
        if counts[group.label] + len(group.rows) <= options.per_class:
            counts[group.label] += len(group.rows)
            selected.update(id(rows[at]) for at in group.rows)
    reason = f"beyond --per-class {options.per_class}"
    return index.with_rows(
        row if row.part != "train" or row.status != "used" or id(row) in selected else row.marked("ignored", reason)
        for row in index
    )


def group_numbers(rows: Sequence[Row]) -> list[int]:
    """Return a number for each row, equal for versions of one picture and rows of one group, also in a chain."""
    if not any(row.group for row in rows):
        codes: dict[str, int] = {}
        return [codes.setdefault(row.picture, len(codes)) for row in rows]
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names: dict[tuple[str, str], int] = {}
    links = [(at, names.setdefault(name, len(names))) for at, row in enumerate(rows) for name in _names(row)]
    size = len(rows) + len(names)
    edges = [at for at, _ in links], [len(rows) + name for _, name in links]
    graph = coo_array(([1] * len(links), edges), shape=(size, size))
    return [int(number) for number in connected_components(graph, directed=False)[1][: len(rows)]]


def _names(row: Row) -> Iterator[tuple[str, str]]:
    if row.group:
        yield "group", row.group
    yield ("id" if row.id else "path"), row.picture


# Parts by chance


@dataclass(frozen=True, eq=False)  # two are never equal, and hashing stays cheap
class _Group:
    """Rows that are never divided."""

    key: int  # its position in the drawn order
    name: tuple[str, str]
    rows: tuple[int, ...]
    labels: frozenset[str]
    label: str  # of most rows


def _drawn_parts(rows: Sequence[Row], options: SplitOptions, keep: Mapping[str, str]) -> list[str]:
    """Return the part of each row."""
    groups = _make_groups(rows, options.seed)
    _check_sizes(groups, list(options.fractions))
    parts: dict[_Group, str] = {}
    of_class: defaultdict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        of_class[group.label].append(group)
    for ordered in of_class.values():
        parts |= _divide(ordered, options.fractions)
    kept = {group: part for group in groups if (part := _earlier_part(group, rows, keep))}
    parts |= kept
    _fill_empty(parts, fixed=kept, names=list(options.fractions))
    part_of_row = {row: part for group, part in parts.items() for row in group.rows}
    return [part_of_row[at] for at in range(len(rows))]


def _make_groups(rows: Sequence[Row], seed: int) -> list[_Group]:
    """Return the groups in their drawn order."""
    members = defaultdict(list)
    for at, number in enumerate(group_numbers(rows)):
        members[number].append(at)
    groups = (_make_group(rows, numbers, seed) for numbers in members.values())
    return sorted(groups, key=lambda group: (group.key, group.name))


def _make_group(rows: Sequence[Row], members: Sequence[int], seed: int) -> _Group:
    name = min(name for at in members for name in _names(rows[at]))  # "group" sorts before "id"
    counts = Counter(rows[at].label or "" for at in members)
    label = min(counts, key=lambda label: (-counts[label], label))
    return _Group(derive(seed, "split", *name), name, tuple(members), frozenset(counts), label)


def _check_sizes(groups: Iterable[_Group], parts: Sequence[str]) -> None:
    counts = Counter(label for group in groups for label in group.labels)
    small = sorted(label for label, count in counts.items() if count < len(parts))
    if not small:
        return
    sizes = listed([f"class {label!r} has {counts[label]}" for label in small], 10, "; ")
    fewer_parts = " use --split 0.8/0.2," if len(parts) == 3 and min(counts.values()) == 2 else ""
    raise DataError(
        f"Too few separate images (copies and groups count once): {sizes}. "
        f"{len(parts)} parts ({', '.join(parts)}) need at least {len(parts)} of each class. "
        f"Add photographs,{fewer_parts} or leave the class out."
    )


def _divide(ordered: Sequence[_Group], fractions: Mapping[str, Fraction]) -> dict[_Group, str]:
    """Return the part of each group of one class: the groups stand in their drawn order, fractions are of images."""
    names = [part for part in _ORDER if part in fractions]
    ends = _ends(sum(len(group.rows) for group in ordered), [fractions[name] for name in names])
    parts, before = {}, 0
    for group in ordered:
        middle = before + len(group.rows) / 2
        parts[group] = names[sum(middle > end for end in ends)]
        before += len(group.rows)
    return parts


def _ends(count: int, fractions: Sequence[Fraction]) -> list[int]:
    """Return after how many images each part but the last ends; each part has at least one if there are enough."""
    ends = []
    for number in range(1, len(fractions)):
        rounded = floor(sum(fractions[:number]) * count + Fraction(1, 2))
        ends.append(max(number, min(rounded, count - (len(fractions) - number))))
    return ends


def _earlier_part(group: _Group, rows: Sequence[Row], keep: Mapping[str, str]) -> str | None:
    """Return the part in `keep`; of more than one (its images were not in one group then) the first in _ORDER."""
    earlier = {keep[rows[at].id] for at in group.rows if rows[at].id in keep}
    if unknown := earlier - set(PARTS):
        raise UsageError(f"keep has the part {min(unknown)!r}; expected one of {', '.join(PARTS)}.")
    return next((part for part in _ORDER if part in earlier), None)


def _fill_empty(parts: dict[_Group, str], fixed: Iterable[_Group], names: Sequence[str]) -> None:
    """Move the smallest spare group of a class into each part that has none of it."""
    counts = Counter((label, part) for group, part in parts.items() for label in group.labels)
    fixed = set(fixed)
    for label in sorted({label for label, _ in counts}):
        for part in names:
            if not counts[label, part]:
                _move_one(parts, counts, label, part, fixed)


def _move_one(
    parts: dict[_Group, str], counts: Counter[tuple[str, str]], label: str, part: str, fixed: set[_Group]
) -> None:
    spare = [
        group
        for group, now in parts.items()
        if label in group.labels and group not in fixed and all(counts[other, now] > 1 for other in group.labels)
    ]
    if not spare:
        raise DataError(
            f"Class {label!r} can't be in the {part} part: its images are tied (groups, copies) or kept elsewhere. "
            "Add photographs, use fewer parts (--split 0.8/0.2), or make smaller groups."
        )
    moved = min(spare, key=lambda group: (len(group.rows), group.key))
    for other in moved.labels:
        counts[other, parts[moved]] -= 1
        counts[other, part] += 1
    parts[moved] = part


# Parts from the source


def _some_without_part(rows: Sequence[Row], missing: int) -> DataError:
    example = next(row.path for row in rows if row.part is None)
    return DataError(
        f"{missing} of {len(rows)} images have no part, such as {example}; expected all of them or none. "
        "Put them into train, validation or test, or give no parts at all: then they are split by --split."
    )


def _without_leaks(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows; a row is ignored if its group is also in a part that comes before its own in _ORDER."""
    numbers = group_numbers(rows)
    holders = {
        (key, row.part): row for number, row in zip(numbers, rows, strict=True) for key in (number, row.id, row.picture)
    }
    for number, row in zip(numbers, rows, strict=True):
        stronger = _ORDER[: _ORDER.index(row.part or "train")]
        keys = [(key, part) for part in stronger for key in (row.id, row.picture, number)]
        holder = next((holders[key] for key in keys if key in holders), None)
        yield row.marked("ignored", _leak(row, holder)) if holder else row


def _leak(row: Row, holder: Row) -> str:
    same = "the same picture is" if row.id == holder.id else "another version of the same picture is"
    what = same if row.picture == holder.picture else "its group, or a copy's, is also"
    return f"{what} in the {holder.part} part ({holder.path})"
