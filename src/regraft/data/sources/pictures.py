"""Pictures in memory as inputs: the bytes of an image file, PIL images, arrays of pixels.

A picture enters, rows leave whose bytes go the way of every file's: an image
or an array is encoded without loss first, so that one rule decodes them all.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from regraft.core.errors import DataError
from regraft.data.index import Row

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # the other modes of Pillow's are kept by TIFF


@dataclass(frozen=True, slots=True)
class BytesLocation:
    """The bytes of an image file, in memory."""

    data: bytes = field(repr=False)

    def head(self) -> bytes:
        """Return the bytes; they are in memory all the same."""
        return self.data

    def read(self) -> bytes:
        """Return the bytes."""
        return self.data

    def stamp(self) -> int:
        """Return a number that never changes, as the bytes do not."""
        return 1


def is_picture(value: object) -> bool:
    """Tell bytes, a PIL image and an array from a path, without importing NumPy or Pillow."""
    numpy, image = sys.modules.get("numpy"), sys.modules.get("PIL.Image")
    kinds = (bytes, bytearray, memoryview, *((numpy.ndarray,) if numpy else ()), *((image.Image,) if image else ()))
    return isinstance(value, kinds) and not (numpy is not None and _holds_objects(value))


def _holds_objects(value: Any) -> bool:
    """Whether a value is an array of paths."""
    return getattr(getattr(value, "dtype", None), "kind", "") in ("O", "U")


def rows(value: Any, number: int) -> Iterator[Row]:
    """Yield a row for each picture of a value; they are called "image 1", "image 2", …

    value:  bytes of an image file; a PIL image; an array (H, W, 3), (H, W) or (n, H, W, 3) uint8.
    number: of the first picture.
    Raises DataError for an array of another shape or type.
    """
    for offset, data in enumerate(_encoded(value)):
        yield Row(path=f"image {number + offset}", location=BytesLocation(data))


def _encoded(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes | bytearray | memoryview):
        yield bytes(value)
    elif hasattr(value, "dtype"):
        yield from _arrays(value)
    else:
        yield _image(value)


def _arrays(array: Any) -> Iterator[bytes]:
    from PIL import Image

    images = array if array.ndim == 4 else array[None]
    if array.dtype != "uint8" or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise DataError(
            f"An array has the shape {array.shape} and the type {array.dtype}; expected (H, W, 3), (H, W) or "
            "(n, H, W, 3), uint8: red, green and blue from 0 to 255."
        )
    for pixels in images:
        yield _image(Image.fromarray(pixels))


def _image(image: Any) -> bytes:
    file = io.BytesIO()
    kind, more = ("PNG", {"compress_level": 1}) if image.mode in _PNG_MODES else ("TIFF", {})
    image.save(file, format=kind, exif=image.getexif(), **more)  # how it is turned upright is said there
    return file.getvalue()
