"""Pictures of the measures: learning curves, the confusion matrix, how many images a class has.

Plain rows and counts enter, matplotlib Figures leave; `svg` writes one as text.
No window, no pyplot, and the user's own matplotlib settings neither matter nor
change. Which pictures a page shows is left to `report`.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from regraft.graft.history import History
from regraft.measure.metrics import Evaluation, printable

NAMED_CLASSES = 40  # bars keep their class names up to here
NAME_LENGTH = 24
COLOURS = {"train": "#3b6fb6", "validation": "#e08a2e", "test": "#4c9f70"}  # told apart without red and green, too
GREY = "#5f6670"

# The look, and text kept as text: a browser has letters for every script, matplotlib's own font has not.
STYLE = {
    **mpl.rcParamsDefault,
    "axes.edgecolor": "#b8bec6",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "regraft",
    "text.color": "#20252b",
    "text.parse_math": False,  # a class may be called "$x$"
    "xtick.color": GREY,
    "ytick.color": GREY,
}
STYLE.pop("backend")


@mpl.rc_context(STYLE)
def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure | None:
    """Return loss and accuracy over the epochs, a line for each part, or None if there are fewer than two epochs.

    history: rows as `History.to_list` gives them; the best epoch, whose weights were kept, is marked.
    """
    rows = History.from_list(history)
    if len({row.epoch for row in rows.rows}) < 2:
        return None
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        _draw_curves(axes, rows, measure)
        axes.axvline(rows.best_epoch, color=GREY, linewidth=1, linestyle=":", label=f"best: epoch {rows.best_epoch}")
    axes.legend(loc="best")
    return figure


@mpl.rc_context(STYLE)
def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Return the confusion matrix: the counts in figures, the share of each true class as colour."""
    counts = np.array(evaluation.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [_short(name) for name in evaluation.classes]
    side = max(3.0, 1.4 + 0.42 * len(names))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    axes.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else "#20252b"
        axes.text(column + 0.5, row + 0.5, f"{counts[row, column]:,}", ha="center", va="center", color=colour)
    _label_matrix(axes, names)
    return figure


@mpl.rc_context(STYLE)
def class_counts(counts: Mapping[str, Mapping[str, int]]) -> Figure:
    """Return bars of how many images each class has, divided by part.

    counts: part → class → images. Above forty classes the bars stand in order of size, without names.
    """
    totals = Counter[str]()
    for part in counts.values():
        totals.update(part)
    many = len(totals) > NAMED_CLASSES
    names = [name for name, _ in totals.most_common()] if many else sorted(totals)
    figure = Figure(figsize=(9, 3.2 if many else 1.0 + 0.24 * len(names)), layout="constrained")
    draw = _draw_profile if many else _draw_bars
    draw(figure.add_subplot(), names, counts)
    figure.legend(loc="outside upper left", ncols=len(counts))
    return figure


def svg(figure: Figure) -> str:
    """Return the figure as a complete SVG document; the same figure gives the same text on every run."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has it
        figure.savefig(text, format="svg", metadata=no_metadata)
    return text.getvalue()


def _draw_curves(axes: Axes, history: History, measure: str) -> None:
    for part, colour in COLOURS.items():
        if rows := history.part(part):
            values = [getattr(row, measure) for row in rows]
            axes.plot([row.epoch for row in rows], values, color=colour, label=part, linewidth=1.6)
    axes.set_title(measure)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)


def _label_matrix(axes: Axes, names: Sequence[str]) -> None:
    places = np.arange(len(names)) + 0.5
    upright = len(names) > 6 or max(map(len, names)) > 8
    axes.set_xticks(places, names, rotation=90 if upright else 0)
    axes.set_yticks(places, names)
    axes.set(xlabel="predicted", ylabel="true", aspect="equal")
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_bars(axes: Axes, names: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> None:
    left = np.zeros(len(names), dtype=int)
    places = np.arange(len(names))
    for part, images in counts.items():
        widths = np.array([images.get(name, 0) for name in names])
        axes.barh(places, widths, left=left, height=0.7, color=COLOURS.get(part, GREY), label=part)
        left += widths
    for place, total in zip(places, left, strict=True):
        axes.annotate(f"{total:,}", (total, place), xytext=(4, 0), textcoords="offset points", va="center", color=GREY)
    axes.set_yticks(places, [_short(name) for name in names])
    axes.set(xlabel="images", ylim=(len(names) - 0.4, -0.6))
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(axis="y", length=0)


def _draw_profile(axes: Axes, names: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> None:
    bottom = np.zeros(len(names), dtype=int)
    for part, images in counts.items():
        top = bottom + [images.get(name, 0) for name in names]
        axes.stairs(top, baseline=bottom, fill=True, color=COLOURS.get(part, GREY), label=part)
        bottom = top
    axes.set(xlabel=f"{len(names):,} classes, the largest first", ylabel="images", xlim=(0, len(names)), ylim=(0, None))
    axes.set_xticks([])


def _short(name: str) -> str:
    """Return a class name that fits a picture, without characters that SVG can't hold."""
    name = printable(name)
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
