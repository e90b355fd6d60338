from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
from rich.cells import cell_len
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

from regraft.core.errors import DataError
from regraft.evaluation.multiclass import Evaluation, confident_mistakes, evaluate, most_confused
from regraft.evaluation.significance import wilson


def random_predictions(n_classes, n, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    logits = rng.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def names(n_classes):
    return [f"class {code:02d}" for code in range(n_classes)]


def one_hot(predicted, n_classes):
    return np.eye(n_classes)[predicted]


@pytest.mark.parametrize(("n_classes", "n"), [(2, 1), (2, 40), (5, 300), (50, 400)])
def test_every_measure_is_what_counting_by_hand_gives(n_classes, n):
    probabilities, labels = random_predictions(n_classes, n)
    evaluation = evaluate(probabilities, labels, names(n_classes))

    predicted = [max(range(n_classes), key=row.__getitem__) for row in probabilities.tolist()]
    pairs = list(zip(labels.tolist(), predicted, strict=True))
    right = sum(true == guess for true, guess in pairs)
    assert (evaluation.n, evaluation.correct, evaluation.accuracy) == (n, right, right / n)
    assert evaluation.accuracy_interval == wilson(right, n)
    assert evaluation.log_loss == pytest.approx(
        -sum(math.log(probabilities[row, true]) for row, (true, _) in enumerate(pairs)) / n
    )
    for code, name in enumerate(names(n_classes)):
        assert evaluation.confusion[code] == [pairs.count((code, guess)) for guess in range(n_classes)]
        hits, n_true, n_called = pairs.count((code, code)), labels.tolist().count(code), predicted.count(code)
        scores = evaluation.per_class[name]
        assert (scores["n"], scores["n_predicted"]) == (n_true, n_called)
        assert scores["precision"] == pytest.approx(hits / n_called if n_called else 0)
        assert scores["recall"] == pytest.approx(hits / n_true if n_true else 0)
        assert scores["f1"] == pytest.approx(2 * hits / (n_true + n_called) if n_true + n_called else 0)
        assert scores["recall_interval"] == (wilson(hits, n_true) if n_true else (0, 1))


@pytest.mark.parametrize("n_classes", [2, 3, 30])
def test_macro_means_are_those_of_scikit_learn_over_the_classes_with_images(n_classes):
    probabilities, labels = random_predictions(n_classes, 60)  # with 30 classes some have none
    evaluation, predicted = evaluate(probabilities, labels, names(n_classes)), probabilities.argmax(axis=1)
    present = np.unique(labels)
    options = {"average": "macro", "labels": present, "zero_division": np.nan}
    expected = precision_recall_fscore_support(labels, predicted, **options)[:3]
    macro = evaluation.macro
    assert (macro["precision"], macro["recall"], macro["f1"]) == pytest.approx(expected)
    assert macro["classes"] == len(present)
    assert macro["precision_classes"] == len(set(present) & set(predicted))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        assert evaluation.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))


def ants_alone():
    """22 of 23 ants right, by a classifier of ants and bees."""
    return evaluate(one_hot([0] * 22 + [1], 2), [0] * 23, ["ants", "bees"])


def test_a_class_without_images_is_in_no_mean():
    evaluation = ants_alone()
    assert evaluation.macro == pytest.approx(
        {"precision": 1, "recall": 22 / 23, "f1": 44 / 45, "classes": 1, "precision_classes": 1}
    )
    assert evaluation.weighted == pytest.approx(evaluation.macro)
    assert evaluation.balanced_accuracy == pytest.approx(22 / 23)
    assert (evaluation.cohen_kappa, evaluation.matthews, evaluation.roc_auc) == (None, None, None)
    assert evaluation.per_class["bees"]["recall_interval"] == (0, 1)


def test_it_is_said_over_how_many_classes_the_means_are():
    assert "          means over 1 of 2 classes, those with images here" in ants_alone().text().splitlines()
    assert "means over the 2 classes\n" in evaluate(one_hot([0, 1], 2), [0, 1], ["a", "b"]).text()
    never = evaluate(one_hot([0, 0, 0], 4), [0, 1, 1], ["a", "b", "c", "d"])
    assert never.means() == (
        "means over 2 of 4 classes, those with images here; precision over 1 of 2, those predicted at all"
    )


def test_where_no_class_with_images_was_predicted_precision_is_a_dash():
    evaluation = evaluate(one_hot([1, 1], 2), [0, 0], ["ants", "bees"])
    assert evaluation.macro["precision"] is None
    assert "macro     precision \N{EN DASH}, recall 0.0 %, F1 0.0 %" in evaluation.text().splitlines()
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_the_means_of_earlier_evaluations_are_taken_again_over_the_classes_with_images():
    values = ants_alone().to_dict()
    earlier = {**values, "macro": {"precision": 0.5, "recall": 11 / 23, "f1": 22 / 45}}
    assert Evaluation.from_dict(earlier).macro == pytest.approx(values["macro"])


def test_a_model_that_always_predicts_the_same_has_zeros_not_warnings():
    evaluation = evaluate(one_hot([0] * 6, 3), [0, 0, 0, 1, 1, 2], ["a", "b", "c"])
    assert evaluation.accuracy == 0.5
    assert evaluation.per_class["b"] == {
        "n": 2, "n_predicted": 0, "precision": 0, "recall": 0, "f1": 0, "recall_interval": wilson(0, 2),
    }  # fmt: skip
    assert (evaluation.macro["precision"], evaluation.macro["precision_classes"]) == (0.5, 1)
    assert evaluation.macro["recall"] == pytest.approx(1 / 3)


def test_measures_that_are_not_defined_are_none():
    evaluation = evaluate(one_hot([0, 0], 2), [0, 0], ["a", "b"])
    assert (evaluation.cohen_kappa, evaluation.matthews, evaluation.roc_auc) == (None, None, None)
    assert (evaluation.balanced_accuracy, evaluation.brier, evaluation.calibration_error) == (1, 0, 0)
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_measures_of_models_from_before_the_further_ones_can_still_be_read():
    evaluation = evaluate(*random_predictions(8, 50), names(8))
    further = ["weighted", "balanced_accuracy", "top_5_accuracy", "cohen_kappa", "matthews", "roc_auc", "brier"]
    old = {name: value for name, value in evaluation.to_dict().items() if name not in (*further, "calibration_error")}
    back = Evaluation.from_dict({**old, "part": "test"})
    assert (back.accuracy, back.brier, back.weighted) == (evaluation.accuracy, None, None)
    assert "also" not in back.text()
    assert Evaluation.from_dict(json.loads(json.dumps(evaluation.to_dict()))).text() == evaluation.text()


def test_the_text_has_the_further_measures_with_their_meaning():
    evaluation = evaluate(*random_predictions(8, 50), names(8))
    lines = evaluation.text().splitlines()
    further = lines[(first := [line[:4] for line in lines].index("also")) : first + 5]
    assert further == [
        f"also      balanced accuracy {100 * evaluation.balanced_accuracy:.1f} %; mean recall, classes with images",
        f"          top-5 {100 * evaluation.top_5_accuracy:.1f} %; the true class is among the five most probable",
        f"          kappa {evaluation.cohen_kappa:.3f}, Matthews {evaluation.matthews:.3f}; 1 is perfect, 0 is chance",
        f"          calibration error {100 * evaluation.calibration_error:.1f} %; "
        "confidence against accuracy; 0 is best",
        f"          Brier {evaluation.brier:.3f}; squared error of the probabilities; 0 is best",
    ]
    assert "ROC AUC 0." in evaluate(*random_predictions(2, 50), ["a", "b"]).text()


def test_being_confident_and_wrong_costs_much_but_not_infinitely_much():
    evaluation = evaluate(one_hot([1, 0], 2), [0, 0], ["a", "b"])
    assert evaluation.log_loss == pytest.approx(-math.log(np.finfo(np.float64).eps) / 2, rel=1e-6)
    json.dumps(evaluation.to_dict(), allow_nan=False)


def test_the_dictionary_survives_json_and_has_what_the_command_line_promises():
    evaluation = evaluate(*random_predictions(3, 50), ["a", "b", "c"])
    back = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert {"n", "accuracy", "accuracy_interval", "log_loss", "per_class", "confusion", "macro", "classes"} <= set(back)
    assert back["accuracy_interval"] == list(evaluation.accuracy_interval)
    assert back["per_class"]["a"]["recall"] == evaluation.per_class["a"]["recall"]
    assert np.sum(back["confusion"]) == back["n"] == 50


def test_half_and_single_precision_are_taken_as_probabilities():
    probabilities, labels = random_predictions(10, 100)
    exact = evaluate(probabilities, labels, names(10))
    for dtype, tolerance in [(np.float32, 1e-6), (np.float16, 1e-2)]:
        assert evaluate(probabilities.astype(dtype), labels, names(10)).log_loss == pytest.approx(
            exact.log_loss, rel=tolerance
        )


GOOD = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("probabilities", "labels", "classes", "words"),
    [
        (GOOD, [0], ["a", "b"], "1 labels"),
        (GOOD, [0, 1], ["a", "b", "c"], "3 classes"),
        (GOOD[0], [0, 1], ["a", "b"], "shape"),
        (np.zeros((0, 2)), [], ["a", "b"], "at least one"),
        (GOOD[:, :1], [0, 0], ["a"], "at least two"),
        (GOOD, [0, 1], ["a", "a"], "different"),
        (GOOD, [0, 2], ["a", "b"], "0 to 1"),
        (GOOD, [0, -1], ["a", "b"], "0 to 1"),
        (GOOD, [0.0, 1.0], ["a", "b"], "whole numbers"),
        (GOOD, [[0], [1]], ["a", "b"], "one per image"),
        ([[0.9, 0.1], [np.nan, 0.5]], [0, 1], ["a", "b"], "Row 1 .* 1 of 2 rows"),
        ([[np.inf, 0.1], [0.5, 0.5]], [0, 1], ["a", "b"], "Row 0"),
        ([[3.0, -2.0], [0.5, 0.5]], [0, 1], ["a", "b"], "softmax"),
        ([[0.5, 0.6], [0.5, 0.5]], [0, 1], ["a", "b"], "sum to 1"),
    ],
)
def test_invalid_arguments_are_refused_with_words(probabilities, labels, classes, words):
    with pytest.raises(DataError, match=words):
        evaluate(np.asarray(probabilities), labels, classes)


def test_the_text_has_the_accuracy_with_its_interval_and_a_sentence():
    predicted = np.array([0] * 485 + [1] * 515)
    labels = np.array([0] * 470 + [1] * 15 + [1] * 501 + [0] * 14)
    text = evaluate(one_hot(predicted, 2), labels, ["cats", "dogs"]).text()
    assert text.splitlines()[:3] == [
        "accuracy  97.1 % (95 % interval: 95.9\N{EN DASH}98.0)",
        '          971 of 1,000 right; the most frequent mistake is "dogs" taken for',
        '          "cats" (15 times).',
    ]
    assert [line.split() for line in text.splitlines() if line.startswith(("a = ", "b = "))] == [
        ["a", "=", "cats", "470", "14"],
        ["b", "=", "dogs", "15", "501"],
    ]


def test_the_columns_of_the_text_stand_under_each_other_whatever_the_names():
    classes = ["a", "猫のいる写真", "x" * 200, "bell\x07 and \x1b[31mred"]
    text = evaluate(*random_predictions(4, 200), classes).text()
    tables = text.split("\n\n")[1:]
    assert all(len({cell_len(line) for line in table.splitlines()}) == 1 for table in tables)
    assert text.replace("\n", "").isprintable()
    assert max(map(cell_len, text.splitlines())) < 100


def test_many_classes_are_shortened_to_the_worst_and_the_rest_counted():
    evaluation = evaluate(*random_predictions(50, 2000), names(50))
    lines = evaluation.text().splitlines()
    shown = {name for name in names(50) if any(line.startswith(name) for line in lines)}
    worst = sorted(names(50), key=lambda name: evaluation.per_class[name]["f1"])[:30]
    assert shown == set(worst)
    assert "and 20 classes with a higher F1; --json lists all" in lines


def test_a_share_that_was_not_counted_is_a_dash_in_the_text():
    text = evaluate(one_hot([0, 0], 3), [0, 1], ["a", "b", "c"]).text()
    dash = "\N{EN DASH}"
    rows = [line.split() for line in text.split("\n\n")[1].splitlines()[1:]]
    assert rows == [["a", "1", "50.0", "100.0", "66.7"], ["b", "1", dash, "0.0", "0.0"], ["c", "0", dash, dash, dash]]


def test_the_most_confident_mistakes_come_first_and_right_predictions_never():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7], [0.99, 0.01], [0.2, 0.8]])
    assert confident_mistakes(probabilities, [1, 0, 1, 0, 0], 2) == [(1, 1, 0.9), (4, 1, 0.8)]
    assert confident_mistakes(probabilities, [1, 0, 1, 0, 0], 9)[-1] == (0, 0, 0.6)
    assert confident_mistakes(probabilities, [0, 1, 1, 0, 1], 9) == []


def test_the_classes_confused_most_are_named_with_their_share():
    labels = [0] * 4 + [1] * 10 + [2]
    evaluation = evaluate(one_hot([1, 1, 0, 0] + [0] * 3 + [1] * 7 + [2], 3), labels, ["a", "b", "c"])
    assert most_confused(evaluation, 5) == [("b", "a", 3, 0.3), ("a", "b", 2, 0.5)]
    assert most_confused(evaluation, 1) == [("b", "a", 3, 0.3)]


@pytest.mark.parametrize(
    ("labels", "predicted", "sentence"),
    [
        ([0, 1, 2], [0, 1, 2], "All 3 right."),
        ([0] * 1200, [0] * 1200, "All 1,200 right."),
        ([1, 1, 1, 0], [0, 0, 1, 0], '2 of 4 right; the only mistakes are "ant" taken for "bee" (twice).'),
        ([1, 1, 0, 2], [0, 0, 2, 2], '1 of 4 right; the most frequent mistake is "ant" taken for "bee" (twice).'),
        (
            [0, 1, 2],
            [1, 0, 2],
            '1 of 3 right; the only mistakes are "bee" taken for "ant" and "ant" taken for "bee" (once each).',
        ),
        ([0, 1, 2], [1, 2, 0], "0 of 3 right; no mistake is more frequent than others."),
    ],
)
def test_one_sentence_says_how_many_are_right_and_what_is_confused(labels, predicted, sentence):
    assert evaluate(one_hot(predicted, 3), labels, ["bee", "ant", "fly"]).summary() == sentence


def test_long_and_odd_names_are_shortened_in_the_sentence():
    sentence = evaluate(one_hot([1, 1], 2), [0, 1], ["x" * 200 + "\x1b[31m", "b"]).summary()
    assert sentence.isprintable() and len(sentence) < 110


def test_the_coverage_counts_the_confident_answers_and_the_right_ones_among_them():
    probabilities = np.array([[0.995, 0.005], [0.92, 0.08], [0.25, 0.75], [0.4, 0.6]])
    evaluation = evaluate(probabilities, [0, 1, 1, 0], ["a", "b"])
    rows = [(row["confidence"], row["n"], row["n_correct"]) for row in evaluation.coverage]
    assert rows == [(0, 4, 2), (0.5, 4, 2), (0.7, 3, 2), (0.8, 2, 1), (0.9, 2, 1), (0.95, 1, 1), (0.99, 1, 1)]


def test_versions_of_one_picture_count_once_in_the_intervals_and_it_is_said():
    probabilities, labels = random_predictions(3, 60)
    once = evaluate(probabilities, labels, names(3))
    four = evaluate(
        np.repeat(probabilities, 4, axis=0), np.repeat(labels, 4), names(3), pictures=np.repeat(np.arange(60), 4)
    )
    assert (four.n, four.pictures, four.accuracy) == (240, 60, once.accuracy)
    assert four.accuracy_interval == pytest.approx(once.accuracy_interval)
    for name in names(3):
        assert four.per_class[name]["recall_interval"] == pytest.approx(once.per_class[name]["recall_interval"])
    assert "240 images show 60 pictures" in four.text()
    assert once.repeats() == ""
