"""`regraft.lr_find`: the learning rate to begin with, for what is trained in epochs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.errors import UsageError
from regraft.core.options import change, takes_options
from regraft.core.results import Result
from regraft.pipeline import fit as fitting
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.train import features_of
from regraft.training import heads
from regraft.training.options import FitOptions

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
        return f"<Sweep of {len(self.rates)} learning rates: {self.text()}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the rates, the losses and the suggestion as JSON-able data."""
        return {"rates": self.rates.tolist(), "losses": self.losses.tolist(), "suggestion": self.suggestion}

    def text(self) -> str:
        """Return the suggestion in words."""
        if self.suggestion is None:
            return "The loss did not fall at any rate, so none is suggested. Look at the plot: -o FILE.svg"
        rate = f"{self.suggestion:.2g}"
        return f"The loss falls most steeply at a rate of {rate}; begin with {self.flag} {rate}."

    def svg(self) -> str:
        """Return the plot of the loss against the rate."""
        from regraft.report import plots

        return plots.svg(plots.rate_sweep(self.rates.tolist(), self.losses.tolist(), self.suggestion))


@takes_options(TrainOptions)
def lr_find(source: Any, *, options: TrainOptions) -> Sweep:
    """Sweep the learning rate of a head, or of a tail under a head that was trained before, and suggest one.

    source: as for `read`, an Index, or the Features of one (then of the options those of training count).
    Raises UsageError for a head that is not trained in epochs, and needs no rate.
    """
    features = source if hasattr(source, "trunk") else features_of(source, options)
    sweep = _sweep(features, options.fit)
    flag = "--learning-rate" if features.tail is None else "--tail-learning-rate"
    return Sweep(sweep.rates, sweep.losses, sweep.suggestion, flag)


def _sweep(features: Features, options: FitOptions) -> Measured:
    from regraft.training import lr_find as sweeping
    from regraft.training import tail

    classes = features.index.classes
    train, choosing = fitting.fitting_parts(features, options)
    examples = fitting.examples(train, classes)
    head, trunk = plugins.load(heads, options.head), features.trunk
    if features.tail is not None:
        module = fitting.fit_model(features, change(options, phases="head")).trained_module
        return tail.sweep(module, examples, options, **fitting.about_tail(trunk))
    if not head.NEEDS_HELD_OUT:
        raise UsageError(
            f"The {options.head} head is solved, and needs no learning rate. Choose --head mlp, or a --cut with --tail."
        )
    held_out = fitting.examples(choosing, classes) if choosing else None
    _, body, rows, _ = head.prepare(examples, held_out, len(classes), options.head_settings, options)
    return sweeping.lr_find(body, rows, options)
