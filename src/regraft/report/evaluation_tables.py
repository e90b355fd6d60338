"""The tables of the page of an evaluation: what was measured, as rows of cells.

An evaluation enters; of each table the rows leave, the first of them the titles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regraft.core.text import percent
from regraft.evaluation.multiclass import Evaluation, most_confused
from regraft.evaluation.multilabel import MultilabelEvaluation
from regraft.evaluation.significance import wilson
from regraft.evaluation.words import DASH, score_words

LISTED_PAIRS = 10

# Further measures: the field of Evaluation, its name, its unit, its meaning.
MEASURES = (
    ("log_loss", "Log loss", "", "0 is best; being wrong with high confidence costs most"),
    ("balanced_accuracy", "Balanced accuracy", "%", "mean recall of the classes with images, each counted alike"),
    ("top_5_accuracy", "Top-5 accuracy", "%", "how often the true class is among the five most probable"),
    ("cohen_kappa", "Cohen's kappa", "", "agreement beyond that of chance; 1 is perfect, 0 is chance"),
    ("matthews", "Matthews correlation", "", "correlation of labels and predictions, from \N{MINUS SIGN}1 to 1"),
    ("roc_auc", "ROC AUC", "", "how often an image of one class is ranked above one of the other"),
    ("brier", "Brier score", "", "mean squared error of the probabilities, from 0 to 2; 0 is best"),
    ("calibration_error", "Calibration error", "%", "how far confidence is from accuracy, in 15 bins; 0 is best"),
    ("uncalibrated_error", "Calibration error before", "%", "the same without the temperature that the model fitted"),
    ("uncalibrated_log_loss", "Log loss before", "", "the same without the temperature that the model fitted"),
)


def scores(evaluation: Evaluation | MultilabelEvaluation) -> list[list[str]]:
    """Return the table of the classes, or of the labels; a dash stands where there is nothing to count."""
    titles = ["Images", "Precision %", "Recall %", "95 %", "F1 %"]
    if isinstance(evaluation, Evaluation):
        return [["Class", *titles], *([name, *_counted(scores)] for name, scores in evaluation.per_class.items())]
    rows = [
        [name, *_counted(scores), _percent(scores["average_precision"]), f"{scores['threshold']:.3f}"]
        for name, scores in evaluation.per_label.items()
    ]
    return [["Label", *titles, "Average precision %", "Threshold"], *rows]


def _counted(scores: Mapping[str, Any]) -> list[str]:
    """Return the cells of one class, or of one label."""
    n, predicted = scores["n"], scores["n_predicted"]
    low, high = scores["recall_interval"]
    return [
        f"{n:,}",
        _percent(scores["precision"] if predicted else None),
        _percent(scores["recall"] if n else None),
        f"{percent(low)}{DASH}{percent(high)}" if n else DASH,
        _percent(scores["f1"] if n or predicted else None),
    ]


def _percent(value: float | None) -> str:
    return DASH if value is None else percent(value)


def means(evaluation: Evaluation | MultilabelEvaluation) -> str:
    """Return the mean scores, and over how many classes or labels they are."""
    scores = score_words(evaluation.macro)
    return f"{scores[0].upper()}{scores[1:]}: {evaluation.means()}"


def measures(evaluation: Evaluation) -> list[list[str]]:
    """Return the further measures that the evaluation has, with what they mean."""
    rows = [
        [name, f"{percent(value)} %" if unit else f"{value:.3f}", meaning]
        for measure, name, unit, meaning in MEASURES
        if (value := getattr(evaluation, measure)) is not None
    ]
    return [["Measure", "Value", "Meaning"], *rows]


def coverage(evaluation: Evaluation) -> list[list[str]]:
    """Return how many images are answered if only confident answers are given, and how many of those are right."""
    rows = [
        [f"{100 * row['confidence']:g}", *_answered(row["n"], row["n_correct"], evaluation.n)]
        for row in evaluation.coverage or ()
    ]
    return [["Confident from %", "Answered", "Answered %", "Of these right %", "95 %"], *rows]


def _answered(n: int, n_correct: int, total: int) -> list[str]:
    if not n:
        return ["0", percent(0), DASH, DASH]
    low, high = wilson(n_correct, n)
    return [f"{n:,}", percent(n / total), percent(n_correct / n), f"{percent(low)}{DASH}{percent(high)}"]


def ranking(evaluation: Evaluation | MultilabelEvaluation) -> list[list[str]]:
    """Return the areas under the curves of each class or label."""
    title = "Class" if isinstance(evaluation, Evaluation) else "Label"
    rows = [
        [
            name,
            *_area(areas["roc_auc"], areas["roc_auc_interval"]),
            *_area(areas["average_precision"], areas["average_precision_interval"]),
        ]
        for name, areas in (evaluation.ranking or {}).items()
    ]
    return [[title, "ROC AUC", "95 %", "Average precision", "95 % of it"], *rows]


def _area(area: float | None, interval: tuple[float, float] | None) -> list[str]:
    if area is None or interval is None:
        return [DASH, DASH]
    return [f"{area:.3f}", f"{interval[0]:.3f}{DASH}{interval[1]:.3f}"]


def confused(evaluation: Evaluation) -> list[list[str]]:
    """Return the pairs of classes that were confused most often."""
    rows = [
        [pair.true, pair.predicted, f"{pair.images:,}", percent(pair.share)]
        for pair in most_confused(evaluation, LISTED_PAIRS)
    ]
    return [["Images of", "Predicted as", "How many", "Of its images %"], *rows]
