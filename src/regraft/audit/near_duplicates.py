"""Whether two files show one picture: compressed, resized, cropped, mirrored, framed, lightened or coloured anew.

Grey squares of the two enter, a correlation leaves. One is laid over the
other: each axis is shifted and stretched on its own, so that a crop, a border
or another shape of the page doesn't matter, as it is and mirrored. Every
placement on a coarse grid is tried; the best is refined (Nelder and Mead
1965). What both show is then compared without its broad light and dark, in
which many pictures are alike (an animal in the middle, a sky above): what is
left, their detail, correlates in copies alone.

Which pairs are worth comparing is left to `suspects.neighbours`: near-copies
are among the pictures whose features are nearest. The limits were chosen on
cats-dogs, with altered copies made of it (see benchmarks/suspects.py): copies
compressed, resized, cropped, mirrored, framed, lightened reached a likeness of
0.97 (but for 1 of 160, a crop that was not aligned), copies tilted by up to
4 degrees 0.66 and more; the nearest pictures that are no copies 0.41 at most.
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

COSINE = 0.7  # of the features, from which two pictures are compared,
NEAREST = 5  # and only if one is among so many nearest of the other
WORTH = 0.75  # correlation on the coarse grid from which it is refined
ALIKE = 0.8  # likeness from which two are one picture

SIDE = 64  # pixels of the grey squares
COARSE, FINE = 8, 32  # pixels a side at which a placement is tried, and refined
SHOWN = 0.6  # share of each side of both that must be in the overlap
TRIES = 160  # placements of one refinement
BROAD = 2.0  # pixels of FINE: the sigma of the light and dark that is taken out


def grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the whole of an image (H, W, 3) as a grey square, (SIDE, SIDE) uint8; its shape is not kept."""
    from PIL import Image

    square = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(square)


def likeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return how alike two grey squares are: the correlation of their detail, -1 to 1, at the best placement.

    0 where no placement on the grid reaches WORTH, or a square is of one grey.
    """
    still = first.astype(np.float32)
    moved = [second.astype(np.float32), second[:, ::-1].astype(np.float32)]
    found = [_on_grid(still, square) for square in moved]
    side = int(found[1][0] > found[0][0])
    best, start = found[side]
    return _of_detail(still, moved[side], _refined(still, moved[side], start)) if best >= WORTH else 0.0


# A placement along one axis: where on the first the two ends of the second lie; 0 and 1 are edge on edge.


def _shared(low: float, high: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return from where to where both show the same, in shares of the first's side and of the second's."""
    start, end = max(low, 0.0), min(high, 1.0)
    return (start, end), ((start - low) / (high - low), (end - low) / (high - low))


def _allowed(low: float, high: float) -> bool:
    if high - low < SHOWN:
        return False
    return all(end - start >= SHOWN - 1e-6 for start, end in _shared(low, high))


def _means(start: float, end: float, count: int) -> Numbers:
    """Return the matrix (count, SIDE) that takes the means of `count` equal stretches from `start` to `end`."""
    edges = np.linspace(start, end, count + 1)[:, None] * SIDE
    pixel = np.arange(SIDE)
    covered = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    means: Numbers = (np.clip(covered, 0, None) / (edges[1:] - edges[:-1])).astype(np.float32)
    return means


_GRID = [place for place in product((-0.3, -0.15, 0, 0.15, 0.3), (0.7, 0.85, 1, 1.15, 1.3)) if _allowed(*place)]
_FIRST, _SECOND = (
    np.concatenate([_means(*_shared(*place)[which], COARSE) for place in _GRID]) for which in (0, 1)
)  # (len(_GRID) * COARSE, SIDE)


def _on_grid(first: Numbers, second: Numbers) -> tuple[float, tuple[float, ...]]:
    """Return the highest correlation on the grid, and its placement: low and high along the height, then the width."""
    found = (_windows(first, _FIRST) * _windows(second, _SECOND)).sum(axis=-1)
    best = int(found.argmax())
    return float(found.flat[best]), (*_GRID[best // len(_GRID)], *_GRID[best % len(_GRID)])


def _windows(square: Numbers, means: Numbers) -> Numbers:
    """Return what is in the overlap at each placement on the grid, (placements, COARSE * COARSE), standardised."""
    places = len(_GRID)
    found = (means @ square @ means.T).reshape(places, COARSE, places, COARSE).swapaxes(1, 2)
    return _standardised(found.reshape(places * places, COARSE * COARSE))


def _refined(first: Numbers, second: Numbers, start: Sequence[float]) -> Placement:
    """Return the placement near `start` at which what both show correlates best."""
    from scipy.optimize import minimize

    def badness(place: Placement) -> float:
        if not (_allowed(*place[:2]) and _allowed(*place[2:])):
            return 1.0
        one, other = (_standardised(seen.reshape(1, -1)) for seen in _overlap(first, second, place))
        return -float((one * other).sum())

    simplex = np.array(start) + np.vstack([np.zeros(4), 0.08 * np.eye(4)])  # about half a step of the grid
    options = {"initial_simplex": simplex, "xatol": 0.01, "fatol": 0.002, "maxfev": TRIES}
    best: Placement = minimize(badness, start, method="Nelder-Mead", options=options).x
    return best


def _overlap(first: Numbers, second: Numbers, place: Placement) -> list[Numbers]:
    """Return what both show, of each (FINE, FINE)."""
    shared = zip((first, second), _shared(*place[:2]), _shared(*place[2:]), strict=True)
    return [_means(*rows, FINE) @ square @ _means(*columns, FINE).T for square, rows, columns in shared]


def _of_detail(first: Numbers, second: Numbers, place: Placement) -> float:
    """Return the correlation of what both show without its broad light and dark."""
    from scipy.ndimage import gaussian_filter

    details = [
        (seen - gaussian_filter(seen, BROAD, mode="nearest"))[1:-1, 1:-1] for seen in _overlap(first, second, place)
    ]
    one, other = (_standardised(detail.reshape(1, -1)) for detail in details)
    return float((one * other).sum())


def _standardised(rows: Numbers) -> Numbers:
    """Return rows of mean 0 and length 1; a row of equal numbers becomes zeros."""
    centred = rows - rows.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    standardised: Numbers = centred / np.where(length > 1e-2 * np.sqrt(rows.shape[-1]), length, np.inf)
    return standardised
