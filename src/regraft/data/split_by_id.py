"""The split of a source that is too large for one index: the part of a picture by its id and the seed alone.

Copies share an id, so they are in one part, wherever and whenever that is asked. The order is that of `split`, whose
boundaries are counted; here they are where the fractions say, so a part's size is right but for chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import accumulate

from regraft.core.rng import derive

_ORDER = ("test", "validation", "train")  # along the drawn order
_KEYS = 1 << 63  # of `derive`


def part_of(image_id: str, seed: int, fractions: Mapping[str, Fraction]) -> str:
    """Return the part of an image: "train", "validation" or "test".

    fractions: of the parts, which add up to 1: `SplitOptions.fractions`.
    """
    names = [name for name in _ORDER if name in fractions]
    ends = accumulate(fractions[name] for name in names)
    key = Fraction(derive(seed, "split", "id", image_id), _KEYS)
    return next(name for name, end in zip(names, ends, strict=True) if key < end)
