"""The split: exact shares, nothing on two sides, and how little moves when files are added."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest

from regraft.core.errors import DataError, UsageError
from regraft.data.index import PARTS, Index, Row
from regraft.data.split import SplitOptions, folds, group_numbers, split


def row(name, label, **more):
    more.setdefault("id", hashlib.sha256(name.encode()).hexdigest())
    return Row(path=f"{label}/{name}.jpg", location=None, label=label, **more)


def images(label, count, start=0):
    return [row(f"{label}{number}", label) for number in range(start, start + count)]


def parts_of(rows, keep=None, **options):
    return [row.part for row in split(Index(tuple(rows)), options=SplitOptions(**options), keep=keep)]


def by_id(rows, **options):
    return dict(zip([row.id for row in rows], parts_of(rows, **options), strict=True))


def counts(rows, **options):
    """Return {label: (train, validation, test)}."""
    numbers = Counter(zip([row.label for row in rows], parts_of(rows, **options), strict=True))
    return {label: tuple(numbers[label, part] for part in PARTS) for label in sorted({row.label for row in rows})}


# Options


@pytest.mark.parametrize(
    ("text", "fractions"),
    [
        ("0.8/0.1/0.1", (0.8, 0.1, 0.1)),
        ("0.8/0.2", (0.8, None, 0.2)),
        ("80/10/10", (0.8, 0.1, 0.1)),
        ("70/30", (0.7, None, 0.3)),
        (" 0.5 / 0.25 / 0.25 ", (0.5, 0.25, 0.25)),
        ("0.3333333/0.3333333/0.3333333", (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_fractions_are_read(text, fractions):
    expected = {part: fraction for part, fraction in zip(PARTS, fractions, strict=True) if fraction}
    exact = SplitOptions(split=text).fractions
    assert list(exact) == list(expected)
    assert exact == pytest.approx(expected) and sum(exact.values()) == Fraction(1)


@pytest.mark.parametrize(
    "text", ["", "0.8", "1", "0.8/0.1", "0.5/0.6", "0.8/0.2/0", "1.1/-0.1", "a/b", "nan/1", "0.4/0.3/0.2/0.1", "8/1/1"]
)
def test_invalid_fractions_are_refused_with_an_example(text):
    with pytest.raises(UsageError, match=r"0\.8/0\.1/0\.1") as caught:
        SplitOptions(split=text)
    assert repr(text) in str(caught.value)


# Fractions


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [10, 20, 50, 100, 1000])
def test_every_class_is_divided_exactly_to_the_image(size, seed):
    rows = images("cat", size) + images("dog", 3 * size)
    assert counts(rows, seed=seed) == {
        "cat": (size * 8 // 10, size // 10, size // 10),
        "dog": (3 * size * 8 // 10, 3 * size // 10, 3 * size // 10),
    }
    assert counts(rows, seed=seed, split="0.8/0.2")["cat"] == (size * 8 // 10, 0, size * 2 // 10)


@pytest.mark.parametrize(
    "text", ["0.8/0.1/0.1", "0.34/0.33/0.33", "0.98/0.01/0.01", "0.01/0.01/0.98", "0.8/0.2", "0.1/0.9"]
)
def test_no_part_is_off_by_more_than_one_image_nor_empty(text):
    fractions = SplitOptions(split=text).fractions
    for size in range(len(fractions), 120):
        sizes = dict(zip(PARTS, counts(images("cat", size), split=text)["cat"], strict=True))
        for part, fraction in fractions.items():
            assert sizes[part] >= 1
            assert abs(sizes[part] - fraction * size) < 1 or 1 in sizes.values()
        assert sum(sizes.values()) == size


def half_up(value):
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))


def test_the_boundaries_are_rounded_to_the_nearest_image():
    for size in range(15, 150):
        test = half_up(Decimal("0.1") * size)
        held = half_up(Decimal("0.3") * size)
        assert counts(images("cat", size), split="0.7/0.2/0.1")["cat"] == (size - held, held - test, test)


def test_another_seed_draws_other_images_and_the_same_seed_the_same():
    rows = images("cat", 100)
    assert parts_of(rows, seed=0) == parts_of(rows, seed=0)
    assert len({tuple(parts_of(rows, seed=seed)) for seed in range(20)}) == 20


def test_every_image_is_in_the_test_part_of_some_seed():
    rows = images("cat", 30)
    times = Counter(at for seed in range(300) for at, part in enumerate(parts_of(rows, seed=seed)) if part == "test")
    assert len(times) == 30
    assert max(times.values()) < 60, "each is expected 30 times, with a standard deviation of 5.2"


def test_only_used_rows_get_a_part():
    ignored, broken = row("i", "cat", status="ignored"), row("b", "cat", status="broken")
    index = split(Index((ignored, *images("cat", 10), broken)))
    assert index.rows[0] == ignored and index.rows[-1] == broken
    assert [len(index.part(part)) for part in PARTS] == [8, 1, 1]


# What the split does not depend on


def test_renamed_files_stay_in_their_part():
    rows = images("cat", 60) + images("dog", 40)
    renamed = [replace(row, path=f"elsewhere/{number}") for number, row in enumerate(rows)]
    assert parts_of(rows) == parts_of(renamed)


def test_the_order_of_the_rows_does_not_matter():
    rows = [*images("cat", 60), *images("dog", 40), *with_copies_and_groups(5)]
    before = parts_by_path(rows)
    for seed in range(5):
        assert parts_by_path(random.Random(seed).sample(rows, len(rows))) == before


def test_another_process_with_other_hashes_splits_the_same_way():
    code = (
        "import hashlib\n"
        "from regraft.data.index import Index, Row\n"
        "from regraft.data.split import split\n"
        "ids = [hashlib.sha256(f'cat{n}'.encode()).hexdigest() for n in range(40)]\n"
        "print([r.part for r in split(Index(tuple(Row(path=i, location=None, id=i, label='cat') for i in ids)))])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {str(parts_of(images("cat", 40)))}


def test_the_drawn_order_is_pinned_so_that_later_versions_split_alike():
    held = [at for at, part in enumerate(parts_of(images("cat", 20))) if part == "test"]
    order = sorted(range(20), key=lambda at: order_key(0, images("cat", 20)[at].id))
    assert sorted(held) == sorted(order[:2])


def order_key(seed, id):
    return hashlib.sha256(f"{seed}\0split\0id\0{id}".encode()).digest()[:8]


def test_another_class_changes_nothing_in_the_others():
    cats = images("cat", 57)
    assert parts_of(cats) == parts_of([*images("dog", 31), *cats])[31:]


# Stability


@pytest.mark.parametrize("text", ["0.8/0.1/0.1", "0.98/0.01/0.01", "0.1/0.9"])
def test_one_more_image_moves_at_most_one_other_across_each_boundary(text):
    boundaries = text.count("/")
    rows = images("cat", 3)
    before = by_id(rows, split=text, seed=1)
    for number in range(3, 150):
        rows += images("cat", 1, start=number)
        after = by_id(rows, split=text, seed=1)
        assert sum(after[id] != part for id, part in before.items()) <= boundaries
        before = after


def test_a_tenth_more_images_moves_few_others():
    rows = images("cat", 1000)
    before = by_id(rows)
    after = by_id([*rows, *images("cat", 100, start=1000)])
    moved = sum(after[id] != part for id, part in before.items())
    assert moved < 40, "a fresh draw would move about 340"


def test_with_keep_nothing_moves_when_images_are_added():
    rows = images("cat", 40) + images("dog", 25)
    keep = by_id(rows)
    for number in range(60):
        rows += images("cat", 1, start=40 + number) + images("dog", 2, start=25 + 2 * number)
        after = by_id(rows, keep=keep)
        assert {id: after[id] for id in keep} == keep
        keep = after
    fractions = [count / 100 for count in counts(rows, keep=keep)["cat"]]
    assert fractions == pytest.approx([0.8, 0.1, 0.1], abs=0.08)


def test_with_keep_another_seed_changes_nothing():
    rows = images("cat", 40)
    keep = by_id(rows)
    assert by_id(rows, keep=keep, seed=5) == keep


def test_keep_also_holds_for_a_new_image_of_a_group():
    old = [row(f"cat{n}", "cat", group=f"cat{n}") for n in range(30)]
    keep = by_id(old)
    new = [row(f"new{n}", "cat", group=f"cat{n}") for n in range(30)]
    parts = by_id([*new, *old], keep=keep, seed=3)
    assert [parts[n.id] for n in new] == [keep[o.id] for o in old]


def test_keep_moves_nothing_to_fill_an_empty_part():
    rows = images("cat", 4)
    keep = dict.fromkeys([row.id for row in rows], "train")
    with pytest.raises(DataError, match="'cat' can't be in the validation part"):
        parts_of(rows, keep=keep)
    parts = by_id(rows + images("cat", 2, start=4), keep=keep)
    assert {id: parts[id] for id in keep} == keep
    assert Counter(parts.values()) == {"train": 4, "validation": 1, "test": 1}


def test_keep_with_an_unknown_part_is_refused():
    rows = images("cat", 10)
    with pytest.raises(UsageError, match="'dev'"):
        parts_of(rows, keep={rows[0].id: "dev"})


# Copies and groups


def with_copies_and_groups(seed):
    """Return rows of three classes in which copies and groups, some in chains and of mixed labels, are frequent."""
    draw = random.Random(seed)
    rows = []
    for number in range(150):
        label = draw.choice("abc")
        group = f"g{draw.randrange(30)}" if draw.random() < 0.3 else None
        rows.append(replace(row(f"p{draw.randrange(110)}", label, group=group), path=f"{label}/{number}"))
    return rows


def parts_by_path(rows):
    return dict(zip([row.path for row in rows], parts_of(rows), strict=True))


def groups_by_hand(rows):
    """Return the sets of rows that belong together, by merging until nothing changes."""
    sets = [{at} for at in range(len(rows))]
    names = [{("i", row.id), ("g", row.group)} - {("g", None)} for row in rows]
    changed = True
    while changed:
        changed = False
        for one in range(len(sets)):
            for two in range(one + 1, len(sets)):
                if names[one] & names[two]:
                    sets[one] |= sets.pop(two)
                    names[one] |= names.pop(two)
                    changed = True
                    break
            if changed:
                break
    return sets


@pytest.mark.parametrize("seed", range(6))
def test_groups_are_the_chains_of_copies_and_of_groups_of_the_source(seed):
    rows = with_copies_and_groups(seed)
    groups = defaultdict(set)
    for at, number in enumerate(group_numbers(rows)):
        groups[number].add(at)
    assert sorted(map(sorted, groups.values())) == sorted(map(sorted, groups_by_hand(rows)))


@pytest.mark.parametrize("seed", range(6))
def test_copies_and_groups_are_never_on_two_sides(seed):
    rows = [*with_copies_and_groups(seed), *images("a", 10), *images("b", 10), *images("c", 10)]
    parts = parts_of(rows, seed=seed)
    for group in groups_by_hand(rows):
        assert len({parts[at] for at in group}) == 1
    assert all(min(of_class) >= 1 for of_class in counts(rows, seed=seed).values())


@pytest.mark.parametrize("seed", range(10))
def test_fractions_are_near_with_groups_of_mixed_labels(seed):
    draw = random.Random(seed)
    rows = [
        row(f"{patient}-{n}", draw.choice(["ill", "well", "well"]), group=f"patient {patient}")
        for patient in range(80)
        for n in range(draw.randint(1, 6))
    ]
    for label, sizes in counts(rows, seed=seed).items():
        total = sum(sizes)
        for count, fraction in zip(sizes, (0.8, 0.1, 0.1), strict=True):
            assert count / total == pytest.approx(fraction, abs=0.08), label


def test_one_large_group_leaves_no_part_empty():
    rows = [row(f"c{n}", "cat", group="burst") for n in range(50)] + images("cat", 2)
    assert sorted(counts(rows)["cat"]) == [1, 1, 50]


def test_a_class_that_is_a_minority_everywhere_is_in_every_part():
    rows = [
        row(f"{patient}-{n}", "rare" if n == 0 else "common", group=f"patient {patient}")
        for patient in range(3)
        for n in range(10)
    ] + images("common", 100)
    assert counts(rows)["rare"] == (1, 1, 1)


def test_a_copy_added_to_an_image_goes_where_the_image_is():
    rows = images("cat", 50)
    before = by_id(rows)
    copies = [replace(row, path="copies/" + row.path) for row in rows]
    parts = parts_of([*rows, *copies])
    assert parts[:50] == parts[50:] == [before[row.id] for row in rows]


# Classes that are too small


@pytest.mark.parametrize(("size", "text"), [(1, "0.8/0.1/0.1"), (2, "0.8/0.1/0.1"), (1, "0.8/0.2")])
def test_a_class_too_small_is_refused_by_name_with_what_to_do(size, text):
    with pytest.raises(DataError, match=rf"'lynx' has {size}") as caught:
        parts_of(images("cat", 30) + images("lynx", size), split=text)
    message = str(caught.value)
    assert "'cat'" not in message and "Add photographs" in message
    assert ("--split 0.8/0.2" in message) == (size == 2)


def test_copies_do_not_make_a_class_large_enough():
    rows = [replace(row("one", "lynx"), path=f"lynx/{n}") for n in range(20)]
    with pytest.raises(DataError, match="'lynx' has 1"):
        parts_of(images("cat", 30) + rows)


@pytest.mark.parametrize(("size", "text"), [(3, "0.8/0.1/0.1"), (2, "0.8/0.2")])
def test_a_class_as_large_as_there_are_parts_is_enough(size, text):
    assert [count for count in counts(images("lynx", size), split=text)["lynx"] if count] == [1] * size


# Parts from the source


def test_parts_from_the_source_are_kept():
    rows = [replace(row, part="train" if n % 2 else "test") for n, row in enumerate(images("cat", 10))]
    assert parts_of(rows, split="0.5/0.25/0.25") == [row.part for row in rows]


def test_parts_from_the_source_without_a_test_part_are_kept():
    rows = [replace(row, part="validation" if n == 0 else "train") for n, row in enumerate(images("cat", 4))]
    assert parts_of(rows) == ["validation", "train", "train", "train"]


def test_rows_without_a_part_beside_others_that_have_one_are_refused_by_number():
    rows = images("cat", 10)
    rows[3:] = [replace(row, part="train") for row in rows[3:]]
    with pytest.raises(DataError, match=r"3 of 10 images have no part, such as cat/cat0\.jpg"):
        parts_of(rows)


def test_a_copy_in_two_parts_is_ignored_in_all_but_the_test_part():
    twin = row("twin", "cat")
    rows = [
        replace(twin, path="train/cat/a.jpg", part="train"),
        replace(twin, path="test/cat/b.jpg", part="test"),
        replace(twin, path="validation/cat/c.jpg", part="validation"),
        *(replace(row, part="train") for row in images("cat", 3)),
    ]
    index = split(Index(tuple(rows)))
    assert [row.status for row in index] == ["ignored", "used", "ignored", "used", "used", "used"]
    assert index.rows[0].reason == "the same picture is in the test part (test/cat/b.jpg)"


def test_a_copy_of_a_validation_image_is_ignored_in_train():
    twin = row("twin", "cat")
    index = split(Index((replace(twin, part="train"), replace(twin, part="validation"))))
    assert [row.status for row in index] == ["ignored", "used"]
    assert "validation part" in index.rows[0].reason


@pytest.mark.parametrize("seed", range(6))
def test_parts_from_the_source_never_share_a_copy_or_a_group_and_the_test_part_is_complete(seed):
    draw = random.Random(seed)
    rows = [replace(row, part=draw.choice(PARTS)) for row in with_copies_and_groups(seed)]
    index = split(Index(tuple(rows)))
    for group in groups_by_hand(rows):
        assert len({index.rows[at].part for at in group if index.rows[at].status == "used"}) == 1
    assert len(index.test) == sum(row.part == "test" for row in rows)
    assert all(row.reason for row in index.ignored)


# Few images of a class for a trial, and folds where images are few


def with_versions(label, count):
    """Return pictures, and another version of each."""
    originals = images(label, count)
    versions = images(f"{label} again ", count)
    tied = [replace(row, label=label, version_of=one.id) for row, one in zip(versions, originals, strict=True)]
    return [*originals, *tied]


@pytest.mark.parametrize("seed", range(5))
def test_versions_of_one_picture_are_on_one_side(seed):
    rows = [*with_versions("cat", 40), *with_versions("dog", 40)]
    parts = parts_of(rows, seed=seed)
    sides = defaultdict(set)
    for row, part in zip(rows, parts, strict=True):
        sides[row.picture].add(part)
    assert all(len(side) == 1 for side in sides.values())
    for fold in folds(Index(tuple(rows)), SplitOptions(split="5-fold", seed=seed)):
        test = {row.picture for row in fold.test}
        assert test and not test & {row.picture for row in fold.train}


def test_another_version_in_the_training_part_of_the_source_is_ignored_and_it_is_said_why():
    test = [row(name, label, part="test") for name, label in (("a", "cat"), ("b", "dog"))]
    train = [row(name, label, part="train") for name, label in (("c", "cat"), ("d", "dog"))]
    version = row("a again", "cat", part="train", version_of=test[0].id)
    rows = split(Index((*test, *train, version)), options=SplitOptions()).rows
    assert [row.status for row in rows] == ["used"] * 4 + ["ignored"]
    assert rows[-1].reason == "another version of the same picture is in the test part (cat/a.jpg)"


def test_per_class_ignores_training_images_beyond_it_and_nothing_else():
    rows = (*images("a", 100), *images("b", 40))
    whole = split(Index(rows), options=SplitOptions())
    few = split(Index(rows), options=SplitOptions(per_class=10))
    assert few.train.class_counts == {"a": 10, "b": 10}
    assert (few.test.rows, few.validation.rows) == (whole.test.rows, whole.validation.rows)
    assert set(few.train.rows) < set(whole.train.rows)
    assert {item.reason for item in few.ignored} == {"beyond --per-class 10"}
    more = split(Index(rows), options=SplitOptions(per_class=20))
    assert set(few.train.rows) < set(more.train.rows)  # a larger trial holds the smaller one
    assert split(Index(rows), options=SplitOptions(per_class=100)).rows == whole.rows


def test_per_class_holds_for_parts_from_the_source_and_never_divides_copies():
    rows = [replace(item, part="train") for item in images("a", 30)] + [replace(row("a_test", "a"), part="test")]
    copies = [replace(rows[0], path=f"a/copy{number}.jpg") for number in range(4)]
    for seed in range(20):
        index = split(Index((*rows, *copies)), options=SplitOptions(per_class=7, seed=seed))
        used = [item for item in index.train if item.id == rows[0].id]
        assert len(index.train) <= 7 and len(used) in (0, 5) and len(index.test) == 1


@pytest.mark.parametrize(
    ("text", "per_class", "sizes", "count"),
    [
        ("auto", None, (29, 400), 5),
        ("auto", None, (30, 400), 0),
        ("auto", 5, (29, 400), 0),
        ("5-fold", None, (200, 400), 5),
        ("3-fold", None, (29, 29), 3),
        ("10-fold", None, (4, 29), 4),
        ("0.8/0.2", None, (29, 29), 0),
    ],
)
def test_folds_are_used_where_a_class_has_few_images_or_they_are_asked_for(text, per_class, sizes, count):
    index = Index((*images("a", sizes[0]), *images("b", sizes[1])))
    indexes = folds(index, SplitOptions(split=text, per_class=per_class))
    assert len(indexes) == count
    held = Counter(item.path for fold in indexes for item in fold.test)
    assert not count or (set(held.values()) == {1} and len(held) == sum(sizes))
    for fold in indexes:
        assert len(fold.train) + len(fold.test) == sum(sizes)
        assert all(
            abs(fold.test.class_counts[label] - size / count) < 1 for label, size in zip("ab", sizes, strict=True)
        )


def test_folds_hold_copies_and_groups_together_and_the_seed_draws_them():
    rows = [replace(item, group=f"g{number // 3}") for number, item in enumerate(images("a", 27))] + images("b", 20)
    rows += [replace(rows[-1], path="b/copy.jpg")]
    options = SplitOptions(split="5-fold")
    for fold in folds(Index(tuple(rows)), options):
        for column in ("group", "id"):
            sides = defaultdict(set)
            for item in fold.used:
                sides[getattr(item, column)].add(item.part)
            assert all(len(parts) == 1 for name, parts in sides.items() if name)
    assert folds(Index(tuple(rows)), options) == folds(Index(tuple(rows)), options)
    assert folds(Index(tuple(rows)), options) != folds(Index(tuple(rows)), replace(options, seed=1))


def test_parts_from_the_source_come_before_folds():
    rows = [replace(item, part=part) for part in ("train", "test") for item in images(f"a{part}", 5)]
    assert folds(Index(tuple(rows)), SplitOptions()) == []


def test_a_class_with_one_image_can_not_be_cross_validated():
    with pytest.raises(DataError, match="'b' has 1"):
        folds(Index((*images("a", 9), *images("b", 1))), SplitOptions())


def test_folds_are_not_parts():
    with pytest.raises(UsageError, match=r"5-fold.*expected fractions, such as 0\.8/0\.1/0\.1"):
        split(Index(tuple(images("a", 9))), options=SplitOptions(split="5-fold"))


@pytest.mark.parametrize("text", ["1-fold", "0-fold", "-fold", "five-fold", "5fold", "-5-fold", "²-fold"])
def test_invalid_folds_are_refused(text):
    with pytest.raises(UsageError, match="--split"):
        SplitOptions(split=text)


def test_per_class_is_checked():
    with pytest.raises(UsageError, match="--per-class is 0; expected 1 or more"):
        SplitOptions(per_class=0)
    with pytest.raises(UsageError, match="--per-class is 5; expected none where folds"):
        SplitOptions(per_class=5, split="5-fold")
