"""From an image that Pillow has loaded, of any mode, to 8-bit RGB: the rules of `decode` for what is stored.

A Pillow image enters, an array of (height, width, 3) leaves. Large images are converted a strip at a time, so that no
second copy of them is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import TiffImageFile

from regraft.data import colour
from regraft.data.deep import LowerBytes
from regraft.data.formats import BrokenImage

BACKGROUND = (255, 255, 255)

_STRIP = 1 << 20  # pixels that are converted at once
_GREY = ("1", "L", "LA", "La", "I", "F")

Pixels = NDArray[np.uint8]


def colour_space(image: Image.Image) -> str:
    """Return the mode of the colours, without alpha, that a profile of this image is about: "L", "RGB" or "CMYK"."""
    return "L" if image.mode in _GREY or image.mode.startswith("I;16") else "CMYK" if image.mode == "CMYK" else "RGB"


def profile(image: Image.Image) -> colour.Conversion | None:
    """Return what the embedded profile of an image asks for; None without one, and where it changes nothing."""
    embedded = image.info.get("icc_profile")
    if not embedded or image.mode == "LAB":
        return None
    return colour.conversion(bytes(embedded), colour_space(image))


def to_pixels(image: ImageFile.ImageFile, to_srgb: colour.Conversion | None, lower: LowerBytes | None) -> Pixels:
    """Return the pixels of a loaded image as stored, or, of a TIFF, upright.

    to_srgb: what its profile asks for.
    lower:   the lower bytes of colours of 16 bits.
    """
    levels = _Levels.of(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for box in strips(image.size):
        strip = part(image, box)
        strip = lower.rounded(strip, part(lower.image, box)) if lower else levels(strip)
        pixels[box[1] : box[3]] = np.asarray(_to_rgb(strip, to_srgb, colour_space(image)))
    return pixels


def apply(to_srgb: colour.Conversion, pixels: Pixels, space: str) -> None:
    """Convert RGB pixels, or grey ones in three equal channels, in place."""
    for _, top, _, bottom in strips((pixels.shape[1], pixels.shape[0])):
        strip = Image.fromarray(pixels[top:bottom]).convert(space)
        pixels[top:bottom] = np.asarray(to_srgb(strip))


def part(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Return a part of a loaded image; Image.crop looks at the program's own limit of pixels."""
    return image._new(image.im.crop(box))


def strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield the boxes of an image's strips: left, top, right, bottom."""
    width, height = size
    rows = max(1, _STRIP // width)
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _to_rgb(image: Image.Image, to_srgb: colour.Conversion | None, space: str) -> Image.Image:
    """Return an image of 8 bits, or of 1, on the background."""
    alpha = None
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        alpha, image = image.getchannel("A"), image.convert("RGB")
    rgb = to_srgb(image.convert(space)) if to_srgb else image.convert("RGB")
    if alpha is None:
        return rgb
    background = Image.new("RGB", image.size, BACKGROUND)
    background.paste(rgb, mask=alpha)
    return background


# More than 8 bits in one channel


@dataclass(frozen=True)
class _Levels:
    """How the values of one-channel images become 0 to 255; other images stay."""

    top: int = 65535  # of 16 bits
    inverted: bool = False  # white is 0, and Pillow has not inverted it
    values: tuple[float, float] = (0, 1)  # of 32 bits, that become 0 and 255

    @classmethod
    def of(cls, image: Image.Image) -> _Levels:
        """Return what fits the whole of a loaded image; raise BrokenImage for values that are no numbers."""
        if image.mode in ("I", "F"):
            return cls(values=_value_range(image))
        if isinstance(image, TiffImageFile) and image.mode.startswith("I;16"):
            tags = image.tag_v2
            return cls(2 ** tags[Tag.BitsPerSample][0] - 1, tags.get(Tag.PhotometricInterpretation) == 0)
        return cls()

    def __call__(self, image: Image.Image) -> Image.Image:
        if image.mode.startswith("I;16"):
            return self._from_16_bit(image)
        return self._from_32_bit(image) if image.mode in ("I", "F") else image

    def _from_16_bit(self, image: Image.Image) -> Image.Image:
        values = image.convert("I")  # the only mode with a table of 65,536 entries
        steps = np.rint(np.minimum(np.arange(65536), self.top) * (255 / self.top)).astype(int)
        grey = values.point((255 - steps if self.inverted else steps).tolist(), "L")
        if (clear := image.info.get("transparency")) is None:
            return grey
        return Image.merge("LA", (grey, values.point([0 if v == clear else 255 for v in range(65536)], "L")))

    def _from_32_bit(self, image: Image.Image) -> Image.Image:
        low, high = self.values
        scale = 255 / (high - low) if high > low else 0.0
        # convert("L") cuts off decimals, hence 0.5
        return image.convert("F").point(lambda value: value * scale + (0.5 - low * scale)).convert("L")


def _value_range(image: Image.Image) -> tuple[float, float]:
    for box in strips(image.size):
        if image.mode == "F" and not np.isfinite(np.asarray(part(image, box))).all():
            raise BrokenImage("the image holds values that are not finite numbers (NaN or infinity)")
    low, high = cast("tuple[float, float]", image.getextrema())
    for top in (1, 255, 65535) if image.mode == "F" else (255, 65535):
        if low >= 0 and high <= top:
            return 0, top
    return low, high
