"""Every used image gets a part: train, validation or test.

An index enters, the same index with `part` set leaves. Parts that the source
gives win. Otherwise the rule is this:

1. Images with equal bytes or an equal group are tied into one *bundle*; a
   bundle is never divided. Most bundles are one image.
2. A bundle belongs to the class that most of its images have (ties: by name).
3. Each class's bundles stand in an order drawn from the seed and the bundle's
   own name (its first group, else its id): not from paths, rows or neighbours.
4. The order is cut by the shares, rounded to whole images and at least one a
   part: test first, then validation, the rest is train. A bundle goes where
   its middle lies, so a part is off by half a bundle at most.
5. If a class is then missing from a part (it stands only beside others in
   bundles, or a bundle is large), its smallest spare bundle is moved there.

So every class has the stated shares to the image where bundles are single
images, and one more image moves at most one other image across each cut.
Whoever needs none to move passes the earlier parts as `keep`.

Where images are few, a held-out part says little, and each image is judged by
a model that was trained without it: `folds`.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

from regraft.core.errors import DataError, UsageError
from regraft.core.options import option, require
from regraft.core.rng import SeedOptions, derive
from regraft.core.text import listed
from regraft.data.index import PARTS, Index, Row

_CUT_ORDER = ("test", "validation", "train")
_SHARES = "0.8/0.1/0.1"
_FOLDS = 5
RARE = 10  # images whose rarest label is the same, below which that label has no share of its own
FEW = 30  # images of the smallest class below which `auto` means cross-validation


@dataclass(frozen=True, kw_only=True)
class SplitOptions(SeedOptions):
    """How the images are split where the source does not say."""

    split: str = option(
        "auto",
        "shares of train/validation/test, or of train/test; or 5-fold, for cross-validation; "
        f"auto: {_SHARES}, but {_FOLDS}-fold where a class has fewer than {FEW} images",
    )
    per_class: int | None = option(None, "train on at most so many images of each class, for a trial; none: on all")

    def __post_init__(self) -> None:
        numbers = _numbers(self.split)
        shares = len(numbers) in (2, 3) and min(numbers) > 0 and _whole(numbers) is not None
        require(
            self.split == "auto" or shares or (self.folds or 0) >= 2,
            "split",
            self.split,
            "auto, two or three shares above 0 that add up to 1, such as 0.8/0.1/0.1 or 0.8/0.2, or folds: 5-fold",
        )
        few = self.per_class
        require(few is None or few >= 1, "per_class", few, "1 or more, or none")
        require(few is None or not self.folds, "per_class", few, "none where folds are asked for")

    @property
    def folds(self) -> int | None:
        """How many folds were asked for; None where parts were."""
        count = self.split.removesuffix("-fold")
        return int(count) if count != self.split and count.isascii() and count.isdigit() else None

    @property
    def shares(self) -> dict[str, Fraction]:
        """The share of each part, exact, adding up to 1."""
        numbers = _numbers(_SHARES if self.split == "auto" else self.split)
        parts = PARTS if len(numbers) == 3 else ("train", "test")
        return {part: number / sum(numbers) for part, number in zip(parts, numbers, strict=True)}


def _numbers(text: str) -> list[Fraction]:
    try:
        return [Fraction(word.strip()) for word in text.split("/")]
    except ValueError:
        return []


def _whole(numbers: list[Fraction]) -> int | None:
    """Return 1 for shares, 100 for percentages, None if the numbers add up to neither."""
    return next((whole for whole in (1, 100) if abs(sum(numbers, Fraction()) / whole - 1) <= Fraction(1, 10**6)), None)


def split(index: Index, *, options: SplitOptions = SplitOptions(), keep: Mapping[str, str] | None = None) -> Index:
    """Return the index with a part on every used row, by the rule above.

    keep: id → part of an earlier split; those images stay where they were.

    With given parts, an image tied to one in the test part is ignored in the others, and one tied to the
    validation part is ignored in train: no picture nor its copy stands on two sides.
    Raises DataError if only some rows have a part, or a class has fewer bundles than there are parts; UsageError if
    folds were asked for, which are no parts.
    """
    if options.folds:
        raise UsageError(f"--split is {options.split!r}, and folds are no parts; expected shares, such as {_SHARES}.")
    rows = index.used.rows
    given = sum(row.part is not None for row in rows)
    if 0 < given < len(rows):
        raise _some_without_part(rows, len(rows) - given)
    found = _given_parts(rows) if given else _with_parts(rows, _drawn_parts(_strata(index), options, keep or {}))
    return _fewer(_with_used(index, found), options)


def folds(index: Index, options: SplitOptions) -> list[Index]:
    """Return the index once for each fold, its used rows in the parts train and test; empty where parts are the rule.

    Every used row is in the test part of one fold, bundles together, each class spread evenly; with fewer bundles of a
    class than folds there are as many folds as that. Where the source gives parts, they are the rule.
    Raises DataError if a class has one bundle alone.
    """
    rows = index.used.rows
    few = options.split == "auto" and options.per_class is None and _are_few(index)
    wanted = options.folds or (_FOLDS if few else 0)
    if not wanted or any(row.part for row in rows):
        return []
    from sklearn.model_selection import StratifiedGroupKFold  # here: it takes over a second, and parts are common

    strata = _strata(index)
    found = _make_bundles(strata, options.seed)
    _check_sizes(found, ("train", "test"))
    least = min(Counter(label for bundle in found for label in bundle.labels).values())
    labels, groups = [row.label for row in strata], bundles(rows)
    draw = StratifiedGroupKFold(min(wanted, least), shuffle=True, random_state=derive(options.seed, "folds") % 2**32)
    return [_fold(index, set(map(int, test))) for _, test in draw.split(labels, labels, groups)]


def _strata(index: Index) -> Sequence[Row]:
    """Return the used rows, each under the one label that the shares are kept for.

    Of several labels that is the rarest; images whose rarest label is too rare stand together, or with the most.
    """
    rows, counts = index.used.rows, index.used.class_counts
    if not index.multilabel:
        return rows
    rarest = [min(row.names, key=lambda name: (counts[name], name), default="") for row in rows]
    sizes = Counter(rarest)
    rare = sum(size for size in sizes.values() if size < RARE)
    others = "" if rare >= RARE or rare == len(rows) else sizes.most_common(1)[0][0]
    names = (name if sizes[name] >= RARE else others for name in rarest)
    return [dataclasses.replace(row, label=name) for row, name in zip(rows, names, strict=True)]


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


def _fewer(index: Index, options: SplitOptions) -> Index:
    """Return the index with the training rows beyond `per_class` ignored: the last ones of the drawn order."""
    if options.per_class is None:
        return index
    rows = index.train.rows
    taken, kept = Counter[str](), set[int]()
    for bundle in _make_bundles(_strata(index.train), options.seed):
        if taken[bundle.label] + len(bundle.rows) <= options.per_class:
            taken[bundle.label] += len(bundle.rows)
            kept.update(id(rows[at]) for at in bundle.rows)
    reason = f"beyond --per-class {options.per_class}"
    return index.with_rows(
        row if row.part != "train" or row.status != "used" or id(row) in kept else row.marked("ignored", reason)
        for row in index
    )


def bundles(rows: Sequence[Row]) -> list[int]:
    """Return a number for each row, equal for rows tied by equal bytes or an equal group, also in a chain."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names: dict[tuple[str, str], int] = {}
    ties = [(at, names.setdefault(name, len(names))) for at, row in enumerate(rows) for name in _names(row)]
    size = len(rows) + len(names)
    edges = [at for at, _ in ties], [len(rows) + name for _, name in ties]
    graph = coo_array(([1] * len(ties), edges), shape=(size, size))
    return [int(number) for number in connected_components(graph, directed=False)[1][: len(rows)]]


def _names(row: Row) -> Iterator[tuple[str, str]]:
    if row.group:
        yield "group", row.group
    yield ("id", row.id) if row.id else ("path", row.path)


# Parts that are drawn


@dataclass(frozen=True, eq=False)  # two are never equal, and hashing stays cheap
class _Bundle:
    """Rows that are never divided."""

    key: int  # its place in the drawn order
    name: tuple[str, str]
    rows: tuple[int, ...]
    labels: frozenset[str]
    label: str  # the one that most rows have


def _drawn_parts(rows: Sequence[Row], options: SplitOptions, keep: Mapping[str, str]) -> list[str]:
    """Return the part of each row."""
    found = _make_bundles(rows, options.seed)
    _check_sizes(found, list(options.shares))
    parts: dict[_Bundle, str] = {}
    of_class: defaultdict[str, list[_Bundle]] = defaultdict(list)
    for bundle in found:
        of_class[bundle.label].append(bundle)
    for ordered in of_class.values():
        parts |= _cut(ordered, options.shares)
    kept = {bundle: part for bundle in found if (part := _kept_part(bundle, rows, keep))}
    parts |= kept
    _fill_empty(parts, fixed=kept, names=list(options.shares))
    part_of_row = {row: part for bundle, part in parts.items() for row in bundle.rows}
    return [part_of_row[at] for at in range(len(rows))]


def _make_bundles(rows: Sequence[Row], seed: int) -> list[_Bundle]:
    """Return the bundles in their drawn order."""
    members = defaultdict(list)
    for at, number in enumerate(bundles(rows)):
        members[number].append(at)
    return sorted((_make_bundle(rows, found, seed) for found in members.values()), key=lambda b: (b.key, b.name))


def _make_bundle(rows: Sequence[Row], members: Sequence[int], seed: int) -> _Bundle:
    name = min(name for at in members for name in _names(rows[at]))  # "group" sorts before "id"
    counts = Counter(rows[at].label or "" for at in members)
    label = min(counts, key=lambda label: (-counts[label], label))
    return _Bundle(derive(seed, "split", *name), name, tuple(members), frozenset(counts), label)


def _check_sizes(found: Iterable[_Bundle], parts: Sequence[str]) -> None:
    counts = Counter(label for bundle in found for label in bundle.labels)
    small = sorted(label for label, count in counts.items() if count < len(parts))
    if not small:
        return
    sizes = listed([f"class {label!r} has {counts[label]}" for label in small], 10, "; ")
    less = " use --split 0.8/0.2," if len(parts) == 3 and min(counts.values()) == 2 else ""
    raise DataError(
        f"Too few separate images (copies and groups count once): {sizes}. "
        f"{len(parts)} parts ({', '.join(parts)}) need at least {len(parts)} of each class. "
        f"Add photographs,{less} or leave the class out."
    )


def _cut(ordered: Sequence[_Bundle], shares: Mapping[str, Fraction]) -> dict[_Bundle, str]:
    """Cut one class's bundles, in their order, into parts by the shares of images."""
    names = [part for part in _CUT_ORDER if part in shares]
    cuts = _cuts(sum(len(bundle.rows) for bundle in ordered), [shares[name] for name in names])
    parts, before = {}, 0
    for bundle in ordered:
        middle = before + len(bundle.rows) / 2
        parts[bundle] = names[sum(middle > cut for cut in cuts)]
        before += len(bundle.rows)
    return parts


def _cuts(count: int, shares: Sequence[Fraction]) -> list[int]:
    """Return after how many images each part ends, all but the last; each has one image if there are enough."""
    cuts = []
    for done in range(1, len(shares)):
        rounded = floor(sum(shares[:done]) * count + Fraction(1, 2))
        cuts.append(max(done, min(rounded, count - (len(shares) - done))))
    return cuts


def _kept_part(bundle: _Bundle, rows: Sequence[Row], keep: Mapping[str, str]) -> str | None:
    """Return the earlier part; if new ties join several of them, test goes before validation before train."""
    earlier = {keep[rows[at].id] for at in bundle.rows if rows[at].id in keep}
    if unknown := earlier - set(PARTS):
        raise UsageError(f"keep has the part {min(unknown)!r}; expected one of {', '.join(PARTS)}.")
    return next((part for part in _CUT_ORDER if part in earlier), None)


def _fill_empty(parts: dict[_Bundle, str], fixed: Iterable[_Bundle], names: Sequence[str]) -> None:
    """Move the smallest spare bundle of a class into each part that has none of it."""
    held = Counter((label, part) for bundle, part in parts.items() for label in bundle.labels)
    fixed = set(fixed)
    for label in sorted({label for label, _ in held}):
        for part in names:
            if not held[label, part]:
                _move_one(parts, held, label, part, fixed)


def _move_one(
    parts: dict[_Bundle, str], held: Counter[tuple[str, str]], label: str, part: str, fixed: set[_Bundle]
) -> None:
    spare = [
        bundle
        for bundle, now in parts.items()
        if label in bundle.labels and bundle not in fixed and all(held[other, now] > 1 for other in bundle.labels)
    ]
    if not spare:
        raise DataError(
            f"Class {label!r} can't be in the {part} part: its images are tied (groups, copies) or kept elsewhere. "
            "Add photographs, use fewer parts (--split 0.8/0.2), or make smaller groups."
        )
    chosen = min(spare, key=lambda bundle: (len(bundle.rows), bundle.key))
    for other in chosen.labels:
        held[other, parts[chosen]] -= 1
        held[other, part] += 1
    parts[chosen] = part


# Parts that are given


def _some_without_part(rows: Sequence[Row], missing: int) -> DataError:
    example = next(row.path for row in rows if row.part is None)
    return DataError(
        f"{missing} of {len(rows)} images have no part, such as {example}; expected all of them or none. "
        "Put them into train, validation or test, or give no parts at all: then they are drawn (--split)."
    )


def _given_parts(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield the rows, those tied to a row in a later part marked as ignored."""
    numbers = bundles(rows)
    holders = {(tie, row.part): row for number, row in zip(numbers, rows, strict=True) for tie in (number, row.id)}
    for number, row in zip(numbers, rows, strict=True):
        later = _CUT_ORDER[: _CUT_ORDER.index(row.part or "train")]
        ties = [(tie, part) for part in later for tie in (row.id, number)]
        holder = next((holders[tie] for tie in ties if tie in holders), None)
        yield row.marked("ignored", _tie(row, holder)) if holder else row


def _tie(row: Row, holder: Row) -> str:
    what = "the same picture is" if row.id == holder.id else "its group, or a copy's, is also"
    return f"{what} in the {holder.part} part ({holder.path})"
