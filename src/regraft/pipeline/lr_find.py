"""`regraft.lr_find`: the learning rate to begin with, for what is trained in epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.options import change, takes_options
from regraft.core.progress import log
from regraft.core.results import Result
from regraft.core.text import table
from regraft.pipeline import fit as fitting
from regraft.pipeline import presets
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.train import features_of
from regraft.training import heads
from regraft.training.options import FitOptions

SWEPT = "mlp"  # the head that is swept where the one asked for needs no rate
LINES, WIDTH = 20, 50  # of the curve on a terminal

if TYPE_CHECKING:
    import numpy as np

    from regraft.features.extract import Features
    from regraft.training.lr_find import Sweep as Measured


@dataclass(frozen=True, repr=False)
class Sweep(Result):
    """The loss while the learning rate rises.

    rates:      (n,) tried one after the other, up to where the loss diverged.
    losses:     (n,) the smoothed loss at each.
    suggestion: a rate to begin with; None if the loss never fell.
    flag:       the option that takes it.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggestion: float | None
    flag: str

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Sweep of {len(self.rates)} learning rates: {self.sentence()}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the rates, the losses and the suggestion as JSON-able data."""
        return {"rates": self.rates.tolist(), "losses": self.losses.tolist(), "suggestion": self.suggestion}

    def text(self) -> str:
        """Return the curve, a bar for the loss at every few rates, and below it the suggestion in words."""
        return "\n".join([*(_curve(self) if len(self.losses) else ()), "", self.sentence()])

    def sentence(self) -> str:
        """Return the suggestion in words."""
        if self.suggestion is None:
            return "The loss does not fall as the rate rises, so none is suggested."
        rate = f"{self.suggestion:.2g}"
        return f"The loss falls most steeply at a rate of {rate}; begin with {self.flag} {rate}."

    def svg(self) -> str:
        """Return the plot of the loss against the rate."""
        from regraft.report import plots

        return plots.svg(plots.rate_sweep(self.rates.tolist(), self.losses.tolist(), self.suggestion))

    def formats(self) -> dict[str, Callable[[], str]]:
        """Return what gives the text of a file, by its name's ending."""
        return {**super().formats(), ".svg": self.svg}


def _curve(sweep: Sweep) -> list[str]:
    """Return a line for every few rates: the rate, its loss, and a bar, cut off where the loss diverges."""
    import numpy as np

    highest = max(sweep.losses[: np.argmin(sweep.losses) + 1].max(), 1e-9)
    some = slice(None, None, -(-len(sweep.rates) // LINES))
    cells = [[f"{rate:.2g}", f"{loss:.3g}"] for rate, loss in zip(sweep.rates[some], sweep.losses[some], strict=True)]
    bars = ["#" * min(WIDTH, round(WIDTH * loss / highest)) for loss in sweep.losses[some]]
    return [f"{line}  {bar}" for line, bar in zip(table([["rate", "loss"], *cells]), ["", *bars], strict=True)]


@takes_options(TrainOptions)
def lr_find(source: Any, *, options: TrainOptions) -> Sweep:
    """Sweep the learning rate of a head, or of a tail under a head that was trained before, and suggest one.

    source: as for `read`, an Index, or the Features of one (then of the options those of training count).
    A head that is solved and needs no rate, as the linear one, gives way to one that is trained in epochs.
    """
    features = source if hasattr(source, "runner") else features_of(*presets.resolved(source, options))
    if features.tail is not None:
        return _result(_tail_sweep(features, options.fit), "--tail-learning-rate")
    if plugins.load(heads, options.fit.head).NEEDS_HELD_OUT:
        return _result(_head_sweep(features, options.fit), "--learning-rate")
    log.info(
        "The %s head is solved and needs no learning rate; this is the sweep of --head %s.", options.fit.head, SWEPT
    )
    trained = change(options.fit, head=SWEPT, head_options=None)
    return _result(_head_sweep(features, trained), f"--head {SWEPT} --learning-rate")


def _result(sweep: Measured, flag: str) -> Sweep:
    return Sweep(sweep.rates, sweep.losses, sweep.suggestion, flag)


def _head_sweep(features: Features, options: FitOptions) -> Measured:
    from regraft.training import lr_find as sweeping

    train, choosing = fitting.fitting_parts(features, options)
    classes = features.index.classes
    held_out = fitting.examples(choosing, classes) if choosing else None
    head = plugins.load(heads, options.head)
    examples = fitting.examples(train, classes)
    _, body, rows, _ = head.prepare(examples, held_out, len(classes), options.head_settings, options)
    return sweeping.lr_find(body, rows, options)


def _tail_sweep(features: Features, options: FitOptions) -> Measured:
    from regraft.training import tail

    train, _ = fitting.fitting_parts(features, options)
    module = fitting.fit_model(features, change(options, phases="head")).trained_module
    return tail.sweep(
        module, fitting.examples(train, features.index.classes), options, **fitting.about_tail(features.trunk)
    )
