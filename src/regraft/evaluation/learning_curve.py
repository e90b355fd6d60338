"""Would more photographs help, and of which class?

How many of the held-out images were right after learning from fewer and fewer
photographs enters; the accuracy at each number with its band, and the answer
in words, leave. The probing is left to `graft/probe`, the picture to `curves`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regraft.core.text import percent
from regraft.evaluation.significance import Paired, corrected_t_test, holm_bonferroni, points, wilson
from regraft.training.cross_validation import CurvePoints

SMALL = 0.01  # a gain of less than one point by twice the photographs is hardly worth taking them
NAMED = 3  # classes


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """How accuracy grows with the number of training photographs.

    sizes:     photographs learnt from, rising.
    accuracy:  at each, on images held out; low and high are its 95 % interval, Wilson's, of the separate images.
    recalls:   class → the same of its images.
    halved:    what number of photographs the last one is compared with: about half; None if there is a single size.
    gain:      by how much the last is better than that.
    gains:     class → by how much its recall is better likewise, the most first; p-values by Holm's steps.
    """

    sizes: tuple[int, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    recalls: Mapping[str, tuple[float, ...]]
    halved: int | None
    gain: Paired | None
    gains: Mapping[str, Paired]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        return {
            **{name: list(getattr(self, name)) for name in ("sizes", "accuracy", "low", "high")},
            "recalls": {name: list(recall) for name, recall in self.recalls.items()},
            "halved": self.halved,
            "gain": self.gain.to_dict() if self.gain else None,
            "gains": {name: pair.to_dict() for name, pair in self.gains.items()},
            "text": self.text(),
        }

    def text(self) -> str:
        """Return the answer in a few sentences."""
        if self.gain is None or self.halved is None:
            return "Would more photographs help? There are too few to leave half of them out and see."
        gain, low, high = (points(share) for share in (self.gain.difference, self.gain.low, self.gain.high))
        compared = (
            f"learning from {self.sizes[-1]:,} photographs instead of {self.halved:,} changed the accuracy by "
            f"{gain} points (95 %: {low} to {high}), to {percent(self.accuracy[-1])} %"
        )
        return " ".join([f"Would more photographs help? {_answer(self.gain)}: {compared}.", *self._outlook(self.gain)])

    def _outlook(self, gain: Paired) -> list[str]:
        """Return what as many again may bring, if the error goes on falling as fast, and of which classes."""
        if gain.outcome != "better":
            return []
        error = 1 - self.accuracy[-1]
        more = error * gain.difference / (error + gain.difference)
        lowest = min(self.recalls, key=lambda name: self.recalls[name][-1])
        return [
            f"As many again may bring about {100 * more:.1f} points more.",
            self._most_gained(),
            f"The lowest recall is that of {lowest}: {percent(self.recalls[lowest][-1])} %.",
        ]

    def _most_gained(self) -> str:
        """Return which classes the photographs helped most."""
        sure = [name for name, pair in self.gains.items() if pair.outcome == "better"]
        named = [f"{name} ({points(self.gains[name].difference)})" for name in (sure or list(self.gains))[:NAMED]]
        if sure:
            return f"Recall rose most for {', '.join(named)}."
        return f"Recall rose most for {named[0]}, but of a single class that may be chance."


def summarise(curve: CurvePoints, classes: Sequence[str], separate: int) -> LearningCurve:
    """Return what a learning curve says.

    classes:  their names, in the order of the labels.
    separate: how many of the images are neither copies nor of one group; the bands count these.
    """
    accuracy = tuple(map(float, curve.accuracy))
    bands = [wilson(round(share * separate), separate) for share in accuracy]
    recalls = {name: tuple(map(float, curve.recalls[:, code])) for code, name in enumerate(classes)}
    half = min(range(len(curve.sizes)), key=lambda at: abs(2 * curve.sizes[at] - curve.sizes[-1]))
    single = half == len(curve.sizes) - 1
    return LearningCurve(
        sizes=curve.sizes,
        accuracy=accuracy,
        low=tuple(low for low, _ in bands),
        high=tuple(high for _, high in bands),
        recalls=recalls,
        halved=None if single else curve.sizes[half],
        gain=None if single else _gain(curve, half),
        gains={} if single else _gains(curve, half, classes),
    )


def _answer(gain: Paired) -> str:
    if gain.outcome == "better":
        return "Yes"
    return "Hardly" if gain.high < SMALL else "These are too few to tell"


def _gain(curve: CurvePoints, half: int, label: int | None = None) -> Paired:
    test_share = 1 / (int(curve.folds.max()) + 1)
    return corrected_t_test(curve.scores(half, label).tolist(), curve.scores(-1, label).tolist(), test_share)


def _gains(curve: CurvePoints, half: int, classes: Sequence[str]) -> dict[str, Paired]:
    pairs = holm_bonferroni([_gain(curve, half, code) for code in range(len(classes))])
    return dict(sorted(zip(classes, pairs, strict=True), key=lambda found: -found[1].difference))
