"""Which images are other versions of a picture: saved again, resized, mirrored or lightly cropped.

Pixels enter and become fingerprints, small thumbnails in grey and colour; a representative for each image leaves. The
candidates are the nearest neighbours of each image by a coarse thumbnail, mirrored too; `alignment` compares them.

No chain is followed: every image was compared with its representative itself, and shows the same picture. Nothing grows
with the square of the number of images but the time of one matrix product.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from regraft.core import threads
from regraft.core.machine import cores
from regraft.core.progress import progress
from regraft.features.alignment import COLOUR_SIDE, PAIRS, SIDE, colours, grey_levels, halves, reduced, same_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from regraft.features.alignment import Numbers

    Fingerprints = NDArray[np.uint8]  # (n, SIZE)
    Pairs = NDArray[np.int64]  # (n, 2)
    Coarse = tuple[Numbers, Numbers]  # (n, width) each

LEAST_SIDE = 64  # pixels that a JPEG keeps when it is decoded for its fingerprint
NEAREST = 8  # candidates of each image, …
COSINE = 0.7  # … at least so near
COARSE, COARSE_COLOUR = 8, 4  # pixels a side of the thumbnail by which candidates are chosen
COLOUR_WEIGHT = 3.0  # of colours beside grey levels: what is of one shape on a plain background differs in them
BLOCK = 512  # rows compared with all at once
PLAIN = 2.0  # standard deviation of its grey levels below which a picture has no candidates


def fingerprint(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the fingerprint of an image (H, W, 3): grey levels and colours of a thumbnail, (SIZE,) uint8."""
    from PIL import Image

    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    grey, *colours = small.convert("YCbCr").split()
    bands = [grey, *(band.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX) for band in colours)]
    return np.concatenate([np.asarray(band).ravel() for band in bands])


def representatives(fingerprints: Fingerprints) -> NDArray[np.int64]:
    """Return for each image, (n,), the row of the one that represents its picture: of most images its own.

    Ties are decided by the order of the rows; sort them by something that lasts.
    """
    pairs = _same_pairs(fingerprints, np.arange(len(fingerprints)))
    chosen = _chosen(fingerprints, pairs)
    while _may_have_more(pairs) and len(more := _new(_same_pairs(fingerprints, np.unique(chosen)), pairs)):
        pairs = np.concatenate([pairs, more])
        chosen = _chosen(fingerprints, pairs)
    return chosen


def shown_by(fingerprints: Fingerprints, known: Fingerprints) -> NDArray[np.int64]:
    """Return for each image, (n,), the row of a `known` one, (m, SIZE), that shows the same picture; -1 for none."""
    coarse, of_known = (_coarse(each, np.arange(len(each))) for each in (fingerprints, known))
    pairs = _nearest_pairs(coarse, of_known, itself=False)
    shown = np.full(len(fingerprints), -1)
    for one, other in reversed(_verified(pairs, fingerprints, known).tolist()):
        shown[one] = other  # the nearest comes last
    return shown


def _same_pairs(fingerprints: Fingerprints, rows: NDArray[np.int64]) -> Pairs:
    """Return the candidates among these rows that show one picture."""
    return _verified(rows[_candidates(fingerprints, rows)], fingerprints, fingerprints)


def _verified(pairs: Pairs, first: Fingerprints, second: Fingerprints) -> Pairs:
    """Return those of the pairs of rows, of the first and of the second, that show one picture."""
    parts = [pairs[start : start + PAIRS] for start in range(0, len(pairs), PAIRS)]

    def same(part: Pairs) -> Pairs:
        return part[same_picture(first[part[:, 0]], second[part[:, 1]])]

    with threads.pool(cores()) as pool, progress("Comparing pictures", len(parts)) as advance:
        kept = [part for part in pool.map(same, parts) if advance(1) is None]
    return np.concatenate([np.empty((0, 2), np.int64), *kept])


def _may_have_more(pairs: Pairs) -> bool:
    """Whether all candidates of an image may have been the same picture, so that others of it were not compared."""
    return bool(len(pairs)) and int(np.bincount(pairs.ravel()).max()) >= NEAREST


def _new(pairs: Pairs, known: Pairs) -> Pairs:
    seen = set(map(tuple, known.tolist()))
    return np.array([pair for pair in pairs.tolist() if tuple(pair) not in seen], np.int64).reshape(-1, 2)


# Candidates


def _candidates(fingerprints: Fingerprints, rows: NDArray[np.int64]) -> Pairs:
    """Return pairs of positions in `rows`, each once, of which one is among the nearest of the other."""
    coarse = _coarse(fingerprints, rows)
    return np.unique(np.sort(_nearest_pairs(coarse, coarse, itself=True), axis=1), axis=0)


def _nearest_pairs(coarse: Coarse, others: Coarse, *, itself: bool) -> Pairs:
    """Return pairs of rows and of the nearest among the others, the nearest first.

    itself: whether the others are the same rows, of which none is its own neighbour.
    """
    sums, differences = coarse

    def nearest(start: int) -> Pairs:
        block = slice(start, start + BLOCK)
        # the cosine of the two, or of one and the other mirrored, whichever is larger
        cosines = sums[block] @ others[0].T + np.abs(differences[block] @ others[1].T)
        rows = np.arange(len(cosines))
        if itself:
            cosines[rows, start + rows] = -1
        pairs = _nearest(cosines)
        pairs[:, 0] += start
        return pairs

    with threads.pool(cores()) as pool:
        pairs = list(pool.map(nearest, range(0, len(sums), BLOCK)))
    return np.concatenate([np.empty((0, 2), np.int64), *pairs])


def _nearest(cosines: Numbers) -> Pairs:
    """Return pairs of rows with their nearest columns, the nearest first; `cosines` is used up."""
    rows = np.arange(len(cosines))
    pairs = [np.empty((0, 2), np.int64)]
    for _ in range(min(NEAREST, cosines.shape[1])):
        columns = cosines.argmax(axis=1)
        near = cosines[rows, columns] >= COSINE
        pairs.append(np.stack([rows, columns], axis=1)[near])
        cosines[rows, columns] = -1
    return np.concatenate(pairs)


def _coarse(fingerprints: Fingerprints, rows: NDArray[np.int64]) -> Coarse:
    """Return `halves` of coarse thumbnails as unit vectors, (n, width) each; of plain pictures zeros."""
    parts = []
    for start in range(0, len(rows), BLOCK):
        block = fingerprints[rows[start : start + BLOCK]]
        grey = reduced(grey_levels(block), SIDE // COARSE)
        grey -= grey.mean(axis=(1, 2), keepdims=True)
        colour = COLOUR_WEIGHT * (reduced(colours(block), COLOUR_SIDE // COARSE_COLOUR) - 128)
        vectors = [np.concatenate(pair, axis=1) for pair in zip(halves(grey), halves(colour), strict=True)]
        length = np.sqrt(sum((vector**2).sum(axis=1, keepdims=True) for vector in vectors))
        parts.append([vector / np.where(length >= PLAIN * COARSE, length, np.inf) for vector in vectors])
    empty = np.empty((0, COARSE**2 // 2 + COARSE_COLOUR**2), np.float32)
    return np.concatenate([empty, *(sums for sums, _ in parts)]), np.concatenate([empty, *(rest for _, rest in parts)])


# Groups


def _chosen(fingerprints: Fingerprints, pairs: Pairs) -> NDArray[np.int64]:
    """Return each image's representative, (n,), so that it shows the same picture as each image that it represents.

    Of those that pairs connect, the one with the most pairs represents all that show the same picture; then the next.
    """
    neighbours: defaultdict[int, set[int]] = defaultdict(set)
    for one, other in pairs.tolist():
        neighbours[one].add(other)
        neighbours[other].add(one)
    chosen = np.arange(len(fingerprints))
    for group in _connected(pairs):
        remaining = sorted(group, key=lambda row: (-len(neighbours[row]), row))
        while remaining:
            centre, *others = remaining
            same = _shown_by(centre, others, neighbours[centre], fingerprints)
            chosen[same] = centre
            remaining = [row for row in others if row not in set(same)]
    return chosen


def _shown_by(centre: int, others: Sequence[int], known: set[int], fingerprints: Fingerprints) -> list[int]:
    """Return which of the others show the same picture as `centre`: those that are known to, and those that do."""
    unknown = np.array([row for row in others if row not in known], np.int64)
    same = same_picture(fingerprints[np.full(len(unknown), centre)], fingerprints[unknown])
    return [row for row in others if row in known or row in set(unknown[same].tolist())]


def _connected(pairs: Pairs) -> list[list[int]]:
    """Return the rows that pairs connect, also in a chain, as lists of two and more."""
    groups: dict[int, list[int]] = {}
    for pair in pairs.tolist():
        small, large = sorted((groups.setdefault(row, [row]) for row in pair), key=len)
        if small is not large:
            large += small
            groups |= dict.fromkeys(small, large)
    return list({id(rows): rows for rows in groups.values()}.values())
