"""Losses: logits and labels in; the number that training lowers, losses of rows, probabilities and hits out.

Whoever reads a head's logits asks here which class they name, how probable it
is and how large the loss was. Only the loss that has a gradient is computed
by PyTorch; the rest is NumPy, so that a prediction needs no PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from regraft.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from regraft.training.options import FitOptions

EVEN = 0.5  # the probability from which a label is predicted unless a threshold was chosen for it


@dataclass(frozen=True, eq=False)
class Loss:
    """The mean over the rows of one of two losses, in nats; labels are (n,) int64.

    softmax:    cross-entropy; a logit for each class.
    sigmoid:    binary cross-entropy of two classes; one logit, above 0 for the second.
    multilabel: an image may have several labels, (n, classes) float of 0 and 1: the mean binary cross-entropy of them,
                with a logit for each.
    smoothing:  the fraction of each row's label that is spread evenly over all classes, or over yes and no (Szegedy et
                al. 2016, arXiv:1512.00567, section 7).
    weights:    the weight of a row of each class, (classes,); None: all 1. The mean is over the number of rows, not
                over their weights.
    """

    name: Literal["softmax", "sigmoid"] = "softmax"
    multilabel: bool = False
    smoothing: float = 0.0
    weights: np.ndarray | None = None

    @property
    def plain(self) -> Loss:
        """The same loss without smoothing and weights: what a model's logits mean."""
        return Loss(self.name, self.multilabel)

    def outputs(self, n_classes: int) -> int:
        """Return how many logits a head has for so many classes."""
        return 1 if self._single else n_classes

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (n, outputs), a number that has a gradient."""
        from torch.nn import functional

        if self.name == "softmax":
            losses = functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)
        else:
            targets = self._targets(labels.to(logits.dtype).reshape(logits.shape))
            losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)
        return losses.mean() if self.weights is None else (losses * losses.new_tensor(self.weights)[labels]).mean()

    def of_rows(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Return the loss of each row, (n,) float64, with its class's weight, from logits (n, outputs).

        NaN and infinite logits give a loss that is not finite.
        """
        with np.errstate(invalid="ignore"):
            losses = self._unweighted(logits.astype(np.float64), labels)
        return losses if self.weights is None else losses * self.weights[labels]

    def _unweighted(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        losses: np.ndarray
        if self.name == "softmax":
            costs = -_log_softmax(logits)
            losses = (1 - self.smoothing) * costs[np.arange(len(labels)), labels] + self.smoothing * costs.mean(axis=1)
        else:
            targets = self._targets(labels.astype(np.float64).reshape(logits.shape))
            losses = (np.logaddexp(0, logits) - targets * logits).mean(axis=1)
        return losses

    def measure(self, logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Return the mean loss, in nats, and the accuracy, in [0, 1], of logits (n, outputs)."""
        return float(self.of_rows(logits, labels).mean()), float(self.correct(logits, labels).mean())

    def error(self, logits: np.ndarray, labels: np.ndarray) -> float:
        """Return the standard error of the mean loss, by its spread over the rows; 0 for a single row."""
        losses = self.of_rows(logits, labels)
        with np.errstate(invalid="ignore"):
            return float(losses.std(ddof=1)) / math.sqrt(len(losses)) if len(losses) > 1 else 0.0

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return (n, classes) float64 of logits (n, outputs); rows sum to 1 unless an image may have several labels."""
        logits = logits.astype(np.float64)
        if self.name == "softmax":
            log_probabilities = _log_softmax(logits)
        else:
            log_probabilities = -np.logaddexp(0, np.concatenate([logits, -logits], axis=1) if self._single else -logits)
        probabilities: np.ndarray = np.exp(log_probabilities)
        return probabilities

    def correct(self, logits: Any, labels: Any) -> Any:
        """Return whether each row's class is the right one, or all of its labels are: (n,) bool; arrays or tensors."""
        if self.multilabel:
            return ((logits > 0) == (labels > 0.5)).all(1)
        return (logits[:, 0] > 0 if self._single else logits.argmax(1)) == labels

    @property
    def _single(self) -> bool:
        return self.name == "sigmoid" and not self.multilabel

    def _targets(self, labels: Any) -> Any:
        return labels * (1 - self.smoothing) + self.smoothing / 2


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def of(options: FitOptions, labels: np.ndarray) -> Loss:
    """Return the loss that the options choose for training rows with these labels, (n,) or (n, classes).

    Raises UsageError where the choice does not fit the labels.
    """
    multilabel = labels.ndim == 2
    name = options.loss if options.loss != "auto" else "sigmoid" if multilabel else "softmax"
    if multilabel and name == "softmax":
        raise UsageError("--loss is softmax, and an image may have several labels; expected sigmoid or auto.")
    if multilabel and options.balance != "none":
        raise UsageError(f"--balance is {options.balance}, and an image may have several labels; expected none.")
    classes = 0 if multilabel else int(labels.max(initial=0)) + 1
    if name == "sigmoid" and classes > 2:
        raise UsageError(f"--loss is sigmoid, for two classes, and there are {classes}; expected softmax or auto.")
    return Loss(name, multilabel, options.label_smoothing, None if options.balance == "none" else balanced(labels))


def balanced(labels: np.ndarray) -> np.ndarray:
    """Return the weight of each class, inverse to its number of rows, so that the rows' mean is 1: (classes,).

    Source: King and Zeng 2001, "Logistic Regression in Rare Events Data"; scikit-learn calls it "balanced".
    """
    counts = np.bincount(labels)
    weights: np.ndarray = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return weights
