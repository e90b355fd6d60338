"""Resizing an image with a filter that widens as the image shrinks, as Pillow and torch do.

Bilinear and bicubic give torch's pixels, bit for bit, whether torch computes
them or, where it is not imported, NumPy: a prediction must not wait a second for
torch. Its import pays from 1,500 images on (`import_torch_for`). All
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
    Window: TypeAlias = tuple[slice, slice]

WHOLE = (slice(None), slice(None))

_TORCH_PAYS = 1500  # images; NumPy takes 0.8 ms longer for each (large ones 2.4), the import of torch 1.2 s
_BITS = 15  # of torch's filter weights, with their sign 16; Pillow's have 22
_BLOCK = 16  # pixels of the result, along one axis, that one matrix product computes
_PRODUCT = 2**17  # multiplications in a matrix product: it fits the processor's cache, OpenBLAS starts no threads


def resized(pixels: Pixels, sides: tuple[int, int], interpolation: str, kept: Window = WHOLE) -> Pixels:
    """Return an image (H, W, 3) uint8 at (height, width) `sides`, or the rows and columns of that which are `kept`."""
    if interpolation in ("bilinear", "bicubic"):
        by = _by_torch if "torch" in sys.modules else by_numpy
        return by(pixels, sides, interpolation, kept)
    return by_pillow(pixels, sides, interpolation)[kept]


def import_torch_for(images: int, *, views: bool) -> None:
    """Import torch if `views`, which need it, will be drawn, or so many images resized that it makes up for that."""
    if views or images >= _TORCH_PAYS:
        import torch  # noqa: F401


def by_pillow(pixels: Pixels, sides: tuple[int, int], interpolation: str, box: Any = None) -> Pixels:
    """Return an image, or the box (left, top, right, bottom) of it, resized by Pillow."""
    import numpy as np
    from PIL import Image

    height, width = sides
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling[interpolation.upper()], box))


def _by_torch(pixels: Pixels, sides: tuple[int, int], interpolation: str, kept: Window) -> Pixels:
    import numpy as np
    import torch

    batch = torch.from_numpy(np.require(pixels, requirements=("C", "W")))[None].permute(0, 3, 1, 2)  # channels-last
    result = torch.nn.functional.interpolate(batch, sides, mode=interpolation, antialias=True)
    return cast("Pixels", result.permute(0, 2, 3, 1)[0].numpy()[kept])


def by_numpy(pixels: Pixels, sides: tuple[int, int], interpolation: str, kept: Window = WHOLE) -> Pixels:
    """Return an image resized by the integer arithmetic of torch's `interpolate(…, antialias=True)`.

    First all rows to their width, then all columns to their height; each pass rounds and clips to 0…255.
    Source: aten/src/ATen/native/cpu/UpSampleKernelAVXAntialias.h and UpSampleKernel.cpp.
    """
    import numpy as np

    ranges = [range(*part.indices(side)) for side, part in zip(sides, kept, strict=True)]
    rows, columns = (
        _filter(size, side, interpolation, wanted)
        for size, side, wanted in zip(pixels.shape[:2], sides, ranges, strict=True)
    )
    planes = _filtered_columns(_filtered_rows(pixels[rows.source, columns.source], columns), rows)
    height, width = map(len, ranges)
    return np.stack(list(planes[:, :height, :width].astype(np.uint8)), axis=-1)


class _Filter(NamedTuple):
    """What makes some pixels of the result, along one axis, of those of the source.

    source:  the pixels that have a part in them.
    blocks:  for each _BLOCK pixels of the result the first one in `source`, and the weights, (span, _BLOCK), of the
             `span` from there on.
    offsets: of each pixel of the result, by which levels of -128…127 weigh what levels of 0…255 do, and a half more, to
             be rounded.
    """

    source: slice
    blocks: list[tuple[int, NDArray[Any]]]
    offsets: NDArray[Any]


def _filtered_rows(pixels: Pixels, columns: _Filter) -> NDArray[Any]:
    """Return (3, H, width) whole levels, less 128, of an image (H, W, 3) whose rows are filtered, a few at a time."""
    import numpy as np

    kind = columns.offsets.dtype
    result = np.empty((3, len(pixels), len(columns.offsets)), kind)
    step = max(1, _PRODUCT // columns.blocks[0][1].size)
    for top in range(0, len(pixels), step):
        part, filtered = pixels[top : top + step], result[:, top : top + step]
        planes = np.empty((3, *part.shape[:2]), kind)
        planes[:] = part.transpose(2, 0, 1)
        planes -= 128
        for number, (first, weights) in enumerate(columns.blocks):
            end = number * _BLOCK + _BLOCK
            np.matmul(planes[:, :, first : first + len(weights)], weights, out=filtered[:, :, end - _BLOCK : end])
        filtered += columns.offsets - 128
        np.floor(filtered, out=filtered)
        filtered.clip(-128, 127, out=filtered)
    return result


def _filtered_columns(planes: NDArray[Any], rows: _Filter) -> NDArray[Any]:
    """Return (3, height, W) levels, still with their fractions, of (3, H, W) levels less 128."""
    import numpy as np

    planes = planes.astype(rows.offsets.dtype, copy=False)
    result = np.empty((3, len(rows.offsets), planes.shape[2]), planes.dtype)
    for number, (first, weights) in enumerate(rows.blocks):
        end = number * _BLOCK + _BLOCK
        np.matmul(weights.T, planes[:, first : first + len(weights)], out=result[:, end - _BLOCK : end])
    result += rows.offsets[:, None]
    return result.clip(0, 255, out=result)


@functools.lru_cache(maxsize=128)
def _filter(size: int, new_size: int, interpolation: str, wanted: range) -> _Filter:
    """Return the filter that makes the wanted ones of `new_size` pixels of `size`; sums in its type are exact."""
    import numpy as np

    first, last, weights, bits = _integer_weights(size, new_size, interpolation)
    part = slice(wanted.start, wanted.stop)
    first, last, weights = first[part], last[part], weights[:, part]
    # float32 holds whole numbers up to 2 ** 24: sums of 128 times weights; a level's 8 bits and 16 for its fraction
    exact = np.float32 if bits <= 16 and 128 * np.abs(weights).sum(axis=0).max() <= 2**24 else np.float64
    block, column = np.divmod(np.arange(len(first)), _BLOCK)
    starts = first[::_BLOCK]
    span = min(int((last - starts[block]).max()), size)
    starts = np.minimum(starts, size - span)
    taps = np.arange(len(weights))[:, None]
    matrices = np.zeros((len(starts), span + len(weights), _BLOCK), exact)
    matrices[block, first - starts[block] + taps, column] = weights / 2**bits
    matrices = matrices[:, :span]  # what is beyond are weights of 0
    return _Filter(
        source=slice(int(starts[0]), int(starts[-1]) + span),
        blocks=list(zip((starts - starts[0]).tolist(), matrices, strict=True)),
        offsets=(128 * matrices.sum(axis=1) + 0.5).ravel(),
    )


def _integer_weights(size: int, new_size: int, interpolation: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return for each pixel of the result the first and the last source pixel, and their weights times 2 ** bits.

    The weights are (taps, new_size); those of pixels after the last one are 0.
    """
    import numpy as np

    kernel, support = (_linear, 1) if interpolation == "bilinear" else (_cubic, 2)
    scale = size / new_size
    width = max(scale, 1.0)
    centers = scale * (np.arange(new_size) + 0.5)
    first = np.maximum((centers - support * width + 0.5).astype(np.int64), 0)
    last = np.minimum((centers + support * width + 0.5).astype(np.int64), size)
    positions = first + np.arange((last - first).max())[:, None]
    weights = kernel((positions - centers + 0.5) * (1 / width)) * (positions < last)
    weights /= np.cumsum(weights, axis=0)[-1]  # summed one by one, as in torch
    bits, largest = 0, float(weights.max())
    while bits < 22 and int(0.5 + largest * 2 ** (bits + 1)) < 2**_BITS:
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
