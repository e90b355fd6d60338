"""From bytes to upright 8-bit RGB, by one written rule for each kind of image.

The bytes of one file enter, an array of (height, width, 3) leaves, or
BrokenImage with a short reason. Resizing and normalising are left to
`network/preprocess`. A file's format is decided by its first bytes, never by
its name (see `formats`).

| what is stored                 | what comes out                                                    |
|--------------------------------|-------------------------------------------------------------------|
| several frames or pages        | the first                                                         |
| EXIF orientation 1 to 8        | turned upright; damaged EXIF is taken as 1                        |
| 1 bit, grey                    | three equal channels                                              |
| palette                        | its colours                                                       |
| alpha, transparent colour      | composited on white: round((a·colour + (255-a)·255) / 255)        |
| premultiplied alpha            | the same, after dividing by alpha                                 |
| CMYK, YCCK                     | (255-C)(255-K)/255 …; Adobe's inverted files are inverted back    |
| YCbCr, Lab                     | JFIF's formula; Lab (D50) to sRGB by LittleCMS                    |
| 16-bit grey                    | round(v / 257); 12-bit: round(v · 255 / 4095)                     |
| 16-bit colour                  | its high byte, as Pillow reads it                                 |
| 32-bit integers and floats     | the smallest of 0…1 (floats only), 0…255, 0…65535 that holds all  |
|                                | values becomes 0…255; else the image's own minimum to maximum     |
| floats with NaN or infinity    | broken                                                            |
| an embedded colour profile     | not applied                                                       |
| a JPEG, if `min_side` is given | 1/8, 1/4 or 1/2 of its size: the smallest by which both sides are |
|                                | divisible and that leaves them `min_side` pixels                  |

Refused before any pixel is decoded: more than MAX_PIXELS, no pixels, a damaged
header, any other format. A file that is cut short is broken unless it holds
every pixel; so is a PNG with a wrong checksum. JPEG has no checksum: damage in
its middle that the decompressor accepts is not detected.

Pillow reads every header and most pixels. A JPEG that libjpeg-turbo decodes
without a warning is decoded by it directly: the same pixels, faster.

Every function here is thread-safe.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.ExifTags import Base as Tag
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from regraft.core.errors import UsageError
from regraft.data import formats

DECODE_RULES = 2  # part of the store's key: raise it whenever a pixel may come out differently

MAX_PIXELS = 178_956_970  # Pillow's default error limit (1 GiB / 4 / 3, doubled), whatever a program has set it to

BACKGROUND = (255, 255, 255)

Opener = Callable[[io.BytesIO], ImageFile.ImageFile]


class BrokenImage(Exception):
    """The bytes are not an image that is read here, or a damaged one; the text is the reason, on one line."""


def read_header(data: bytes) -> tuple[str, tuple[int, int]]:
    """Return the format and the (width, height) in the header, as stored; no pixel is decoded.

    Raises BrokenImage for a format that is not read, a damaged header, or more than MAX_PIXELS.
    """
    with _reading(data) as (kind, image):
        return kind, image.size


def decode(data: bytes, min_side: int = 0) -> NDArray[np.uint8]:
    """Return the image in `data` upright, by the rules above: (height, width, 3), red, green, blue, in C order.

    min_side: the pixels that a JPEG's shorter side keeps if it is decoded at a smaller scale, which is faster; 0 for
              the full size.
    Raises BrokenImage if anything is wrong with the image, and UsageError if the program has told Pillow to accept
    truncated images (a global of Pillow's, which is not silently changed here).
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True; expected False, "
            "so that a truncated image is not half-used. Set it to False."
        )
    with _reading(data) as (kind, image):
        pixels = _decode_jpeg(data, image, min_side) if kind == "JPEG" else None
        if pixels is None:
            pixels = np.array(_decode_pillow(data, image))
        return _upright(pixels, _orientation(image))  # Pillow turns a TIFF when it loads it, and sets 1


# Opening; every kind of failure becomes a reason


@contextlib.contextmanager
def _reading(data: bytes) -> Iterator[tuple[str, ImageFile.ImageFile]]:
    kind, opener = _recognise(data)
    _quiet()
    try:
        with opener(io.BytesIO(data)) as image:
            _check_size(image.size)
            yield kind, image
    except BrokenImage:
        raise
    except Exception as error:  # Pillow's plug-ins raise nearly every type for damaged files
        raise BrokenImage(_reason(kind, error)) from error


def _recognise(data: bytes) -> tuple[str, Opener]:
    entry = formats.recognise(data)
    if entry is None or not entry.reader:
        raise BrokenImage(formats.refusal(data))
    return entry.name, _opener(entry.reader)


@cache
def _opener(name: str) -> Opener:
    """Return a format's own class: Image.open would let other plug-ins see the bytes."""
    module, _, kind = name.rpartition(".")
    return cast("Opener", getattr(import_module(module), kind))


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BrokenImage(f"the image has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise BrokenImage(
            f"{width} x {height} pixels are more than the accepted {MAX_PIXELS:,}; make the image smaller"
        )


def _reason(kind: str, error: Exception) -> str:
    """Return one line, without memory addresses: the same file has the same reason every time."""
    if isinstance(error, MemoryError):
        return f"not enough memory for this {kind}"
    if isinstance(error, Image.DecompressionBombError):  # by a later frame, or by a limit that the program has lowered
        return f"the {kind} has more pixels than accepted"
    if not isinstance(error, OSError | SyntaxError | ValueError) or error.__cause__:
        return f"the {kind} is damaged"  # the text of, say, an IndexError is of no use to a user
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "", str(error))
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())[:150]
    return f"the {kind} can't be read: {text}" if text else f"the {kind} is damaged"


# Pillow's warnings are hidden: what is wrong with a file is in its reason. `catch_warnings` replaces a list of the
# whole process and is not thread-safe, so this filter is inserted once and stays.
_FILTER: Any = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its log lines go to stderr if nothing handles them


def _quiet() -> None:
    filters = cast("list[Any]", warnings.filters)
    if not filters or filters[0] != _FILTER:  # the program may have inserted others before it
        filters.insert(0, _FILTER)


# Pixels


def _decode_jpeg(data: bytes, image: ImageFile.ImageFile, min_side: int) -> NDArray[np.uint8] | None:
    """Return a JPEG's pixels as stored; None, for Pillow to decide: CMYK, and whatever causes even a warning.

    The buffer has the size that Pillow read from the header and that was checked; a larger image does not fit.
    """
    if image.mode not in ("RGB", "L"):
        return None
    scale = _scale(image.size, min_side)
    width, height = (side // scale for side in image.size)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            data, min_height=height, min_width=width, buffer=np.empty((height, width, 3), np.uint8), strict=True
        )
    except ValueError:
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _scale(size: tuple[int, int], min_side: int) -> int:
    """Return the largest of 8, 4 and 2 that divides both sides (no edge moves) and leaves them `min_side` pixels.

    Other ratios take libjpeg-turbo longer than the full size.
    """
    fits = (scale for scale in (8, 4, 2) if all(side % scale == 0 and side // scale >= min_side for side in size))
    return next(fits, 1) if min_side > 0 else 1


def _decode_pillow(data: bytes, image: ImageFile.ImageFile) -> Image.Image:
    if image.format == "PNG":
        PngImageFile(io.BytesIO(data)).verify()  # load() checks no checksum of the pixels
    image = _with_key_colour(image)
    image.load()
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = _from_16_bit(image)
    elif image.mode in ("I", "F"):
        image = _from_32_bit(image)
    return _on_background(image) if image.has_transparency_data else image.convert("RGB")


def _on_background(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    colour = image.convert("RGBA")
    background = Image.new("RGB", image.size, BACKGROUND)
    background.paste(colour, mask=colour)
    return background


def _from_16_bit(image: Image.Image) -> Image.Image:
    top, inverted = 65535, False
    if isinstance(image, TiffImageFile):
        top = 2 ** image.tag_v2[Tag.BitsPerSample][0] - 1
        inverted = image.tag_v2.get(Tag.PhotometricInterpretation) == 0  # white is 0; Pillow does not invert it
    values = image.convert("I")  # the only mode with a table of 65,536 entries
    steps = np.rint(np.minimum(np.arange(65536), top) * (255 / top)).astype(int)
    grey = values.point((255 - steps if inverted else steps).tolist(), "L")
    if (clear := image.info.get("transparency")) is None:
        return grey
    return Image.merge("LA", (grey, values.point([0 if v == clear else 255 for v in range(65536)], "L")))


def _from_32_bit(image: Image.Image) -> Image.Image:
    if image.mode == "F" and not np.isfinite(np.asarray(image)).all():
        raise BrokenImage("the image holds values that are not finite numbers (NaN or infinity)")
    low, high = _value_range(image)
    scale = 255 / (high - low) if high > low else 0.0
    # convert("L") cuts off decimals, hence 0.5
    return image.convert("F").point(lambda value: value * scale + (0.5 - low * scale)).convert("L")


def _value_range(image: Image.Image) -> tuple[float, float]:
    low, high = cast("tuple[float, float]", image.getextrema())
    for top in (1, 255, 65535) if image.mode == "F" else (255, 65535):
        if low >= 0 and high <= top:
            return 0, top
    return low, high


def _with_key_colour(image: ImageFile.ImageFile) -> ImageFile.ImageFile:
    """Convert the transparent colour of a 16-bit RGB PNG to 8 bits, as Pillow does with its pixels."""
    key = image.info.get("transparency")
    if isinstance(key, tuple) and image.tile and image.tile[0].args == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image


_TURNS = {  # EXIF 2.3, section 4.6.4, tag 274
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(Tag.Orientation)
    except Exception:  # damaged metadata must not break a good image
        return None


def _upright(pixels: NDArray[np.uint8], orientation: Any) -> NDArray[np.uint8]:
    if orientation not in _TURNS:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TURNS[orientation]))  # faster than NumPy's strides
