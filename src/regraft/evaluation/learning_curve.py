"""Would more photographs help, and of which class?

Which held-out images are classified correctly after training on fewer and fewer
photographs enters; the accuracy at each number with its interval, and the answer
in words, leave. The cross-validation is left to `training`, the picture to
`report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regraft.core.text import percent
from regraft.evaluation.significance import Paired, corrected_t_test, holm_bonferroni, points, wilson

if TYPE_CHECKING:
    from regraft.training.cross_validation import CurvePoints

SMALL = 0.01  # a gain of less than one point from twice the photographs is hardly worth taking them
NAMED_CLASSES = 3


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """How accuracy grows with the number of training photographs.

    sizes:    numbers of training photographs, rising.
    accuracy: at each, on held-out images; low and high are its 95 % interval, Wilson's, where duplicates count once.
    recalls:  class → recall at each.
    halved:   the size that the last one is compared with, about half of it; None if there is a single size.
    gain:     of accuracy, from that size to the last.
    gains:    class → gain of recall, the largest first; p-values with the Holm-Bonferroni correction.
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
            return "Would more photographs help? There are too few to train on half of them and compare."
        gain, low, high = (points(value) for value in (self.gain.difference, self.gain.low, self.gain.high))
        compared = (
            f"training on {self.sizes[-1]:,} photographs instead of {self.halved:,} changed the accuracy by "
            f"{gain} points (95 %: {low} to {high}), to {percent(self.accuracy[-1])} %"
        )
        return " ".join([f"Would more photographs help? {_answer(self.gain)}: {compared}.", *self._outlook(self.gain)])

    def _outlook(self, gain: Paired) -> list[str]:
        """Return what twice as many may bring, if the error keeps falling as fast, and of which classes."""
        if gain.outcome != "better":
            return []
        error = 1 - self.accuracy[-1]
        more = error * gain.difference / (error + gain.difference)
        lowest = min(self.recalls, key=lambda name: self.recalls[name][-1])
        return [
            f"Twice as many may bring about {100 * more:.1f} points more.",
            self._most_gained(),
            f"The lowest recall is that of {lowest}: {percent(self.recalls[lowest][-1])} %.",
        ]

    def _most_gained(self) -> str:
        """Return which classes the photographs helped most."""
        significant = [name for name, pair in self.gains.items() if pair.outcome == "better"]
        named = [
            f"{name} ({points(self.gains[name].difference)})"
            for name in (significant or list(self.gains))[:NAMED_CLASSES]
        ]
        if significant:
            return f"Recall rose most for {', '.join(named)}."
        return f"Recall rose most for {named[0]}, but for a single class that may be chance."


def summarise(curve: CurvePoints, classes: Sequence[str], separate: int) -> LearningCurve:
    """Return a learning curve with its intervals and gains.

    classes:  names, in the order of the labels.
    separate: how many images there are if duplicates and groups count once; the intervals are of these.
    """
    accuracy = tuple(map(float, curve.accuracy))
    intervals = [wilson(round(value * separate), separate) for value in accuracy]
    recalls = {name: tuple(map(float, curve.recalls[:, code])) for code, name in enumerate(classes)}
    half = min(range(len(curve.sizes)), key=lambda at: abs(2 * curve.sizes[at] - curve.sizes[-1]))
    single = half == len(curve.sizes) - 1
    return LearningCurve(
        sizes=curve.sizes,
        accuracy=accuracy,
        low=tuple(low for low, _ in intervals),
        high=tuple(high for _, high in intervals),
        recalls=recalls,
        halved=None if single else curve.sizes[half],
        gain=None if single else _gain(curve, half),
        gains={} if single else _gains(curve, half, classes),
    )


def _answer(gain: Paired) -> str:
    if gain.outcome == "better":
        return "Yes"
    return "Hardly" if gain.high < SMALL else "Too few to tell"


def _gain(curve: CurvePoints, half: int, label: int | None = None) -> Paired:
    test_fraction = 1 / (int(curve.folds.max()) + 1)
    return corrected_t_test(curve.scores(half, label).tolist(), curve.scores(-1, label).tolist(), test_fraction)


def _gains(curve: CurvePoints, half: int, classes: Sequence[str]) -> dict[str, Paired]:
    pairs = holm_bonferroni([_gain(curve, half, code) for code in range(len(classes))])
    return dict(sorted(zip(classes, pairs, strict=True), key=lambda item: -item[1].difference))
