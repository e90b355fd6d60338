"""Resizing an image with a filter that widens as the image shrinks, as Pillow and torch do.

Bilinear and bicubic give torch's pixels, bit for bit, whether torch computes
them or, where it is not imported, NumPy: a prediction must not wait a second for
torch. Its import pays from about a hundred images on (`import_torch_for`). All
other filters are Pillow's.
"""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

_TORCH_PAYS = 100  # images; NumPy takes about 10 ms longer for each, the import of torch 1.5 s on two cores
_LARGE = 2**24  # numbers of an image that only torch resizes, in little memory
_BITS = 15  # of torch's filter weights, with their sign 16; Pillow's have 22
_BLOCK = 16  # rows of the result that one matrix product computes


def resized(pixels: Pixels, sides: tuple[int, int], interpolation: str) -> Pixels:
    """Return an image (H, W, 3) uint8 at (height, width) `sides`."""
    if interpolation not in ("bilinear", "bicubic"):
        return by_pillow(pixels, sides, interpolation)
    if "torch" in sys.modules or pixels.size > _LARGE:
        return _by_torch(pixels, sides, interpolation)
    return by_numpy(pixels, sides, interpolation)


def import_torch_for(images: int) -> None:
    """Import torch if so many images will be resized that its speed makes up for the import."""
    if images >= _TORCH_PAYS:
        import torch  # noqa: F401


def by_pillow(pixels: Pixels, sides: tuple[int, int], interpolation: str, box: Any = None) -> Pixels:
    """Return an image, or the box (left, top, right, bottom) of it, resized by Pillow."""
    import numpy as np
    from PIL import Image

    height, width = sides
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling[interpolation.upper()], box))


def _by_torch(pixels: Pixels, sides: tuple[int, int], interpolation: str) -> Pixels:
    import numpy as np
    import torch

    batch = torch.from_numpy(np.require(pixels, requirements=("C", "W")))[None].permute(0, 3, 1, 2)  # channels-last
    result = torch.nn.functional.interpolate(batch, sides, mode=interpolation, antialias=True)
    return cast("Pixels", result.permute(0, 2, 3, 1)[0].numpy())


def by_numpy(pixels: Pixels, sides: tuple[int, int], interpolation: str) -> Pixels:
    """Return an image resized by the integer arithmetic of torch's `interpolate(…, antialias=True)`.

    First all rows to their width, then all columns to their height; each pass rounds and clips to 0…255.
    Source: aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h and UpSampleKernel.cpp.
    """
    (height, width, _), (new_height, new_width) = pixels.shape, sides
    columns = _filtered(pixels.transpose(1, 0, 2).reshape(width, height * 3), new_width, interpolation)
    rows = columns.reshape(new_width, height, 3).transpose(1, 0, 2).reshape(height, new_width * 3)
    return _filtered(rows, new_height, interpolation).reshape(new_height, new_width, 3)


class _Band(NamedTuple):
    """Rows `start` to `end` of a result, which are `weights` times the rows `first` to `last` of the source."""

    start: int
    end: int
    first: int
    last: int
    weights: np.ndarray


def _filtered(source: Pixels, size: int, interpolation: str) -> Pixels:
    """Return (size, m) uint8 of a source (n, m) uint8, filtered along its first axis."""
    import numpy as np

    if len(source) == size:
        return source
    result = np.empty((size, source.shape[1]), np.uint8)
    for band in _bands(len(source), size, interpolation):
        values = band.weights @ source[band.first : band.last].astype(band.weights.dtype)
        result[band.start : band.end] = np.clip(np.floor(values + 0.5), 0, 255)
    return result


@functools.lru_cache(maxsize=64)
def _bands(size: int, new_size: int, interpolation: str) -> tuple[_Band, ...]:
    """Return the filter as matrices; sums with their weights are exact in their type."""
    import numpy as np

    first, last, weights, bits = _integer_weights(size, new_size, interpolation)
    largest = 255 * np.abs(weights).sum(axis=1).max() + 2**bits
    exact = np.float32 if largest < 2**24 else np.float64
    bands = []
    for start in range(0, new_size, _BLOCK):
        end = min(start + _BLOCK, new_size)
        low, high = int(first[start]), int(last[start:end].max())
        matrix = np.zeros((end - start, high - low), exact)
        for row in range(start, end):
            count = last[row] - first[row]
            matrix[row - start, first[row] - low : last[row] - low] = weights[row, :count] / 2**bits
        bands.append(_Band(start, end, low, high, matrix))
    return tuple(bands)


def _integer_weights(size: int, new_size: int, interpolation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return for each pixel of the result the first and the last source pixel, and their weights times 2 ** bits."""
    import numpy as np

    kernel, support = (_linear, 1) if interpolation == "bilinear" else (_cubic, 2)
    scale = size / new_size
    width = max(scale, 1.0)
    centers = scale * (np.arange(new_size) + 0.5)
    first = np.maximum((centers - support * width + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support * width + 0.5).astype(np.int64), size)
    positions = first[:, None] + np.arange((last - first).max())
    weights = kernel((positions - centers[:, None] + 0.5) * (1 / width)) * (positions < last[:, None])
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # summed one by one, as in torch
    bits = 0
    while bits < 22 and int(0.5 + weights.max() * 2 ** (bits + 1)) < 2**_BITS:
        bits += 1
    scaled = weights * 2**bits
    return first, last, np.trunc(scaled + np.copysign(0.5, scaled)), bits


def _linear(distance: np.ndarray) -> np.ndarray:
    import numpy as np

    values: np.ndarray = np.maximum(1 - np.abs(distance), 0)
    return values


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Return Keys's cubic with a = -0.5."""
    import numpy as np

    x, a = np.abs(distance), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    values: np.ndarray = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return values
