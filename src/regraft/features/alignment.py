"""Whether two thumbnails show one picture, though one was compressed, resized, mirrored or lightly cropped.

Two fingerprints enter (see `similar`), yes or no leaves; many pairs are compared at once.

The second thumbnail is laid over the first: each axis is shifted and stretched on its own, fitted to the
grey levels, coarse to fine (Lucas and Kanade 1981). What is left of the difference is measured in windows, beside what
either shows there: versions of one picture differ little in every window, while two bottles of one kind differ on the
label. Colour is compared in the same position, so that a red lid is not a blue one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.floating[Any]]

SIDE = 32  # pixels of a thumbnail's grey levels
COLOUR_SIDE = 16  # and of its colours: blue-yellow and red-green, the Cb and Cr of JPEG
SIZE = SIDE**2 + 2 * COLOUR_SIDE**2

DIFFERENCE = 0.15  # of the grey levels in the worst window, as a fraction of the variance of both; see `_differences`
COLOUR_DIFFERENCE = 6.0  # levels of 255, in the worst window
PROMISING = 0.7  # correlation after the coarse alignment from which it is refined

WINDOW, COLOUR_WINDOW = 8, 4  # pixels a side
OVERLAP = 0.4  # of the first that the second must cover
INSIDE = 0.8  # of a window that both thumbnails must cover
NOISE = 16.0  # squared levels: a variance that compression leaves where a picture is plain
SHARPEST = 0.7  # pixels of the blur that takes off what the resampling of a crop changes
LEVELS = ((2, 1.5, 4), (1, 1.5, 3), (1, SHARPEST, 3))  # pixels in one, blur, steps
MOST_STRETCHED, MOST_SHIFTED = 1.25, SIDE / 8
PAIRS = 512  # compared at once: some 60 MB


class Placement(NamedTuple):
    """Where the first lies on the second: scale and shift from the centre, (2, n) each, down and across."""

    scale: Numbers
    shift: Numbers  # pixels of SIDE

    def take(self, rows: NDArray[Any]) -> Placement:
        """Return the placements of these pairs."""
        return Placement(self.scale[:, rows], self.shift[:, rows])


def same_picture(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return for each pair of fingerprints, (n, SIZE) each, whether they show one picture: (n,) bool."""
    parts = [slice(start, start + PAIRS) for start in range(0, len(first), PAIRS)]
    return np.concatenate([np.empty(0, bool), *(_same(first[part], second[part]) for part in parts)])


def correlations(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Numbers:
    """Return the correlation of the grey levels of pairs of fingerprints, (n,), at the best placement, also mirrored.

    A frame, other light or a small turn leaves it high. 0 where less than OVERLAP of the first is covered.
    """
    parts = [slice(start, start + PAIRS) for start in range(0, len(first), PAIRS)]
    return np.concatenate([np.empty(0, np.float32), *(_best(first[part], second[part]) for part in parts)])


def _best(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Numbers:
    grey, other_grey = grey_levels(first), grey_levels(second)
    ways = [_correlation(grey, other) for other in (other_grey, other_grey[:, :, ::-1])]
    return np.maximum(*ways)


def _correlation(first: Numbers, second: Numbers) -> Numbers:
    placement = _aligned(first, second, LEVELS)
    return _correlations(first, second, placement, 1, SHARPEST)


def colours(fingerprints: NDArray[np.uint8]) -> Numbers:
    """Return the colours of fingerprints, (n, 2, COLOUR_SIDE, COLOUR_SIDE) float32; 128 is grey."""
    return fingerprints[:, SIDE**2 :].reshape(-1, 2, COLOUR_SIDE, COLOUR_SIDE).astype(np.float32)


def grey_levels(fingerprints: NDArray[np.uint8]) -> Numbers:
    """Return the grey levels of fingerprints, (n, SIDE, SIDE) float32."""
    return fingerprints[:, : SIDE**2].reshape(-1, SIDE, SIDE).astype(np.float32)


def halves(grey: Numbers) -> tuple[Numbers, Numbers]:
    """Return the sums and the differences of mirrored columns, (n, pixels / 2) each, of pictures (n, …, columns).

    Together they are a rotation of the pixels; in the mirrored picture the differences change their sign.
    """
    middle = grey.shape[-1] // 2
    left, right = grey[..., :middle], grey[..., : middle - 1 : -1]
    root = np.float32(np.sqrt(0.5))
    return ((left + right) * root).reshape(len(grey), -1), ((left - right) * root).reshape(len(grey), -1)


def _same(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    grey, other_grey = grey_levels(first), grey_levels(second)
    mirrored = (halves(grey)[1] * halves(other_grey)[1]).sum(axis=1) < 0
    other_grey[mirrored] = other_grey[mirrored, :, ::-1]
    placement = _aligned(grey, other_grey, LEVELS[:1])
    same: NDArray[np.bool_] = _correlations(grey, other_grey, placement) >= PROMISING
    if not same.any():
        return same
    grey, other_grey = grey[same], other_grey[same]
    placement = _aligned(grey, other_grey, LEVELS[1:], placement.take(same))
    alike = _differences(grey, other_grey, placement) <= DIFFERENCE
    colour, other_colour = colours(first[same]), colours(second[same])
    other_colour[mirrored[same]] = other_colour[mirrored[same], :, :, ::-1]
    same[same] = alike & (_colour_differences(colour, other_colour, placement) <= COLOUR_DIFFERENCE)
    return same


# Where the second lies


def _aligned(
    first: Numbers, second: Numbers, levels: tuple[tuple[int, float, int], ...], start: Placement | None = None
) -> Placement:
    """Return the placement at which two pictures, (n, SIDE, SIDE) each, differ least, refined level by level."""
    placement = start or Placement(*np.stack([np.ones((2, len(first))), np.zeros((2, len(first)))]).astype(np.float32))
    for pixels, blur, steps in levels:
        one, other = (_blurred(reduced(image, pixels), blur) for image in (first, second))
        with_slopes = np.stack([other, np.gradient(other, axis=1), np.gradient(other, axis=2)])
        for _ in range(steps):
            placement = _improved(placement, one, with_slopes)
    return placement


def _improved(placement: Placement, first: Numbers, second: Numbers) -> Placement:
    """Return the placement after a step of Gauss and Newton: shift and scale along both axes.

    second: the second, and its slopes down and across, (3, n, side, side).
    """
    side = first.shape[1]
    (laid, down, across), inside = _laid(second, placement)
    axis = np.linspace(-1, 1, side, dtype=np.float32) * (side - 1) / side  # from the centre, in halves of a side
    steps = np.stack([down, down * axis[:, None], across, across * axis], axis=1).reshape(len(first), 4, -1)
    rest = _centred(first - laid, inside).reshape(len(first), -1, 1)
    hessian = steps @ steps.swapaxes(1, 2)
    damping = 1e-3 * np.trace(hessian, axis1=1, axis2=2) / 4 + 1e-2  # where a picture is plain, nothing moves
    change = np.linalg.solve(hessian + damping[:, None, None] * np.eye(4, dtype=np.float32), steps @ rest)[..., 0]
    change = np.clip(change, -side / 16, side / 16).T
    return Placement(
        np.clip(placement.scale + change[1::2] * (2 / side), 1 / MOST_STRETCHED, MOST_STRETCHED),
        np.clip(placement.shift + change[::2] * (SIDE / side), -MOST_SHIFTED, MOST_SHIFTED),
    )


def _laid(images: Numbers, placement: Placement) -> tuple[Numbers, Numbers]:
    """Return images (…, n, side, side) as they lie on the first, 0 outside, and 1 where they are inside, else 0."""
    (rows, inside_rows), (columns, inside_columns) = (
        _interpolation(scale, shift, images.shape[-1]) for scale, shift in zip(*placement, strict=True)
    )
    return rows @ images @ columns.swapaxes(1, 2), inside_rows[:, :, None] * inside_columns[:, None]


def _interpolation(scale: Numbers, shift: Numbers, side: int) -> tuple[Numbers, Numbers]:
    """Return matrices (n, side, side) of cubic convolution along an axis (Keys 1981), and what is inside, (n, side)."""
    centre, pad = np.float32((side - 1) / 2), 3
    position = scale[:, None] * (np.arange(side, dtype=np.float32) - centre) + shift[:, None] * (side / SIDE) + centre
    first = np.floor(position).clip(-2, side)
    after = position - first
    taps = np.stack([_cubic_far(1 + after), _cubic_near(after), _cubic_near(1 - after), _cubic_far(2 - after)], axis=2)
    weights = np.zeros((*position.shape, side + 2 * pad), np.float32)
    np.put_along_axis(weights, first[:, :, None].astype(np.intp) + np.arange(pad - 1, pad + 3), taps, axis=2)
    weights = weights[:, :, pad:-pad]
    inside = (np.abs(position - centre) <= centre + 0.25).astype(np.float32)
    return weights * (inside / np.where(inside, weights.sum(axis=2), 1))[:, :, None], inside


def _cubic_near(distance: Numbers) -> Numbers:  # up to 1
    return (1.5 * distance - 2.5) * distance**2 + 1


def _cubic_far(distance: Numbers) -> Numbers:  # from 1 to 2
    return ((-0.5 * distance + 2.5) * distance - 4) * distance + 2


def reduced(image: Numbers, pixels: int) -> Numbers:
    """Return means of so many pixels a side, of pictures (…, side, side)."""
    side = image.shape[-1] // pixels
    means: Numbers = image.reshape(*image.shape[:-2], side, pixels, side, pixels).mean(axis=(-3, -1), dtype=np.float32)
    return means


def _blurred(image: Numbers, sigma: float) -> Numbers:
    blur = _gaussian(image.shape[-1], sigma)
    blurred: Numbers = blur @ image @ blur.T
    return blurred


@cache
def _gaussian(side: int, sigma: float) -> Numbers:
    """Return the matrix (side, side) that blurs along an axis; beyond the edge weighs nothing."""
    pixel = np.arange(side, dtype=np.float32)
    weights = np.exp(-((pixel[:, None] - pixel) ** 2) / (2 * sigma**2))
    normalised: Numbers = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normalised


# How much the two differ


def _centred(image: Numbers, inside: Numbers) -> Numbers:
    """Return an image without its mean, 0 outside."""
    mean = (image * inside).sum(axis=(1, 2)) / np.maximum(inside.sum(axis=(1, 2)), 1)
    centred: Numbers = (image - mean[:, None, None]) * inside
    return centred


def _correlations(
    first: Numbers, second: Numbers, placement: Placement, pixels: int = LEVELS[0][0], blur: float = LEVELS[0][1]
) -> Numbers:
    """Return the correlation of the overlap (n,), at the coarsest level; 0 where one is plain, or little overlaps."""
    one, other = (_blurred(reduced(image, pixels), blur) for image in (first, second))
    laid, inside = _laid(other, placement)
    one, laid = _centred(one, inside), _centred(laid, inside)
    lengths = np.sqrt((one**2).sum(axis=(1, 2)) * (laid**2).sum(axis=(1, 2)))
    correlations: Numbers = (one * laid).sum(axis=(1, 2)) / np.maximum(lengths, NOISE * inside[0].size)
    return np.where(inside.mean(axis=(1, 2)) >= OVERLAP, correlations, 0)


def _differences(first: Numbers, second: Numbers, placement: Placement) -> Numbers:
    """Return the mean squared difference in the window where it is largest beside the variances of both there, (n,)."""
    one, other = _blurred(first, SHARPEST), _blurred(second, SHARPEST)
    laid, inside = _laid(other, placement)
    covered = _window_means(inside, WINDOW)

    def means(values: Numbers) -> Numbers:
        return _window_means(values * inside, WINDOW) / np.maximum(covered, 1e-3)

    variances = means(one**2) - means(one) ** 2 + means(laid**2) - means(laid) ** 2
    differences = means(_centred(one - laid, inside) ** 2) / (np.maximum(variances, 0) + NOISE)
    worst: Numbers = np.where(covered >= INSIDE, differences, 0).max(axis=(1, 2), initial=0)
    return worst


def _colour_differences(first: Numbers, second: Numbers, placement: Placement) -> Numbers:
    """Return the distance of the mean colours in the window where it is largest, (n,)."""
    apart = []
    for channel in (0, 1):
        laid, inside = _laid(second[:, channel], placement)
        apart.append(_window_means((first[:, channel] - laid) * inside, COLOUR_WINDOW) ** 2)
    worst: Numbers = np.sqrt(apart[0] + apart[1]).max(axis=(1, 2), initial=0)
    return worst


def _window_means(image: Numbers, side: int) -> Numbers:
    """Return the means of all windows that are whole, (n, …)."""
    sums = np.pad(image, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1, dtype=np.float64).cumsum(axis=2)
    whole = sums[:, side:, side:] - sums[:, :-side, side:] - sums[:, side:, :-side] + sums[:, :-side, :-side]
    means: Numbers = (whole / side**2).astype(np.float32)
    return means
