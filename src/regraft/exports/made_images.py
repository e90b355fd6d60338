"""About twenty image files made here, of the kinds that trip an export up: odd sizes, turns, grey, alpha, palettes."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.ExifTags import Base as Tag

SIZES = ((1, 1), (1, 9), (9, 1), (7, 5), (33, 17), (224, 224), (257, 129), (375, 500), (40, 1200), (2000, 1500))
LARGE = (4096, 4096)
TURNS = (2, 3, 4, 5, 6, 7, 8)  # of EXIF
MODES = ("1", "L", "LA", "P", "RGBA", "CMYK")


def made_images() -> Iterator[tuple[str, bytes]]:
    """Yield names and the bytes of image files, the same ones each time."""
    for number, (width, height) in enumerate(SIZES):
        yield f"made {width} x {height}", _file(_picture(width, height, number), "PNG")
    yield f"made {LARGE[0]} x {LARGE[1]}", _file(_picture(*LARGE, 100), "JPEG")
    for turn in TURNS:
        exif = Image.Exif()
        exif[Tag.Orientation] = turn
        yield f"made with EXIF orientation {turn}", _file(_picture(320, 240, 200 + turn), "JPEG", exif=exif)
    for number, mode in enumerate(MODES):
        kind = "JPEG" if mode == "CMYK" else "PNG"
        yield f"made in mode {mode}", _file(_in_mode(_picture(300, 200, 300 + number), mode), kind)


def _picture(width: int, height: int, seed: int) -> Image.Image:
    """Return a picture of soft patches of colour, as photographs have them."""
    patches = np.random.default_rng(seed).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode not in ("LA", "RGBA"):
        return picture.convert(mode)
    alpha = Image.linear_gradient("L").resize(picture.size)
    picture.putalpha(alpha)
    return picture.convert(mode)


def _file(picture: Image.Image, kind: str, **settings: object) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind, **settings)
    return data.getvalue()
