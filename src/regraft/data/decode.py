"""From bytes to upright 8-bit RGB, by one written rule for each kind of image.

The bytes of one file enter, an array of (height, width, 3) leaves, or
BrokenImage with a short reason. Resizing and normalising are left to
`network/preprocess`. A file's format is decided by its first bytes, never by
its name (see `formats`).

| what is stored                 | what comes out                                                    |
|--------------------------------|-------------------------------------------------------------------|
| several frames or pages        | the first; of HEIC the primary one                              * |
| EXIF orientation 1 to 8        | turned upright; damaged EXIF is taken as 1. HEIC and AVIF: as the |
|                                | container says, whatever EXIF says                                |
| 1 bit, grey                    | three equal channels                                              |
| palette                        | its colours                                                       |
| alpha, transparent colour      | composited on white: round((a·colour + (255-a)·255) / 255)        |
| premultiplied alpha            | the same, after dividing by alpha                                 |
| CMYK, YCCK without a profile   | (255-C)(255-K)/255 …; Adobe's inverted files are inverted back  * |
| YCbCr, Lab                     | JFIF's formula; Lab (D50) to sRGB by Little CMS                   |
| 16-bit grey                    | round(v / 257); 12-bit: round(v · 255 / 4095)                   * |
| 16-bit colour                  | round(v / 257); its high byte if premultiplied, or in separate  * |
|                                | compressed planes                                                 |
| 10- and 12-bit HEIC and AVIF   | as libheif (its 8 high bits) and libavif reduce them            * |
| 32-bit integers and floats     | the smallest of 0…1 (floats only), 0…255, 0…65535 that holds all  |
|                                | values becomes 0…255; else the image's own minimum to maximum   * |
| floats with NaN or infinity    | broken                                                            |
| a colour profile (ICC)         | converted to sRGB before alpha is laid on white (see `colour`)  * |
| colours named otherwise (gAMA, | not applied: the numbers are taken as sRGB                        |
| cHRM, cICP, nclx, HDR)         |                                                                   |
| TIFF: bands that are no colour | left out                                                        * |
| a JPEG, if `min_side` is given | 1/8, 1/4 or 1/2 of its size: the smallest by which both sides are |
|                                | divisible and that leaves them `min_side` pixels                  |

What is marked * is reported of each file (`Header.remarks`). Each rule has the
number of the version that it came with (`Header.rules`): what a later one gives
is kept apart from features stored before (`Row.key`).

Refused before any pixel is decoded: more than MAX_PIXELS, more memory than
`budget.LIMIT`, more scans than `jpeg.MAX_SCANS`, no pixels, a damaged header, any
other format. A file that is cut short is broken unless it holds every pixel,
also if it was closed again (see `jpeg`, `complete`); so is a PNG with a wrong
checksum. JPEG has no checksum: damage in its middle that the decompressor
accepts is not detected, nor is it in HEIC and AVIF.

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
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple, cast

import numpy as np
from PIL import Image, ImageFile
from PIL.ExifTags import Base as Tag
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from regraft.core.errors import UsageError
from regraft.core.threads import after_fork
from regraft.data import budget, complete, convert, deep, formats, jpeg, webp, workaround_libtiff_stderr
from regraft.data.convert import Pixels
from regraft.data.formats import DECODE_RULES as DECODE_RULES
from regraft.data.formats import MAX_PIXELS as MAX_PIXELS
from regraft.data.formats import BrokenImage as BrokenImage

RULES = 3  # of the later rules: 16-bit colour, profiles, HEIC, AVIF; DECODE_RULES is that of all others

_memory = budget.Budget()


@after_fork
def _nothing_taken() -> None:
    global _memory
    _memory = budget.Budget()  # threads that the parent had may have held some


Opener = Callable[[io.BytesIO], ImageFile.ImageFile]


class Header(NamedTuple):
    """What a file says of its image before any pixel is decoded.

    size:    (width, height) in pixels as stored.
    rules:   the version of the rules that it is decoded by.
    remarks: what is converted or left out, so that other programs may show other pixels.
    """

    format: str
    size: tuple[int, int]
    rules: int = DECODE_RULES
    remarks: tuple[str, ...] = ()


def read_header(data: bytes) -> Header:
    """Return what the header says; no pixel is decoded.

    Raises BrokenImage for a format that is not read, a damaged header, or more pixels or memory than are accepted.
    """
    with _reading(data) as (kind, image):
        _check_memory(data, kind, image, min_side=1)
        return Header(kind, image.size, _rules(kind, image), tuple(_remarks(image)))


def decode(data: bytes, min_side: int = 0) -> Pixels:
    """Return the image in `data` upright, by the rules above: (height, width, 3), red, green, blue, in C order.

    min_side: the pixels that a JPEG's shorter side keeps if it is decoded at a smaller scale, which is faster; 0 for
              the full size.
    Raises BrokenImage if anything is wrong with the image, and UsageError if the program has told Pillow to accept
    truncated images (a global of Pillow's, which is not silently changed here).
    """
    with decoded(data, min_side) as pixels:
        return pixels


def group_by_scale(data: bytes, min_sides: Sequence[int]) -> list[list[int]]:
    """Return the positions of `min_sides` in groups, for each of which one decoding gives all the same pixels."""
    if len(set(min_sides)) == 1:
        return [list(range(len(min_sides)))]
    with _reading(data) as (_, image):
        is_jpeg, size = isinstance(image, JpegImageFile), image.size
    groups: dict[int, list[int]] = {}
    for position, min_side in enumerate(min_sides):
        groups.setdefault(jpeg.scale_of(size, min_side) if is_jpeg else 1, []).append(position)
    return list(groups.values())


@contextlib.contextmanager
def decoded(data: bytes, min_side: int = 0) -> Iterator[Pixels]:
    """Give what `decode` returns, whose memory counts in the process's budget for as long as the `with` lasts.

    The thread must not decode another image meanwhile: it would wait for its own memory.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True; expected False, "
            "so that a truncated image is not half-used. Set it to False."
        )
    with contextlib.ExitStack() as stack:
        with _reading(data) as (kind, image):
            taken = stack.enter_context(_memory.taken(_check_memory(data, kind, image, min_side)))
            pixels = _decode(data, kind, image, min_side)
            pixels = _upright(pixels, _orientation(image))  # Pillow turns a TIFF when it loads it, and sets 1
        taken.keep(pixels.nbytes)
        yield pixels


# Opening; every kind of failure becomes a reason


@contextlib.contextmanager
def _reading(data: bytes) -> Iterator[tuple[str, ImageFile.ImageFile]]:
    kind, opener = _recognise(data)
    _quiet()
    try:
        if kind == "WebP":
            _check_webp(data, webp.size(data))
        with opener(io.BytesIO(data)) as image:
            _check_size(image.size)
            deep.separate(image)
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


# What the header says


def _rules(kind: str, image: ImageFile.ImageFile) -> int:
    later = kind in ("HEIC", "AVIF") or deep.is_deep(image) or convert.profile(image) is not None
    return RULES if later else DECODE_RULES


def _remarks(image: ImageFile.ImageFile) -> Iterator[str]:
    if getattr(image, "is_animated", False):
        yield (
            "the primary one of several pictures" if image.format == "HEIF" else "the first of several frames or pages"
        )
    if deep.has_16_bits(image) or image.mode.startswith("I;16"):
        yield "more than 8 bits, reduced to 8"
    if image.mode in ("I", "F"):
        yield "32 bits, scaled to 8"
    if (to_srgb := convert.profile(image)) is not None:
        yield f"colour profile {to_srgb.name}, converted to sRGB"
    elif image.mode == "CMYK":
        yield "inks (CMYK), converted without a profile"
    if isinstance(image, TiffImageFile) and 0 in image.tag_v2.get(Tag.ExtraSamples, ()):
        yield "bands beside the colours, left out"
    if image.info.get("bit_depth", 8) > 8:
        yield f"{image.info['bit_depth']} bits, reduced to 8"


# bytes of a pixel, about
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}  # in Pillow's memory; else 4
_DECODERS = {"WebP": 10, "AVIF": 12, "HEIC": 12}  # what decoders hold beside it
_AGAIN = 14  # more for a lossless WebP, which is decoded twice at times (see `complete`)


def _check_memory(data: bytes, kind: str, image: ImageFile.ImageFile, min_side: int) -> int:
    """Return how many bytes it takes to decode the image; raise BrokenImage if they are more than are accepted."""
    if isinstance(image, JpegImageFile):
        return _accepted(jpeg.memory(image, min_side), kind, image.size)
    stored = _STORED.get(image.mode, 4) * (2 if deep.is_deep(image) else 1)
    return _accepted(image.width * image.height * (stored + _beside(data, kind)), kind, image.size)


def _check_webp(data: bytes, size: tuple[int, int]) -> None:
    """Refuse a WebP before it is opened, which takes memory for all pixels."""
    _accepted(size[0] * size[1] * (4 + _beside(data, "WebP")), "WebP", size)


def _beside(data: bytes, kind: str) -> int:
    """Return how many bytes a pixel takes beside what Pillow stores: in what is returned, and in the decoder."""
    again = _AGAIN if kind == "WebP" and webp.is_decoded_twice(data) else 0
    return 3 + _DECODERS.get(kind, 0) + again


def _accepted(needed: int, kind: str, size: tuple[int, int]) -> int:
    if needed > budget.LIMIT:
        raise BrokenImage(
            f"to decode {size[0]} x {size[1]} pixels of {kind} takes {needed / 1e9:.1f} GB of memory, more than the "
            f"accepted {budget.LIMIT / 1e9:.1f} GB; make the image smaller"
        )
    return needed


# Pixels

_WRONG_FAX = "Bad code word"  # of libtiff's errors the only one after which it goes on, with other pixels


def _decode(data: bytes, kind: str, image: ImageFile.ImageFile, min_side: int) -> Pixels:
    """Return the pixels as stored, or, of a TIFF, upright."""
    to_srgb = convert.profile(image)
    if isinstance(image, JpegImageFile):
        pixels = jpeg.decode(data, image, min_side)
        if pixels is not None:
            if to_srgb:
                convert.apply(to_srgb, pixels, convert.colour_space(image))
            return pixels
    if kind == "PNG":
        PngImageFile(io.BytesIO(data)).verify()  # load() checks no checksum of the pixels
    lower, size = _lower_bytes(data, image), image.size
    with workaround_libtiff_stderr.listening() as errors:
        image.load()
        if image.size != size:
            raise BrokenImage(
                f"the {kind} is damaged: it says {size[0]} x {size[1]} and has {image.width} x {image.height}"
            )
        if any(_WRONG_FAX in error for error in errors):
            raise BrokenImage(f"the {kind} is damaged: rows of the fax have no code")
        complete.check(data, image)
    return convert.to_pixels(image, to_srgb, lower)


def _lower_bytes(data: bytes, image: ImageFile.ImageFile) -> deep.LowerBytes | None:
    if not deep.is_deep(image):
        return None
    again = type(image)(io.BytesIO(data))
    deep.separate(again)
    key = image.info.pop("transparency", None)
    return deep.LowerBytes(again, key if isinstance(key, tuple) else None)


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


def _upright(pixels: Pixels, orientation: Any) -> Pixels:
    if orientation not in _TURNS:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TURNS[orientation]))  # faster than NumPy's strides
