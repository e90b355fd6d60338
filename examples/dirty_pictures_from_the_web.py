"""VGG16 on Pokémon: pictures as the web has them, with wrong endings, copies, and copies under two names.

    python examples/dirty_pictures_from_the_web.py pokemon.zip
    python examples/dirty_pictures_from_the_web.py pokemon.zip --weights hub

A split that does not know of the copies puts one of a pair on each side, and the accuracy then counts what was
remembered. Here copies stay on one side, and pictures under two names are left out, named.
"""

from __future__ import annotations

from typing import Any

import _recipe

import regraft


def main(source: Any, weights: str | None = None, only: Any = None, **changes: Any) -> _recipe.Reports:
    """Say what is wrong with the pictures, then train both stages on the sound ones."""
    counts = regraft.inspect(source).to_dict()
    print(", ".join(f"{counts[what]} {what}" for what in ("used", "ignored", "broken", "copies", "conflicts")))
    return _recipe.run(__file__, source, weights, only, **changes)


if __name__ == "__main__":
    _recipe.start(__file__, __doc__, main)
