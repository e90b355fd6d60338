"""Strangers: how well images of none of the classes are told from those of the classes, by a score of novelty."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regraft.core.text import percent
from regraft.evaluation import metrics
from regraft.evaluation.significance import wilson
from regraft.evaluation.words import DASH


class Strangers(NamedTuple):
    """What was measured; intervals are of 95 %."""

    n: int  # strangers
    caught: float  # the fraction of them that is called unknown
    caught_interval: tuple[float, float]
    false_alarms: float  # the fraction of images of the classes that is called unknown
    false_alarms_interval: tuple[float, float]
    roc_auc: float  # how often a stranger's novelty is higher than that of an image of the classes

    def text(self) -> str:
        """Return a sentence."""
        return (
            f"Unknown: {percent(self.caught)} % of {self.n:,} strangers (95 %: {_ends(self.caught_interval)}), "
            f"{percent(self.false_alarms)} % of the images of the classes (95 %: {_ends(self.false_alarms_interval)}); "
            f"ROC AUC {self.roc_auc:.3f}."
        )


def measure(known: NDArray[Any], strangers: NDArray[Any], threshold: float) -> Strangers:
    """Return how strangers are told by their novelty (n,) from images of the classes (m,): above the threshold."""
    scores = np.concatenate([known, strangers]).astype(np.float64)
    labels = np.repeat([0, 1], [len(known), len(strangers)])
    caught, alarms = int((strangers > threshold).sum()), int((known > threshold).sum())
    return Strangers(
        n=len(strangers),
        caught=caught / len(strangers),
        caught_interval=wilson(caught, len(strangers)),
        false_alarms=alarms / len(known),
        false_alarms_interval=wilson(alarms, len(known)),
        roc_auc=metrics.roc_auc(scores, labels) or 0.0,
    )


def _ends(interval: tuple[float, float]) -> str:
    low, high = map(percent, interval)
    return f"{low}{DASH}{high}"
