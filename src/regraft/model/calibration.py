"""Calibration: one number by which all logits are divided, so that probabilities mean what they say.

Logits of rows that were not trained on enter, with their labels; the temperature
leaves. It changes no order of the labels of an image. Which rows may fit it is
decided in `pipeline/calibrate`.
"""

from __future__ import annotations

import math

import numpy as np

from regraft.training.losses import Loss

SPREAD = 0.2  # of the logarithm of temperatures before any row is seen, as a standard deviation
MOST = math.log(20)


def fit_temperature(logits: np.ndarray, labels: np.ndarray, loss: Loss, pictures: float | None = None) -> float:
    """Return the temperature above 0 with the lowest log loss; 1.0 if there is no row, or one that is not finite.

    logits: (n, outputs), of rows that were not trained on.
    labels: (n,), or (n, classes) where an image may have several.
    pictures: how many independent rows they are worth; None: all are.

    Few rows that are all right would make every answer certain; so the logarithm has a normal prior around 0, of the
    width SPREAD, which some hundreds of rows outweigh.
    Source: Guo et al. 2017, arXiv:1706.04599.
    """
    from scipy.optimize import minimize_scalar

    worth = 1.0 if pictures is None else pictures / max(1, len(logits))
    if not len(logits) or not np.isfinite(logits).all():
        return 1.0

    def cost(logarithm: float) -> float:
        losses = loss.plain.of_rows(logits / math.exp(logarithm), labels)
        return float(worth * losses.sum() + logarithm**2 / (2 * SPREAD**2))

    return math.exp(minimize_scalar(cost, bounds=(-MOST, MOST), method="bounded", options={"xatol": 1e-4}).x)


def uncalibrated(probabilities: np.ndarray, temperature: float, loss: Loss) -> np.ndarray:
    """Return what probabilities (n, n_classes) would be without the temperature that they were given with."""
    powers = probabilities**temperature
    totals = powers + (1 - probabilities) ** temperature if loss.multilabel else powers.sum(axis=1, keepdims=True)
    result: np.ndarray = powers / totals
    return result
