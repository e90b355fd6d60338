"""One seed, many independent generators: each use names itself, so that adding one changes no other."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from regraft.core.options import option

if TYPE_CHECKING:
    import numpy as np


def seed_option() -> Any:
    """Return the dataclass field of the seed, which every step that draws at random has, and all share."""
    return option(
        0, "seed of everything that is drawn at random: the split, random weights, shuffling, dropout", "Main options"
    )


def derive(seed: int, *names: str | int) -> int:
    """Return a 63-bit seed that depends on `seed` and on the names of its use."""
    text = "\0".join(map(str, (seed, *names))).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return NumPy's generator for one named use of `seed`."""
    import numpy as np

    return np.random.default_rng(derive(seed, *names))
