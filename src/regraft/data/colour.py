"""An embedded colour profile: what its numbers are in sRGB, which the networks were trained on.

The bytes of an ICC profile enter, a conversion of 8-bit images leaves; None for a profile that says sRGB, to within
ALIKE levels on a grid of colours, for one that is damaged, and for one of another kind than the image: as in browsers,
these change nothing. The conversion is relative colorimetric with black point compensation, by Little CMS.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from regraft.core.text import printable, shorten

ALIKE = 2  # of 255; the profiles of sRGB that are in use differ by 1

SPACES = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}  # of a profile that fits an image of this mode

_INTENT = ImageCms.Intent.RELATIVE_COLORIMETRIC
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


@dataclass(frozen=True)
class Conversion:
    """From the numbers of a profile to sRGB; thread-safe."""

    name: str  # of the profile
    _transform: Any

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return an image of the mode that the conversion was made for as RGB."""
        converted = ImageCms.applyTransform(image, self._transform)
        assert converted is not None
        return converted


@lru_cache(maxsize=64)
def conversion(profile: bytes, mode: str) -> Conversion | None:
    """Return what an image of mode "L", "RGB" or "CMYK" with this profile needs, or None if it needs nothing."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if opened.profile.xcolor_space.strip() != SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(opened, _srgb(), mode, "RGB", _INTENT, _FLAGS)
        result = Conversion(_name(opened), transform)
        samples = _samples(mode)
        difference = np.asarray(samples.convert("RGB"), int) - np.asarray(result(samples))
    except (ImageCms.PyCMSError, OSError, ValueError):  # a damaged profile must not break a good image
        return None
    return result if np.abs(difference).max() > ALIKE else None


@cache
def _srgb() -> Any:
    return ImageCms.createProfile("sRGB")


@cache
def _samples(mode: str) -> Image.Image:
    """Return an image with colours from everywhere in its space."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    levels = np.linspace(0, 255, {1: 256, 3: 17, 4: 9}[bands]).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(*[levels] * bands), axis=-1).reshape(1, -1, bands)
    return Image.frombytes(mode, (grid.shape[1], 1), grid.tobytes())


def _name(profile: ImageCms.ImageCmsProfile) -> str:
    try:
        return shorten(printable(ImageCms.getProfileDescription(profile).strip()), 40) or "without a name"
    except (ImageCms.PyCMSError, ValueError):
        return "without a name"
