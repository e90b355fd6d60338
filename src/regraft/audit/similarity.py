"""Whether two files show one picture, though one was compressed, resized, cropped, mirrored, framed or recoloured.

Grey thumbnails of the two enter, a correlation leaves. One is laid over the
other: each axis is shifted and stretched on its own, so that a crop, a border
or another aspect ratio doesn't matter, as it is and mirrored. Every placement
on a coarse grid is tried; the best is refined (Nelder and Mead 1965). The
overlap is then compared without its broad light and dark, in which many
pictures are alike (an animal in the middle, a sky above): what is left, the
detail, correlates in versions of one picture alone.

Which pairs are worth comparing is left to `near_duplicates`. The limits were
chosen on cats-dogs, with altered copies made of it (see benchmarks/audit.py):
copies compressed, resized, cropped, mirrored, framed, lightened reached a
similarity of 0.97 (but for 1 of 160, a crop that was not aligned), copies
tilted by up to 4 degrees 0.66 and more; the nearest pictures that are no copies
0.41 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.floating[Any]]
    Placement = NDArray[np.float64]  # where the ends of the second lie: low and high along the height, then the width

SAME = 0.8  # similarity from which two thumbnails show one picture
PROMISING = 0.75  # correlation on the coarse grid from which it is refined

SIDE = 64  # pixels of a thumbnail
COARSE, FINE = 8, 32  # pixels a side at which a placement is tried, and refined
MINIMUM_OVERLAP = 0.6  # of each side of both
EVALUATIONS = 160  # of one refinement
SIGMA = 2.0  # pixels of FINE: of the blur that is the broad light and dark


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the whole of an image (H, W, 3) as a grey thumbnail, (SIDE, SIDE) uint8; its aspect ratio is not kept."""
    from PIL import Image

    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(grey)


def same_picture(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Return whether two thumbnails show one picture."""
    return similarity(first, second) >= SAME


def similarity(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return how similar two thumbnails are: the correlation of their detail, -1 to 1, at the best placement.

    0 where no placement on the grid is promising, or a thumbnail is of one grey.
    """
    reference = first.astype(np.float32)
    versions = [second.astype(np.float32), second[:, ::-1].astype(np.float32)]
    placed = [_on_grid(reference, version) for version in versions]
    mirrored = int(placed[1][0] > placed[0][0])
    correlation, start = placed[mirrored]
    if correlation < PROMISING:
        return 0.0
    return _of_detail(reference, versions[mirrored], _refined(reference, versions[mirrored], start))


# A placement along one axis: where on the first the two ends of the second lie; 0 and 1 are edge on edge.


def _overlap(low: float, high: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return from where to where both overlap, as fractions of the first's side and of the second's."""
    start, end = max(low, 0.0), min(high, 1.0)
    return (start, end), ((start - low) / (high - low), (end - low) / (high - low))


def _allowed(low: float, high: float) -> bool:
    if high - low < MINIMUM_OVERLAP:
        return False
    return all(end - start >= MINIMUM_OVERLAP - 1e-6 for start, end in _overlap(low, high))


def _means(start: float, end: float, count: int) -> Numbers:
    """Return the matrix (count, SIDE) that takes the means of `count` equal intervals from `start` to `end`."""
    edges = np.linspace(start, end, count + 1)[:, None] * SIDE
    pixel = np.arange(SIDE)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    means: Numbers = (np.clip(covered, 0, None) / (edges[1:] - edges[:-1])).astype(np.float32)
    return means


_GRID = [axis for axis in product((-0.3, -0.15, 0, 0.15, 0.3), (0.7, 0.85, 1, 1.15, 1.3)) if _allowed(*axis)]
_FIRST, _SECOND = (
    np.concatenate([_means(*_overlap(*axis)[which], COARSE) for axis in _GRID]) for which in (0, 1)
)  # (len(_GRID) * COARSE, SIDE)


def _on_grid(first: Numbers, second: Numbers) -> tuple[float, tuple[float, ...]]:
    """Return the highest correlation on the grid, and its placement: low and high along the height, then the width."""
    correlations = (_windows(first, _FIRST) * _windows(second, _SECOND)).sum(axis=-1)
    best = int(correlations.argmax())
    return float(correlations.flat[best]), (*_GRID[best // len(_GRID)], *_GRID[best % len(_GRID)])


def _windows(image: Numbers, means: Numbers) -> Numbers:
    """Return the overlap at each placement on the grid, (placements, COARSE * COARSE), standardised."""
    count = len(_GRID)
    windows = (means @ image @ means.T).reshape(count, COARSE, count, COARSE).swapaxes(1, 2)
    return _standardised(windows.reshape(count * count, COARSE * COARSE))


def _refined(first: Numbers, second: Numbers, start: Sequence[float]) -> Placement:
    """Return the placement near `start` at which the overlaps correlate best."""
    from scipy.optimize import minimize

    def loss(placement: Placement) -> float:
        if not (_allowed(*placement[:2]) and _allowed(*placement[2:])):
            return 1.0
        one, other = (_standardised(overlap.reshape(1, -1)) for overlap in _overlaps(first, second, placement))
        return -float((one * other).sum())

    simplex = np.array(start) + np.vstack([np.zeros(4), 0.08 * np.eye(4)])  # about half a step of the grid
    options = {"initial_simplex": simplex, "xatol": 0.01, "fatol": 0.002, "maxfev": EVALUATIONS}
    best: Placement = minimize(loss, start, method="Nelder-Mead", options=options).x
    return best


def _overlaps(first: Numbers, second: Numbers, placement: Placement) -> list[Numbers]:
    """Return the overlapping region of each, (FINE, FINE)."""
    regions = zip((first, second), _overlap(*placement[:2]), _overlap(*placement[2:]), strict=True)
    return [_means(*rows, FINE) @ image @ _means(*columns, FINE).T for image, rows, columns in regions]


def _of_detail(first: Numbers, second: Numbers, placement: Placement) -> float:
    """Return the correlation of the overlapping regions without their broad light and dark."""
    from scipy.ndimage import gaussian_filter

    details = [
        (overlap - gaussian_filter(overlap, SIGMA, mode="nearest"))[1:-1, 1:-1]
        for overlap in _overlaps(first, second, placement)
    ]
    one, other = (_standardised(detail.reshape(1, -1)) for detail in details)
    return float((one * other).sum())


def _standardised(rows: Numbers) -> Numbers:
    """Return rows of mean 0 and length 1; a row of equal numbers becomes zeros."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    standardised: Numbers = centred / np.where(length > 1e-2 * np.sqrt(rows.shape[-1]), length, np.inf)
    return standardised
