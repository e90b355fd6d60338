"""Parts by id and seed alone: the same wherever they are asked for, of the right sizes but for chance."""

import hashlib
import math

import pytest

from regraft.data.index import Index, Row
from regraft.data.sources.pictures import BytesLocation
from regraft.data.split import SplitOptions, split
from regraft.data.split_by_id import part_of

IDS = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(4000)]


def parts(seed, fractions):
    return {each: part_of(each, seed, SplitOptions(split=fractions).fractions) for each in IDS}


@pytest.mark.parametrize("fractions", ["0.8/0.1/0.1", "0.5/0.5", "0.98/0.01/0.01"])
def test_a_part_has_its_fraction_of_the_images_but_for_chance(fractions):
    drawn = parts(0, fractions)
    for name, fraction in SplitOptions(split=fractions).fractions.items():
        count = sum(part == name for part in drawn.values())
        spread = math.sqrt(len(IDS) * fraction * (1 - fraction))
        assert abs(count - len(IDS) * fraction) < 4 * spread


def test_another_seed_draws_other_parts():
    assert parts(0, "0.5/0.5") != parts(1, "0.5/0.5")


def test_the_parts_are_those_of_the_counted_split_but_at_its_boundaries():
    options = SplitOptions(split="0.8/0.1/0.1", seed=3)
    rows = tuple(Row(path=each, location=BytesLocation(b""), id=each, label="a") for each in IDS)
    counted = {row.id: row.part for row in split(Index(rows), options=options)}
    drawn = parts(3, "0.8/0.1/0.1")
    assert sum(drawn[each] != counted[each] for each in IDS) < 4 * math.sqrt(len(IDS))
