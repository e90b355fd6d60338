"""InceptionV3 (Szegedy et al. 2015, arXiv:1512.00567); Keras counts its blocks as mixed0 … mixed10."""

from __future__ import annotations

from regraft.features.backbones import Backbone

_BLOCKS = ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c")

BACKBONES = (
    Backbone(
        name="inception_v3",
        architecture="inception_v3",
        layers={f"mixed{number}": f"Mixed_{block}" for number, block in enumerate(_BLOCKS)},
    ),
)
