"""`regraft lr-find`: the learning rate to begin with, for what is trained in epochs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core import plugins
from regraft.core.errors import UsageError
from regraft.pipeline import fit
from regraft.pipeline.options import TrainOptions
from regraft.training import heads
from regraft.training.options import FitOptions

if TYPE_CHECKING:
    from regraft.features.extract import Features
    from regraft.training.lr_find import Sweep


@dataclass(frozen=True, repr=False)
class Found:
    """A sweep, for the terminal, for machines and as a picture."""

    sweep: Sweep
    flag: str  # of the rate

    def to_dict(self) -> dict[str, Any]:
        """Return the rates, the losses and the suggestion as JSON-able data."""
        rates, losses = self.sweep.rates.tolist(), self.sweep.losses.tolist()
        return {"rates": rates, "losses": losses, "suggestion": self.sweep.suggestion}

    def text(self) -> str:
        """Return the suggestion in words."""
        if self.sweep.suggestion is None:
            return "The loss did not fall at any rate, so there is none to suggest. Look at the picture: -o FILE.svg"
        rate = f"{self.sweep.suggestion:.2g}"
        return f"The loss falls most steeply at a rate of {rate}; begin with {self.flag} {rate}."

    def svg(self) -> str:
        """Return the picture of the loss against the rate."""
        from regraft.report import plots

        return plots.svg(plots.rate_sweep(self.sweep.rates.tolist(), self.sweep.losses.tolist(), self.sweep.suggestion))


def sweep(source: Any, options: TrainOptions) -> Found:
    """Read a source, hold out what `train` would, and sweep the rate of what it would train."""
    from regraft.pipeline import train as training

    features = training.features_of(source, options)
    return Found(lr_find(features, options), "--tail-learning-rate" if features.trunk.tail else "--learning-rate")


def lr_find(features: Features, options: FitOptions) -> Sweep:
    """Return what the loss does while the rate rises: of the head, or of the tail under a head that was trained before.

    Raises UsageError for a head that is not trained in epochs, and needs no rate.
    """
    from regraft.training import lr_find as sweeping
    from regraft.training import tail

    classes = features.index.classes
    train, choosing = fit.fitting_parts(features, options)
    examples = fit.examples(train, classes)
    head, trunk = plugins.load(heads, options.head), features.trunk
    if trunk.tail is not None:
        module = fit.fit(features, dataclasses.replace(options, phases="head")).module
        return tail.sweep(module, examples, options, **fit.about_tail(trunk))
    if not head.NEEDS_HELD_OUT:
        raise UsageError(
            f"The {options.head} head is solved, and needs no learning rate. Choose --head mlp, or a --cut with --tail."
        )
    held = fit.examples(choosing, classes) if choosing else None
    _, body, rows, _ = head.prepare(examples, held, len(classes), options.head_settings, options)
    return sweeping.lr_find(body, rows, options)
