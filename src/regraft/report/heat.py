"""Heat maps as pictures: a photograph in grey, and over it, the brighter the more, what speaks for a label."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from PIL import Image

from regraft.model.heat_map import HeatMap
from regraft.report import pages

OPAQUE = 0.8  # of the colour where the most speaks for the label


def overlay(pixels: np.ndarray, heat: HeatMap) -> bytes | None:
    """Return a photograph (H, W, 3) uint8 with what speaks for the label laid over it, as a small WebP.

    None if nothing on it does.
    """
    if heat.values.max() <= 0:
        return None
    image = Image.fromarray(pixels)
    image.thumbnail((pages.THUMBNAIL_SIDE, pages.THUMBNAIL_SIDE))
    values = np.maximum(heat.values, 0)
    levels = Image.fromarray(values / values.max()).resize(image.size, Image.Resampling.BICUBIC)
    share = np.asarray(levels).clip(0, 1)[..., None]
    grey = np.asarray(image.convert("L"), np.float32)[..., None] * 0.75
    colour = 255 * colormaps["inferno"](share[..., 0])[..., :3]
    mixed = grey * (1 - OPAQUE * share) + colour * OPAQUE * share
    return pages.thumbnail(Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)))
