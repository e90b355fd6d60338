"""Plots: training curves, the learning curve, a sweep of learning rates, images of each class.

Plain rows, numbers and counts enter, matplotlib Figures leave; `svg` writes one
as text. No window, no pyplot, and the user's own matplotlib settings neither
matter nor change. Which plots a page shows is left to the page.
"""

from __future__ import annotations

import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from regraft.core.text import shorten
from regraft.evaluation.metrics import Bin
from regraft.evaluation.ranking import Curves
from regraft.training.history import History

Watch = Literal["loss", "accuracy"]

NAMED_CLASSES = 40  # bars keep their class names up to here
NAME_LENGTH = 24
COLOURS = {"train": "#3b6fb6", "validation": "#e08a2e", "test": "#4c9f70"}  # distinguishable without red and green
GREY = "#5f6670"
INK = "#20252b"
EDGE = "#b8bec6"
GRID = "#e6e9ed"
WIDE, NARROW = 9.0, 4.2  # of a page, in inches: a figure is drawn for either
RECALL_LINES = 8  # of the classes with the lowest recall
RANKED = 8  # classes with the smallest areas, whose curves are drawn

# The look, and text kept as text: a browser has letters for every script, matplotlib's own font has not.
STYLE = {
    **mpl.rcParamsDefault,
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "regraft",
    "text.color": INK,
    "text.parse_math": False,  # a class may be called "$x$"
    "xtick.color": GREY,
    "ytick.color": GREY,
}
STYLE.pop("backend")


@mpl.rc_context(STYLE)
def training_curves(history: Sequence[Mapping[str, Any]], watch: Watch = "loss", width: float = WIDE) -> Figure | None:
    """Return loss and accuracy over the epochs, a line for each part, and the learning rate; None below two epochs.

    history: rows as `History.to_list` gives them. The borders between phases are drawn. The best epoch of each,
             whose weights it ended with, is marked.
    watch:   the measure that chose the best epoch.
    """
    rows = History.from_list(history).rows
    if len({row.epoch for row in rows}) < 2:
        return None
    phases = [History(list(group), watch) for _, group in groupby(rows, key=lambda row: row.phase)]
    has_rates = any(row.learning_rate for row in rows)
    figure = Figure(figsize=(width, 5.6 if has_rates else 4.6), layout="constrained")
    heights = [3, 3, 1.4] if has_rates else [3, 3]
    panels = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    for axes, measure in zip(panels, ("loss", "accuracy"), strict=False):
        _draw_curves(axes, phases, measure)
    if has_rates:
        _draw_rates(panels[2], phases)
    for axes in panels:
        _mark_phases(axes, phases)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
    _name_phases(panels[0], phases)
    figure.align_ylabels(panels)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3 if width == WIDE else 2)
    return figure


@mpl.rc_context(STYLE)
def learning_curve(
    sizes: Sequence[int],
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    per_class: Mapping[str, ArrayLike] | None = None,
    width: float = WIDE,
) -> Figure:
    """Return the accuracy against the number of training photographs: would more of them help, and of which class?

    sizes:     (k,) numbers of training photographs, rising.
    mean:      (k,) accuracy on held-out photographs, in [0, 1].
    low, high: (k,) the ends of its interval.
    per_class: class → (k,) recall; of more than eight classes those with the lowest recall at the end are drawn.
    """
    figure = Figure(figsize=(width, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.fill_between(sizes, low, high, color=COLOURS["train"], alpha=0.18, linewidth=0)
    axes.plot(sizes, mean, color=COLOURS["train"], marker="o", markersize=4, linewidth=2, label="accuracy")
    recalls = {name: np.asarray(recall) for name, recall in (per_class or {}).items()}
    lowest = sorted(recalls, key=lambda name: float(recalls[name][-1]))[:RECALL_LINES]
    for line, name in enumerate(lowest, start=1):
        colour = mpl.colormaps["tab10"](line % 10)
        axes.plot(sizes, recalls[name], color=colour, linewidth=1, label=f"recall of {shorten(name, NAME_LENGTH)}")
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(_in_percent())
    axes.set(xlabel="training photographs", title="held-out photographs classified correctly")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    figure.legend(loc="outside right upper" if width == WIDE else "outside lower left")
    return figure


@mpl.rc_context(STYLE)
def reliability(bins: Sequence[Bin], width: float = WIDE) -> Figure | None:
    """Return accuracy against confidence, with the interval of each bin, and how many images it has; None without bins.

    Where probabilities mean what they say, the points lie on the diagonal.
    """
    if not bins:
        return None
    figure = Figure(figsize=(width, 4.6), layout="constrained")
    axes, below = figure.subplots(2, sharex=True, height_ratios=[3, 1])
    confidence, accuracy = ([row[name] for row in bins] for name in ("confidence", "accuracy"))
    lows, highs = zip(*(row["accuracy_interval"] for row in bins), strict=True)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="as confident as right")
    axes.vlines(confidence, lows, highs, color=COLOURS["train"], linewidth=1.6, label="95 % interval")
    axes.plot(confidence, accuracy, "o", color=COLOURS["train"], markersize=5, label="accuracy")
    below.bar(confidence, [row["n"] for row in bins], width=0.02, color=COLOURS["train"])
    below.set(xlabel="confidence: the probability of the answer", ylabel="images", xlim=(min(confidence) - 0.05, 1.02))
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    axes.set(ylabel="of these right", ylim=(-0.02, 1.02))
    for axis in (below.xaxis, axes.yaxis):
        axis.set_major_formatter(_in_percent())
    for panel in (axes, below):
        panel.grid(axis="y", color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
    figure.align_ylabels([axes, below])
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3 if width == WIDE else 1)
    return figure


@mpl.rc_context(STYLE)
def ranking_curves(curves: Mapping[str, Curves], width: float = WIDE) -> Figure | None:
    """Return the ROC and the precision-recall curves, a line for each class; None without a class."""
    if not curves:
        return None
    wide = width == WIDE
    figure = Figure(figsize=(width, 4.4 if wide else 8.0), layout="constrained")
    panels = figure.subplots(1, 2) if wide else figure.subplots(2, 1)
    panels[0].plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for line, (name, both) in enumerate(curves.items()):
        colour = mpl.colormaps["tab10"](line % 10)
        panels[0].plot(*both.roc.T, color=colour, linewidth=1.4, label=shorten(name, NAME_LENGTH))
        panels[1].plot(*both.precision.T, color=colour, linewidth=1.4, drawstyle="steps-pre")
    panels[0].set(title="ROC", xlabel="false positive rate", ylabel="recall")
    panels[1].set(title="precision and recall", xlabel="recall", ylabel="precision")
    for axes in panels:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.xaxis.set_major_formatter(_in_percent())
        axes.yaxis.set_major_formatter(_in_percent())
        axes.grid(color=GRID, linewidth=0.8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=4 if wide else 2)
    return figure


def _in_percent() -> FuncFormatter:
    return FuncFormatter(lambda share, _: f"{100 * share:g} %")


@mpl.rc_context(STYLE)
def rate_sweep(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None, width: float = WIDE
) -> Figure:
    """Return the loss against the learning rate of a sweep, and the rate that is suggested, if one is.

    rates, losses: (steps,), in the order of the sweep; where the loss diverged, the plot is cut off.
    """
    figure = Figure(figsize=(width, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(rates, losses, color=COLOURS["train"], linewidth=1.6)
    axes.set_xscale("log")
    _write_out(axes.xaxis)
    if finite := [loss for loss in losses if np.isfinite(loss)]:
        room = 0.05 + 0.3 * (finite[0] - min(finite))
        axes.set_ylim(min(finite) - room, max(finite[0], min(finite)) + 2 * room)
    if suggestion is not None:
        axes.axvline(suggestion, color=GREY, linewidth=1, linestyle=":", label=f"suggested: {suggestion:.2g}")
        axes.legend(loc="upper left")
    axes.set(xlabel="learning rate", title="loss")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    return figure


@mpl.rc_context(STYLE)
def class_counts(counts: Mapping[str, Mapping[str, int]], width: float = WIDE) -> Figure:
    """Return bars of how many images each class has, divided by part.

    counts: part → class → images. Above forty classes the bars stand in order of size, without names.
    """
    totals = Counter[str]()
    for part in counts.values():
        totals.update(part)
    many = len(totals) > NAMED_CLASSES
    names = [name for name, _ in totals.most_common()] if many else sorted(totals)
    figure = Figure(figsize=(width, 3.2 if many else 1.0 + 0.24 * len(names)), layout="constrained")
    draw = _draw_profile if many else _draw_bars
    draw(figure.add_subplot(), names, counts)
    if len(counts) > 1:
        figure.legend(loc="outside upper left", ncols=len(counts))
    return figure


def svg(figure: Figure) -> str:
    """Return the figure as a complete SVG document; the same figure gives the same text on every run."""
    text = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has it
        figure.savefig(text, format="svg", metadata=no_metadata)
    return text.getvalue() + "<!-- made by regraft -->\n"


def _draw_curves(axes: Axes, phases: Sequence[History], measure: str) -> None:
    """Draw a line for each part and phase; of a phase of one epoch, a point."""
    for part, colour in COLOURS.items():
        lines = [rows for phase in phases if (rows := phase.part(part))]
        for number, rows in enumerate(lines):
            points = [row.epoch for row in rows], [getattr(row, measure) for row in rows]
            marker = "o" if len(rows) == 1 else ""
            label = "_" if number else part  # each part once in the legend
            axes.plot(*points, color=colour, marker=marker, markersize=4, label=label, linewidth=1.6)
    axes.set_ylabel(measure)


def _draw_rates(axes: Axes, phases: Sequence[History]) -> None:
    """Draw the learning rate of each phase's epochs; the lowest and the highest are written beside the axis."""
    rates: set[float] = set()
    for phase in phases:
        points = [(row.epoch, row.learning_rate) for row in phase.part("train") if row.learning_rate]
        axes.plot(*np.array(points).reshape(-1, 2).T, color=GREY, marker=".", markersize=4, linewidth=1.2)
        rates.update(rate for _, rate in points)
    axes.set(yscale="log", ylabel="learning rate", yticks=sorted({min(rates), max(rates)}))
    axes.yaxis.set_minor_locator(NullLocator())
    _write_out(axes.yaxis)


def _write_out(axis: Axis) -> None:
    """Write the numbers of a logarithmic axis in full: powers of ten would need the parsing of mathematics."""
    axis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:g}"))
    axis.set_minor_formatter(NullFormatter())


def _mark_phases(axes: Axes, phases: Sequence[History]) -> None:
    """Draw the border between phases, and the best epoch of each phase that has several."""
    for before, after in pairwise(phases):
        axes.axvline((before.epochs + after.rows[0].epoch) / 2, color=GREY, linewidth=1)
    bests = [phase.best_epoch for phase in phases if phase.rows[0].epoch < phase.epochs]
    for number, best in enumerate(bests):
        label = "_" if number else f"best: epoch{'s' * (len(bests) > 1)} {' and '.join(map(str, bests))}"
        axes.axvline(best, color=GREY, linewidth=1, linestyle=":", label=label)


def _name_phases(axes: Axes, phases: Sequence[History]) -> None:
    """Write each phase's name above its epochs, from its first one on; the last phase's name ends at its last epoch."""
    for number, phase in enumerate(phases if len(phases) > 1 else (), start=1):
        last = number == len(phases)
        at = phase.epochs if last else phase.rows[0].epoch
        axes.annotate(
            phase.rows[0].phase, (at, 1), (0, 3), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right" if last else "left", va="bottom", color=GREY,
        )  # fmt: skip


def _draw_bars(axes: Axes, names: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> None:
    left = np.zeros(len(names), dtype=int)
    rows = np.arange(len(names))
    for part, images in counts.items():
        widths = np.array([images.get(name, 0) for name in names])
        axes.barh(rows, widths, left=left, height=0.7, color=COLOURS.get(part, COLOURS["train"]), label=part)
        left += widths
    for row, total in zip(rows, left, strict=True):
        axes.annotate(f"{total:,}", (total, row), xytext=(4, 0), textcoords="offset points", va="center", color=GREY)
    axes.set_yticks(rows, [shorten(name, NAME_LENGTH) for name in names])
    axes.set(xlabel="images", ylim=(len(names) - 0.4, -0.6))
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(axis="y", length=0)


def _draw_profile(axes: Axes, names: Sequence[str], counts: Mapping[str, Mapping[str, int]]) -> None:
    bottom = np.zeros(len(names), dtype=int)
    for part, images in counts.items():
        top = bottom + [images.get(name, 0) for name in names]
        axes.stairs(top, baseline=bottom, fill=True, color=COLOURS.get(part, COLOURS["train"]), label=part)
        bottom = top
    axes.set(xlabel=f"{len(names):,} classes, the largest first", ylabel="images", xlim=(0, len(names)), ylim=(0, None))
    axes.set_xticks([])
