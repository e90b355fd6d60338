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
from regraft.data.index import PARTS, Index, Row

_CUT_ORDER = ("test", "validation", "train")


@dataclass(frozen=True, kw_only=True)
class SplitOptions(SeedOptions):
    """How the images are split where the source does not say."""

    split: str = option("0.8/0.1/0.1", "shares of train/validation/test, or of train/test")

    def __post_init__(self) -> None:
        numbers = _numbers(self.split)
        good = len(numbers) in (2, 3) and min(numbers) > 0 and _whole(numbers) is not None
        require(
            good, "split", self.split, "two or three shares above 0 that add up to 1, such as 0.8/0.1/0.1 or 0.8/0.2"
        )

    @property
    def shares(self) -> dict[str, Fraction]:
        """The share of each part, exact, adding up to 1."""
        numbers = _numbers(self.split)
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
    Raises DataError if only some rows have a part, or a class has fewer bundles than there are parts.
    """
    rows = index.used.rows
    given = sum(row.part is not None for row in rows)
    if given == 0:
        chosen = iter(_drawn_parts(rows, options, keep or {}))
        return index.with_rows(
            dataclasses.replace(row, part=next(chosen)) if row.status == "used" else row for row in index.rows
        )
    if given < len(rows):
        raise _some_without_part(rows, len(rows) - given)
    checked = iter(_given_parts(rows))
    return index.with_rows(next(checked) if row.status == "used" else row for row in index.rows)


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
    what = "; ".join(f"class {label!r} has {counts[label]}" for label in small[:10])
    more = f"; and {len(small) - 10} more" if len(small) > 10 else ""
    less = " use --split 0.8/0.2," if len(parts) == 3 and min(counts.values()) == 2 else ""
    raise DataError(
        f"Too few separate images (copies and groups count once): {what}{more}. "
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
