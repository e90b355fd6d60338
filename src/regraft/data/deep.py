"""Colour of 16 bits a channel in 8: round(v / 257).

Pillow keeps the upper byte of each number. Told that the bytes are in the other order, it keeps the lower one: the file
is loaded twice, and the nearest level is computed of both.
"""

from __future__ import annotations

from sys import byteorder
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import TiffImageFile

from regraft.data.formats import BrokenImage

_OTHER = {"L": "B", "B": "L", "N": "B" if byteorder == "little" else "L"}  # orders of bytes, in Pillow's raw modes
_MODES = ("RGB", "RGBX", "RGBA", "CMYK", "R", "G", "B", "A")
_LOWER = {f"{mode};16{order}": f"{mode};16{other}" for mode in _MODES for order, other in _OTHER.items()}
_GREY = "LA;16B"
_LOWER[_GREY] = "RGBA"  # both bytes of both numbers


def is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether a file that is opened, but not loaded, has colours of 16 bits whose lower bytes can be loaded."""
    if not image.tile or _raw_mode(image.tile[0]) not in _LOWER:
        return False
    planes = isinstance(image, TiffImageFile) and image.tag_v2.get(Tag.PlanarConfiguration, 1) == 2
    return not (planes and image.tile[0].codec_name == "libtiff")  # which takes the upper ones of each plane itself


def has_16_bits(image: ImageFile.ImageFile) -> bool:
    """Whether a file that is opened, but not loaded, has 16 bits a channel."""
    return bool(image.tile) and ";16" in _raw_mode(image.tile[0])


def separate(image: ImageFile.ImageFile) -> None:
    """Put right how Pillow would load an uncompressed TIFF of 16 bits with a plane for each colour: as 8 bits."""
    if isinstance(image, TiffImageFile) and image.tile and _raw_mode(image.tile[0]) in ("R", "C"):
        if max(image.tag_v2.get(Tag.BitsPerSample, (1,))) <= 8:
            return
        if image.mode == "CMYK":
            raise BrokenImage("a TIFF of 16-bit inks in separate planes is not read; convert it to JPEG or PNG")
        order = "B" if image.tag_v2.prefix == b"MM" else "L"
        image.tile = [_with_raw_mode(tile, f"{_raw_mode(tile)};16{order}") for tile in image.tile]


class LowerBytes:
    """The lower bytes of all numbers of an image.

    image: opened a second time, not loaded.
    key:   the transparent colour of an RGB image, of 16 bits each.
    """

    def __init__(self, image: ImageFile.ImageFile, key: tuple[int, ...] | None = None) -> None:
        self._key = key
        self._grey = _raw_mode(image.tile[0]) == _GREY
        image.tile = [_with_raw_mode(tile, _LOWER[_raw_mode(tile)]) for tile in image.tile]
        image.load()
        self.image = image

    def rounded(self, upper: Image.Image, lower: Image.Image) -> Image.Image:
        """Return a part of the image in 8 bits; upper is what Pillow keeps of it, lower the same part of `image`."""
        high, low = np.asarray(upper), np.asarray(lower)
        if self._grey:
            low = low[..., [1, 1, 1, 3]]
        difference = low.astype(np.int16) - high
        levels: NDArray[np.uint8] = (high + (difference > 128) - (difference < -128)).astype(np.uint8)
        if self._key is None:
            return Image.fromarray(levels, upper.mode)
        upper_key, lower_key = np.divmod(self._key, 256)
        opaque = ~((high == upper_key) & (low == lower_key)).all(axis=-1)
        return Image.fromarray(np.dstack([levels, np.where(opaque, 255, 0).astype(np.uint8)]), "RGBA")


def _raw_mode(tile: Any) -> str:
    """Return how the bytes of a tile are to be unpacked: the only argument of its decoder, or the first."""
    return tile.args if isinstance(tile.args, str) else str((tile.args or ("",))[0])


def _with_raw_mode(tile: Any, mode: str) -> Any:
    return tile._replace(args=mode if isinstance(tile.args, str) else (mode, *tile.args[1:]))
