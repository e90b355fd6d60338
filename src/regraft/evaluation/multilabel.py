"""Measures where an image has several labels, each of which is right or wrong by itself.

Probabilities and truths of every label enter, a `MultilabelEvaluation` leaves: as a
dictionary for machines, as lines for the terminal. A label is said to be there
from its threshold on; thresholds are chosen on rows that the model was neither
trained on nor is measured by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.core.errors import DataError
from regraft.core.text import percent, shorten, table
from regraft.evaluation.metrics import DASH, NAME_WIDTH, Scores, means
from regraft.evaluation.significance import wilson

LISTED_LABELS = 30
EVEN = 0.5  # the threshold of a label that no row has


class LabelScores(Scores):
    """Measures of one label; n or n_predicted tells whether a share of 0.0 was counted."""

    n: int  # images that have it
    n_predicted: int  # images that were said to have it
    threshold: float
    recall_interval: tuple[float, float]  # 95 %; (0, 1) where no image has it
    average_precision: float | None  # whatever the threshold; None where no image has it


@dataclass(frozen=True, kw_only=True)
class MultilabelEvaluation:
    """What `evaluate` found.

    exact_match:            share of images all of whose labels are right, with its 95 % interval (Wilson).
    mean_average_precision: plain mean over the labels that an image has; None if there is no such label.
    macro:                  precision, recall and f1 as plain means over the labels that are there or were said to be.
    micro:                  the same over all answers at once.
    """

    n: int
    exact_match: float
    exact_match_interval: tuple[float, float]
    mean_average_precision: float | None
    macro: dict[str, float]
    micro: Scores
    per_label: dict[str, LabelScores]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings and dictionaries; no number is NaN or infinite."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MultilabelEvaluation:
        """Return the evaluation that `to_dict` gave; what else is in `values` is left."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})

    def text(self) -> str:
        """Return the lines for the terminal; labels beyond the thirty with the lowest F1 are only counted."""
        return "\n".join([*_headline(self), "", *_label_lines(self)])


def evaluate(
    probabilities: NDArray[Any], truth: NDArray[Any], labels: Sequence[str], thresholds: NDArray[Any] | float = EVEN
) -> MultilabelEvaluation:
    """Return the measures of a model's answers; a label is said to be there where it is as probable as its threshold.

    probabilities: (n_images, n_labels) float, each in [0, 1].
    truth:         (n_images, n_labels) of 0 and 1.
    labels:        names, all different.
    thresholds:    one for each label, or one for all; see `choose_thresholds`.
    Raises DataError if shapes, truths or probabilities can't be meant.
    """
    shares, there = _checked(probabilities, truth, len(labels))
    if len(set(labels)) < len(labels):
        raise DataError(f"Labels are {list(labels)!r}; expected all different.")
    cuts = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (len(labels),))
    said = shares >= cuts
    exact = int((said == there).all(axis=1).sum())
    precisions = _average_precisions(shares, there)
    per_label = _per_label(there, said, cuts, precisions, labels)
    known = [precision for precision in precisions if precision is not None]
    return MultilabelEvaluation(
        n=len(there),
        exact_match=exact / len(there),
        exact_match_interval=wilson(exact, len(there)),
        mean_average_precision=float(np.mean(known)) if known else None,
        macro=means([scores for scores in per_label.values() if scores["n"] or scores["n_predicted"]]),
        micro=_counted(int(there.sum()), int(said.sum()), int((there & said).sum())),
        per_label=per_label,
    )


def choose_thresholds(probabilities: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Return for each label, (n_labels,), the threshold with the highest F1 on these rows.

    probabilities: (n, n_labels), given by models that were not trained on these rows.
    truth:         (n, n_labels) of 0 and 1.

    It lies halfway between the two probabilities that it parts; of several as good ones it is the nearest to a half,
    and a half where no row has the label.
    """
    shares, there = _checked(probabilities, truth, np.shape(truth)[-1])
    return np.array([_threshold(share, has) for share, has in zip(shares.T, there.T, strict=True)])


def _threshold(shares: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    from sklearn.metrics import precision_recall_curve

    if not there.any():
        return EVEN
    precision, recall, levels = precision_recall_curve(there, shares)  # levels: the probabilities, rising
    halfway = (levels + np.concatenate([[0.0], levels[:-1]])) / 2
    f1 = (2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny))[:-1]
    best = halfway[np.isclose(f1, f1.max())]
    return float(best[np.abs(best - EVEN).argmin()])


def _checked(
    probabilities: NDArray[Any], truth: NDArray[Any], n_labels: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    shares, there = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    if there.ndim != 2 or not there.size or there.shape[1] != n_labels or shares.shape != there.shape:
        raise DataError(
            f"Probabilities have the shape {shares.shape} and truths {there.shape}, for {n_labels} labels; "
            "expected a row for each image, at least one, and a column for each label."
        )
    if not np.isin(there, (0, 1)).all():
        raise DataError("A truth is neither 0 nor 1.")
    if not ((shares >= 0) & (shares <= 1)).all():  # NaN is refused as well
        raise DataError("A probability is not from 0 to 1; logits must go through the sigmoid first.")
    return shares, there.astype(bool)


def _average_precisions(shares: NDArray[np.float64], there: NDArray[np.bool_]) -> list[float | None]:
    from sklearn.metrics import average_precision_score

    return [
        float(average_precision_score(has, share)) if has.any() else None
        for share, has in zip(shares.T, there.T, strict=True)
    ]


def _per_label(
    there: NDArray[np.bool_],
    said: NDArray[np.bool_],
    cuts: NDArray[np.float64],
    precisions: Sequence[float | None],
    labels: Sequence[str],
) -> dict[str, LabelScores]:
    """Return the measures of each label, by name, in the order of `labels`."""
    n, called, right = (rows.sum(axis=0).tolist() for rows in (there, said, there & said))
    return {
        name: {
            **_counted(n[at], called[at], right[at]),
            "n": n[at],
            "n_predicted": called[at],
            "threshold": float(cuts[at]),
            "recall_interval": wilson(right[at], n[at]) if n[at] else (0.0, 1.0),
            "average_precision": precisions[at],
        }
        for at, name in enumerate(labels)
    }


def _counted(n: int, called: int, right: int) -> Scores:
    return {
        "precision": right / called if called else 0.0,
        "recall": right / n if n else 0.0,
        "f1": 2 * right / (n + called) if n + called else 0.0,
    }


def _headline(evaluation: MultilabelEvaluation) -> list[str]:
    low, high = map(percent, evaluation.exact_match_interval)
    exact, precision = round(evaluation.exact_match * evaluation.n), evaluation.mean_average_precision
    return [
        f"exact     {percent(evaluation.exact_match)} % of the images have all labels right "
        f"(95 %: {low}{DASH}{high}, {exact:,} of {evaluation.n:,})",
        f"mAP       {DASH if precision is None else f'{percent(precision)} %'}",
        f"macro     {_in_words(evaluation.macro)}",
        f"micro     {_in_words(evaluation.micro)}",
    ]


def _in_words(scores: Mapping[str, Any]) -> str:
    precision, recall, f1 = (percent(scores[name]) for name in ("precision", "recall", "f1"))
    return f"precision {precision} %, recall {recall} %, F1 {f1} %"


def _label_lines(evaluation: MultilabelEvaluation) -> list[str]:
    ranked = sorted(evaluation.per_label, key=lambda name: evaluation.per_label[name]["f1"])
    shown = set(ranked[:LISTED_LABELS])
    rows = [_label_row(name, scores) for name, scores in evaluation.per_label.items() if name in shown]
    lines = table([["label", "images", "precision", "recall", "F1", "AP", "threshold"], *rows])
    hidden = len(ranked) - len(shown)
    return [*lines, f"and {hidden:,} labels with a higher F1; --json lists all"] if hidden else lines


def _label_row(name: str, scores: LabelScores) -> list[str]:
    precision = scores["average_precision"]
    return [
        shorten(name, NAME_WIDTH),
        f"{scores['n']:,}",
        percent(scores["precision"]) if scores["n_predicted"] else DASH,
        percent(scores["recall"]) if scores["n"] else DASH,
        percent(scores["f1"]) if scores["n"] or scores["n_predicted"] else DASH,
        DASH if precision is None else percent(precision),
        f"{scores['threshold']:.3f}",
    ]
