"""The evaluation of a model where an image has any number of labels, each of which is right or wrong by itself.

Probabilities and truth of every label enter, a `MultilabelEvaluation` leaves: as
a dictionary for machines, as lines for the terminal. A label is predicted where
its probability reaches its threshold; thresholds are chosen on rows that the
model was neither trained on nor is evaluated on.
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
from regraft.evaluation import metrics, ranking
from regraft.evaluation.metrics import CountedScores, Means, Scores
from regraft.evaluation.ranking import RankingScores
from regraft.evaluation.significance import interval
from regraft.evaluation.words import (
    DASH,
    NAME_WIDTH,
    SCORES_EXPLAINED,
    Mistake,
    means_words,
    most_frequent,
    pictures_words,
    quoted,
    score_cells,
    score_words,
    sentence_lines,
)
from regraft.training.losses import EVEN

LISTED_LABELS = 30


class LabelScores(CountedScores):
    """Scores of one label; a score of 0.0 was measured only if n or n_predicted, its denominator, is not 0."""

    threshold: float
    recall_interval: tuple[float, float]  # 95 %; (0, 1) where no image has it
    average_precision: float | None  # whatever the threshold; None where no image has it


@dataclass(frozen=True, kw_only=True)
class MultilabelEvaluation:
    """What `evaluate` measured.

    exact_match:            share of images all of whose labels are right, with its 95 % interval
                            (`significance.interval`).
    mean_average_precision: plain mean over the labels that an image has; None if there is no such label.
    macro:                  precision, recall and f1 as plain means over the labels that an image has, see
                            `metrics.Means`.
    micro:                  the same over all predictions at once.
    pictures:               how many the images show, where copies and near-duplicates count once; None in models of
                            before it was counted.
    ranking:                the areas under the curves of each label; None of very many labels.
    learned_from:           the fraction of the images that each model of a cross-validation was trained on.
    """

    n: int
    exact_match: float
    exact_match_interval: tuple[float, float]
    mean_average_precision: float | None
    macro: Means
    micro: Scores
    per_label: dict[str, LabelScores]
    pictures: int | None = None
    ranking: dict[str, RankingScores] | None = None
    learned_from: float = 1.0

    @property
    def correct(self) -> int:
        """How many images have all labels right."""
        return round(self.exact_match * self.n)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, strings and dictionaries; no number is NaN or infinite."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MultilabelEvaluation:
        """Return the evaluation that `to_dict` gave; whatever else is in `values` is ignored."""
        known = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
        macro = metrics.means([*known["per_label"].values()])  # older ones counted labels that no image has
        return cls(**{**known, "macro": macro})

    def means(self) -> str:
        """Return over how many labels the means are, as a clause."""
        return means_words(self.macro, len(self.per_label), "labels")

    def repeats(self) -> str:
        """Return how many pictures the images show, as a clause; "" if each image shows another one."""
        return pictures_words(self.pictures, self.n)

    def summary(self) -> str:
        """Return in one sentence how many images have all labels right, and which label is wrong most often."""
        if self.correct == self.n:
            return f"All {self.n:,} images have all labels right."
        mistakes = sorted(_mistakes(self.per_label), key=lambda mistake: -mistake.times)
        return f"{self.correct:,} of {self.n:,} images have all labels right; {most_frequent(mistakes)}."

    def text(self) -> str:
        """Return the lines for the terminal; labels beyond the thirty with the lowest F1 are only counted."""
        return "\n".join([*_headline(self), "", *_label_lines(self)])


def evaluate(
    probabilities: NDArray[Any],
    truth: NDArray[Any],
    labels: Sequence[str],
    thresholds: NDArray[Any] | float = EVEN,
    pictures: NDArray[np.integer] | None = None,
    learned_from: float = 1.0,
) -> MultilabelEvaluation:
    """Return how good a model's predictions are; a label is predicted where its probability reaches its threshold.

    probabilities: (n_images, n_labels) float, each in [0, 1].
    truth:         (n_images, n_labels) of 0 and 1.
    labels:        names, all different.
    thresholds:    one for each label, or one for all; see `choose_thresholds`.
    pictures:      (n_images,) int, equal for versions of one picture, which count once in intervals; None: all differ.
    learned_from:  in a cross-validation, the fraction of the images that each model was trained on; see
                   `significance.interval`.
    Raises DataError if shapes, truth or probabilities are invalid.
    """
    rows, has = _checked(probabilities, truth, len(labels))
    if len(set(labels)) < len(labels):
        raise DataError(f"Labels are {shorten(repr(list(labels)), 200)}; expected all different.")
    thresholds = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), (len(labels),))
    predicted = rows >= thresholds
    pictures = np.arange(len(has)) if pictures is None else pictures
    exact = (predicted == has).all(axis=1)
    precisions = [metrics.average_precision(*column) for column in zip(rows.T, has.T, strict=True)]
    intervals = [interval(hit[of], pictures[of], learned_from) for hit, of in zip(predicted.T, has.T, strict=True)]
    per_label = _per_label(has, predicted, thresholds, precisions, intervals, labels)
    known = [precision for precision in precisions if precision is not None]
    return MultilabelEvaluation(
        n=len(has),
        exact_match=float(exact.mean()),
        exact_match_interval=interval(exact, pictures, learned_from),
        mean_average_precision=float(np.mean(known)) if known else None,
        macro=metrics.means([*per_label.values()]),
        micro=metrics.scores(int(has.sum()), int(predicted.sum()), int((has & predicted).sum())),
        per_label=per_label,
        pictures=len(np.unique(pictures)),
        ranking=ranking.scores(rows, has, labels, pictures),
        learned_from=learned_from,
    )


def choose_thresholds(probabilities: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Return for each label, (n_labels,), the threshold with the highest F1 on these rows.

    probabilities: (n, n_labels), from models that were not trained on these rows.
    truth:         (n, n_labels) of 0 and 1.

    It lies halfway between the two probabilities that it separates; of several as good ones it is the nearest to a
    half, and a half where no row has the label.
    """
    rows, has = _checked(probabilities, truth, np.shape(truth)[-1])
    return np.array([_threshold(*column) for column in zip(rows.T, has.T, strict=True)])


def _threshold(probabilities: NDArray[np.float64], has: NDArray[np.bool_]) -> float:
    if not has.any():
        return EVEN
    levels = metrics.levels(probabilities, has)
    halfway = (levels.probabilities + np.append(levels.probabilities[1:], 0.0)) / 2
    f1 = 2 * levels.n_correct / (has.sum() + levels.n_predicted)
    best = halfway[np.isclose(f1, f1.max())][::-1]  # rising: of two equally near to a half the lower one
    return float(best[np.abs(best - EVEN).argmin()])


def _checked(
    probabilities: NDArray[Any], truth: NDArray[Any], n_labels: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rows, has = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    if has.ndim != 2 or not has.size or has.shape[1] != n_labels or rows.shape != has.shape:
        raise DataError(
            f"Probabilities have the shape {rows.shape} and the truth {has.shape}, for {n_labels} labels; "
            "expected a row for each image, at least one, and a column for each label."
        )
    if not np.isin(has, (0, 1)).all():
        raise DataError("The truth of a label is neither 0 nor 1.")
    if not ((rows >= 0) & (rows <= 1)).all():  # NaN is refused as well
        raise DataError("A probability is not from 0 to 1; logits must go through the sigmoid first.")
    return rows, has.astype(bool)


def _per_label(
    has: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    thresholds: NDArray[np.float64],
    precisions: Sequence[float | None],
    intervals: Sequence[tuple[float, float]],
    labels: Sequence[str],
) -> dict[str, LabelScores]:
    """Return the scores of each label, by name, in the order of `labels`."""
    n, n_predicted, n_correct = (rows.sum(axis=0).tolist() for rows in (has, predicted, has & predicted))
    return {
        name: {
            **metrics.scores(n[at], n_predicted[at], n_correct[at]),
            "n": n[at],
            "n_predicted": n_predicted[at],
            "threshold": float(thresholds[at]),
            "recall_interval": intervals[at],
            "average_precision": precisions[at],
        }
        for at, name in enumerate(labels)
    }


def _mistakes(per_label: Mapping[str, LabelScores]) -> list[Mistake]:
    """Return how often each label was missed, and how often it was predicted wrongly, where that is not 0."""
    mistakes = []
    for name, scores in per_label.items():
        correct = round(scores["recall"] * scores["n"])
        mistakes += [
            Mistake(scores["n"] - correct, f"{quoted(name)} missed"),
            Mistake(scores["n_predicted"] - correct, f"{quoted(name)} predicted wrongly"),
        ]
    return [mistake for mistake in mistakes if mistake.times]


# Text


def _headline(evaluation: MultilabelEvaluation) -> list[str]:
    low, high = map(percent, evaluation.exact_match_interval)
    precision = evaluation.mean_average_precision
    return [
        f"exact     {percent(evaluation.exact_match)} % (95 % interval: {low}{DASH}{high})",
        *sentence_lines(evaluation.summary()),
        *sentence_lines(evaluation.repeats()),
        f"mAP       {DASH if precision is None else f'{percent(precision)} %'}; mean average precision, no threshold",
        f"macro     {score_words(evaluation.macro)}",
        *sentence_lines(evaluation.means()),
        f"micro     {score_words(evaluation.micro)}; over all predictions",
        *sentence_lines(SCORES_EXPLAINED),
    ]


def _label_lines(evaluation: MultilabelEvaluation) -> list[str]:
    ranked = sorted(evaluation.per_label, key=lambda name: evaluation.per_label[name]["f1"])
    listed = set(ranked[:LISTED_LABELS])
    rows = [_label_row(name, scores) for name, scores in evaluation.per_label.items() if name in listed]
    lines = table([["label", "images", "precision", "recall", "F1", "AP", "threshold"], *rows])
    hidden = len(ranked) - len(listed)
    return [*lines, f"and {hidden:,} labels with a higher F1; --json lists all"] if hidden else lines


def _label_row(name: str, scores: LabelScores) -> list[str]:
    precision = scores["average_precision"]
    return [
        shorten(name, NAME_WIDTH),
        f"{scores['n']:,}",
        *score_cells(scores),
        DASH if precision is None else percent(precision),
        f"{scores['threshold']:.3f}",
    ]
