"""Losses: logits and labels in, out what training lowers, and the probabilities that logits stand for.

Whoever reads a module's logits asks here which class they name, how probable
it is and how wrong that was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch.nn import functional

from regraft.core.errors import UsageError

if TYPE_CHECKING:
    from regraft.training.options import FitOptions


@dataclass(frozen=True, eq=False)
class Loss:
    """The mean over the rows of one of two losses, in nats; labels are (n,) int64.

    softmax:   cross-entropy; a logit for each class.
    sigmoid:   binary cross-entropy of two classes; one logit, above 0 for the second.
    multilabel: an image may have several labels, (n, classes) float of 0 and 1: the mean binary cross-entropy of them,
               with a logit for each.
    smoothing: share of each row's label that is spread evenly over all classes, or over yes and no (Szegedy et al.
               2016, arXiv:1512.00567, section 7).
    weights:   what a row of each class counts, (classes,); None: all 1. The mean is still over the rows' number.
    """

    name: Literal["softmax", "sigmoid"] = "softmax"
    multilabel: bool = False
    smoothing: float = 0.0
    weights: np.ndarray | None = None

    @property
    def plain(self) -> Loss:
        """The same loss without smoothing and weights: what a model's logits mean, and what judges them."""
        return Loss(self.name, self.multilabel)

    def outputs(self, n_classes: int) -> int:
        """Return how many logits a module gives for so many classes."""
        return 1 if self._single else n_classes

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits (n, outputs), a number that has a gradient."""
        return self.each(logits, labels).mean()

    def each(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row, (n,), with its class's weight."""
        losses = self._each(logits, labels)
        return losses if self.weights is None else losses * losses.new_tensor(self.weights)[labels]

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (n, classes) in the logits' precision; rows sum to 1 unless an image may have several labels."""
        if self.name == "softmax":
            return logits.softmax(1)
        return (torch.cat([-logits, logits], dim=1) if self._single else logits).sigmoid()

    def correct(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return for each row whether the class it names is the right one, or all of its labels are: (n,) bool."""
        if self.multilabel:
            return ((logits > 0) == (labels > 0.5)).all(dim=1)
        return (logits[:, 0] > 0 if self._single else logits.argmax(1)) == labels

    @property
    def _single(self) -> bool:
        return self.name == "sigmoid" and not self.multilabel

    def _each(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each row, (n,), as if all classes counted alike."""
        if self.name == "softmax":
            return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.smoothing)
        targets = labels.to(logits.dtype).reshape(logits.shape) * (1 - self.smoothing) + self.smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)


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
