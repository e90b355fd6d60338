"""Grids of photographs: what the network sees of them, and what the model predicts for them.

Pixels and predictions enter, tiles leave, and a grid of tiles as a matplotlib
Figure for a session, a notebook or a file. A page shows tiles one by one. Which
photographs are shown is drawn from a seed: nobody picked them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from regraft.core.errors import DataError
from regraft.core.rng import generator
from regraft.core.text import percent, printable
from regraft.features import augmentation
from regraft.report.plots import INK, STYLE

if TYPE_CHECKING:
    from regraft.features.augmentation import View
    from regraft.network.preprocess import Preprocess

COLUMNS = 6
SIDE = 1.5  # of a tile, in inches
CAPTION_LINE, CAPTION_LINES = 20, 3  # characters and lines of a caption
WRONG = "#c2362b"


class Tile(NamedTuple):
    """One photograph of a grid."""

    image: NDArray[np.uint8]  # (height, width, 3), upright RGB
    caption: str
    wrong: bool = False


def sample(n: int, count: int, seed: int) -> list[int]:
    """Return `count` of the numbers 0 to n - 1 at random, rising; all of them if there are no more."""
    return sorted(generator(seed, "sample").permutation(n)[:count].tolist())


def inputs(
    caption: str, pixels: NDArray[np.uint8], preprocess: Preprocess, image_id: str, views: Sequence[View] = ()
) -> list[Tile]:
    """Return what the network sees of an upright image, (H, W, 3) uint8: the clean image, then its augmented views."""
    clean = Tile(preprocess(pixels), caption)
    drawn = augmentation.draw_views(pixels, preprocess, image_id, views) if views else []
    return [clean, *(Tile(image, f"view {view.number}") for image, view in zip(drawn, views, strict=True))]


def predictions(
    images: Sequence[NDArray[np.uint8]],
    probabilities: NDArray[Any],
    labels: NDArray[Any] | Sequence[int],
    classes: Sequence[str],
) -> list[Tile]:
    """Return images with what a model predicts for them, in percent; the wrong ones are marked, with their label.

    images:        n of (height, width, 3) uint8.
    probabilities: (n, n_classes), rows sum to 1.
    labels:        (n,) the true classes, as indices of `classes`.
    """
    rows = np.asarray(probabilities)
    predicted = rows.argmax(axis=1)
    captions = [
        f"{classes[best]} {percent(probability)} %" + (f", labelled {classes[true]}" if best != true else "")
        for probability, best, true in zip(rows.max(axis=1), predicted, labels, strict=True)
    ]
    return [Tile(*tile) for tile in zip(images, captions, (predicted != np.asarray(labels)).tolist(), strict=True)]


@mpl.rc_context(STYLE)
def grid(tiles: Sequence[Tile], columns: int = COLUMNS) -> Figure:
    """Return the tiles row by row, each with its caption below it; the wrong ones have a red frame and a cross."""
    if not tiles:
        raise DataError("There are no photographs to show.")
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    figure = Figure(figsize=(SIDE * columns, (SIDE + 0.45) * rows), layout="constrained")
    for axes, tile in zip(figure.subplots(rows, columns, squeeze=False).flat, tiles, strict=False):
        colour = WRONG if tile.wrong else INK
        axes.imshow(tile.image)
        axes.set_xlabel(_lines(tile), color=colour, fontsize=8)
        axes.spines[:].set(visible=tile.wrong, color=WRONG, linewidth=3)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
    for axes in figure.axes[len(tiles) :]:
        axes.set_visible(False)
    return figure


def _lines(tile: Tile) -> str:
    text = ("\N{BALLOT X} " if tile.wrong else "") + printable(tile.caption)
    return "\n".join(textwrap.wrap(text, CAPTION_LINE, max_lines=CAPTION_LINES, placeholder=" …"))
