"""One seed, many independent generators: each use names itself, so that adding one changes no other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regraft.core.options import option

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class SeedOptions:
    """The seed, shared by every step that draws; their options inherit it."""

    seed: int = option(0, "seed of everything that is drawn: the split, random weights, shuffling, dropout")


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on the names of its use."""
    text = "\0".join(map(str, (seed, *names))).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return NumPy's generator for one named use of `seed`."""
    import numpy as np

    return np.random.default_rng(derive(seed, *names))
