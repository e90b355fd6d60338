from __future__ import annotations

import json
import math

import numpy as np
import pytest
from rich.cells import cell_len
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import balanced_accuracy_score, f1_score

from regraft.core.errors import DataError
from regraft.evaluation.metrics import (
    Evaluation,
    calibration_error,
    confident_mistakes,
    evaluate,
    most_confused,
    percent,
)
from regraft.evaluation.significance import wilson


def random_answers(n_classes, n, seed=0):
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
    probabilities, labels = random_answers(n_classes, n)
    found = evaluate(probabilities, labels, names(n_classes))

    predicted = [max(range(n_classes), key=row.__getitem__) for row in probabilities.tolist()]
    pairs = list(zip(labels.tolist(), predicted, strict=True))
    right = sum(true == guess for true, guess in pairs)
    assert (found.n, found.correct, found.accuracy) == (n, right, right / n)
    assert found.accuracy_interval == wilson(right, n)
    assert found.log_loss == pytest.approx(
        -sum(math.log(probabilities[row, true]) for row, (true, _) in enumerate(pairs)) / n
    )
    for code, name in enumerate(names(n_classes)):
        assert found.confusion[code] == [pairs.count((code, guess)) for guess in range(n_classes)]
        hits, n_true, n_called = pairs.count((code, code)), labels.tolist().count(code), predicted.count(code)
        scores = found.per_class[name]
        assert (scores["n"], scores["n_predicted"]) == (n_true, n_called)
        assert scores["precision"] == pytest.approx(hits / n_called if n_called else 0)
        assert scores["recall"] == pytest.approx(hits / n_true if n_true else 0)
        assert scores["f1"] == pytest.approx(2 * hits / (n_true + n_called) if n_true + n_called else 0)
        assert scores["recall_interval"] == (wilson(hits, n_true) if n_true else (0, 1))


@pytest.mark.parametrize("n_classes", [2, 3, 30])
def test_macro_means_are_those_of_scikit_learn(n_classes):
    probabilities, labels = random_answers(n_classes, 60)  # with 30 classes some occur nowhere
    macro = evaluate(probabilities, labels, names(n_classes)).macro
    assert macro["f1"] == pytest.approx(f1_score(labels, probabilities.argmax(axis=1), average="macro"))


def test_macro_recall_is_the_balanced_accuracy_where_every_class_has_images():
    probabilities, labels = random_answers(4, 200)
    macro = evaluate(probabilities, labels, names(4)).macro
    assert macro["recall"] == pytest.approx(balanced_accuracy_score(labels, probabilities.argmax(axis=1)))


def test_a_class_that_occurs_nowhere_does_not_pull_the_macro_mean_down():
    found = evaluate(one_hot([0, 1, 1], 3), [0, 1, 1], ["a", "b", "nowhere"])
    assert found.macro == {"precision": 1, "recall": 1, "f1": 1}
    assert found.per_class["nowhere"]["recall_interval"] == (0, 1)


def test_a_model_that_always_says_the_same_has_zeros_not_warnings():
    found = evaluate(one_hot([0] * 6, 3), [0, 0, 0, 1, 1, 2], ["a", "b", "c"])
    assert found.accuracy == 0.5
    assert found.per_class["b"] == {
        "n": 2, "n_predicted": 0, "precision": 0, "recall": 0, "f1": 0, "recall_interval": wilson(0, 2),
    }  # fmt: skip
    assert found.macro["precision"] == pytest.approx(0.5 / 3)


@pytest.mark.parametrize(("n_classes", "n"), [(2, 60), (5, 300), (8, 500)])
def test_the_further_measures_are_those_of_scikit_learn(n_classes, n):
    shares, labels = random_answers(n_classes, n)
    found, predicted = evaluate(shares, labels, names(n_classes)), shares.argmax(axis=1)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found.weighted["f1"] == pytest.approx(f1_score(labels, predicted, average="weighted"))
    assert found.weighted["recall"] == pytest.approx(found.accuracy)  # each class by its images
    assert found.cohen_kappa == pytest.approx(sklearn_metrics.cohen_kappa_score(labels, predicted))
    assert found.matthews == pytest.approx(sklearn_metrics.matthews_corrcoef(labels, predicted))


def test_the_area_under_the_curve_counts_the_pairs_that_are_ranked_rightly():
    shares, labels = random_answers(2, 40)
    ranked = [float(yes > no) for yes in shares[labels == 1, 1] for no in shares[labels == 0, 1]]
    assert evaluate(shares, labels, ["a", "b"]).roc_auc == pytest.approx(np.mean(ranked))
    assert evaluate(*random_answers(3, 40), names(3)).roc_auc is None


def test_the_brier_score_of_two_classes_is_twice_that_of_one_of_them():
    shares, labels = random_answers(2, 100)
    found = evaluate(shares, labels, ["a", "b"]).brier
    assert found == pytest.approx(2 * sklearn_metrics.brier_score_loss(labels, shares[:, 1]))
    assert evaluate(one_hot([1, 1], 3), [0, 1], names(3)).brier == 1  # (1 + 1 + 0) / 2 images


def test_an_answer_counts_as_among_the_five_best_if_the_class_is_one_of_them():
    shares, labels = random_answers(9, 300)
    nearest = [label in sorted(range(9), key=row.__getitem__)[-5:] for row, label in zip(shares, labels, strict=True)]
    assert evaluate(shares, labels, names(9)).top_5_accuracy == pytest.approx(np.mean(nearest))
    assert evaluate(*random_answers(5, 30), names(5)).top_5_accuracy is None


def test_the_calibration_error_is_what_going_through_the_bins_gives():
    shares, labels = random_answers(4, 500)
    error = 0.0
    for number in range(15):
        rows = [row for row, share in enumerate(shares.max(axis=1)) if number / 15 < share <= (number + 1) / 15]
        if rows:
            accuracy = np.mean([shares[row].argmax() == labels[row] for row in rows])
            error += len(rows) / 500 * abs(accuracy - shares[rows].max(axis=1).mean())
    assert calibration_error(shares, labels) == pytest.approx(error)


def test_a_model_as_sure_as_it_is_right_is_calibrated_and_one_that_is_sure_and_wrong_is_not():
    even = np.array([[0.8, 0.2]] * 10)
    assert calibration_error(even, [0] * 8 + [1] * 2) == pytest.approx(0)
    assert calibration_error(one_hot([0, 0], 2), [1, 1]) == 1


def test_measures_that_are_not_defined_are_none():
    found = evaluate(one_hot([0, 0], 2), [0, 0], ["a", "b"])
    assert (found.cohen_kappa, found.matthews, found.roc_auc) == (None, None, None)
    assert (found.balanced_accuracy, found.brier, found.calibration_error) == (1, 0, 0)
    json.dumps(found.to_dict(), allow_nan=False)


def test_measures_from_before_there_were_the_further_ones_can_still_be_read():
    found = evaluate(*random_answers(8, 50), names(8))
    further = ["weighted", "balanced_accuracy", "top_5_accuracy", "cohen_kappa", "matthews", "roc_auc", "brier"]
    old = {name: value for name, value in found.to_dict().items() if name not in (*further, "calibration_error")}
    back = Evaluation.from_dict({**old, "part": "test"})
    assert (back.accuracy, back.brier, back.weighted) == (found.accuracy, None, None)
    assert "also" not in back.text()
    assert Evaluation.from_dict(json.loads(json.dumps(found.to_dict()))).text() == found.text()


def test_the_text_says_the_further_measures_that_there_are():
    found = evaluate(*random_answers(8, 50), names(8))
    assert found.text().splitlines()[3:5] == [
        f"also      balanced accuracy {100 * found.balanced_accuracy:.1f} %, top-5 {100 * found.top_5_accuracy:.1f} %, "
        f"calibration error {100 * found.calibration_error:.1f} %",
        f"also      kappa {found.cohen_kappa:.3f}, Matthews {found.matthews:.3f}, Brier {found.brier:.3f}",
    ]
    assert "ROC AUC 0." in evaluate(*random_answers(2, 50), ["a", "b"]).text()


def test_being_sure_and_wrong_costs_much_but_not_infinitely_much():
    found = evaluate(one_hot([1, 0], 2), [0, 0], ["a", "b"])
    assert found.log_loss == pytest.approx(-math.log(np.finfo(np.float64).eps) / 2, rel=1e-6)
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_dictionary_survives_json_and_has_what_the_command_line_promises():
    found = evaluate(*random_answers(3, 50), ["a", "b", "c"])
    back = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert {"n", "accuracy", "accuracy_interval", "log_loss", "per_class", "confusion", "macro", "classes"} <= set(back)
    assert back["accuracy_interval"] == list(found.accuracy_interval)
    assert back["per_class"]["a"]["recall"] == found.per_class["a"]["recall"]
    assert np.sum(back["confusion"]) == back["n"] == 50


def test_half_and_single_precision_are_taken_as_probabilities():
    probabilities, labels = random_answers(10, 100)
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
        (GOOD, [[0], [1]], ["a", "b"], "one an image"),
        ([[0.9, 0.1], [np.nan, 0.5]], [0, 1], ["a", "b"], "Row 1 .* 1 of 2 rows"),
        ([[np.inf, 0.1], [0.5, 0.5]], [0, 1], ["a", "b"], "Row 0"),
        ([[3.0, -2.0], [0.5, 0.5]], [0, 1], ["a", "b"], "softmax"),
        ([[0.5, 0.6], [0.5, 0.5]], [0, 1], ["a", "b"], "sum to 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_words(probabilities, labels, classes, words):
    with pytest.raises(DataError, match=words):
        evaluate(np.asarray(probabilities), labels, classes)


def test_the_text_says_the_accuracy_with_interval_and_count():
    predicted = np.array([0] * 485 + [1] * 515)
    labels = np.array([0] * 470 + [1] * 15 + [1] * 501 + [0] * 14)
    text = evaluate(one_hot(predicted, 2), labels, ["cats", "dogs"]).text()
    assert "accuracy  97.1 % (95 %: 95.9\N{EN DASH}98.0, 971 of 1,000)" in text
    assert [line.split() for line in text.splitlines() if line.startswith(("a = ", "b = "))] == [
        ["a", "=", "cats", "470", "14"],
        ["b", "=", "dogs", "15", "501"],
    ]


def test_the_columns_of_the_text_stand_under_each_other_whatever_the_names():
    classes = ["a", "猫のいる写真", "x" * 200, "bell\x07 and \x1b[31mred"]
    text = evaluate(*random_answers(4, 200), classes).text()
    tables = text.split("\n\n")[1:]
    assert all(len({cell_len(line) for line in table.splitlines()}) == 1 for table in tables)
    assert text.replace("\n", "").isprintable()
    assert max(map(cell_len, text.splitlines())) < 100


def test_many_classes_are_shortened_to_the_worst_and_the_rest_counted():
    found = evaluate(*random_answers(50, 2000), names(50))
    lines = found.text().splitlines()
    shown = {name for name in names(50) if any(line.startswith(name) for line in lines)}
    worst = sorted(names(50), key=lambda name: found.per_class[name]["f1"])[:30]
    assert shown == set(worst)
    assert lines[-1] == "and 20 classes with a higher F1; --json lists all"


def test_a_share_that_was_not_counted_is_a_dash_in_the_text():
    text = evaluate(one_hot([0, 0], 3), [0, 1], ["a", "b", "c"]).text()
    dash = "\N{EN DASH}"
    rows = [line.split() for line in text.split("\n\n")[1].splitlines()[1:]]
    assert rows == [["a", "1", "50.0", "100.0", "66.7"], ["b", "1", dash, "0.0", "0.0"], ["c", "0", dash, dash, dash]]


def test_the_surest_mistakes_come_first_and_right_answers_never():
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7], [0.99, 0.01], [0.2, 0.8]])
    assert confident_mistakes(probabilities, [1, 0, 1, 0, 0], 2) == [(1, 1, 0.9), (4, 1, 0.8)]
    assert confident_mistakes(probabilities, [1, 0, 1, 0, 0], 9)[-1] == (0, 0, 0.6)
    assert confident_mistakes(probabilities, [0, 1, 1, 0, 1], 9) == []


def test_the_classes_mixed_up_most_are_named_with_their_share():
    labels = [0] * 4 + [1] * 10 + [2]
    found = evaluate(one_hot([1, 1, 0, 0] + [0] * 3 + [1] * 7 + [2], 3), labels, ["a", "b", "c"])
    assert most_confused(found, 5) == [("b", "a", 3, 0.3), ("a", "b", 2, 0.5)]
    assert most_confused(found, 1) == [("b", "a", 3, 0.3)]


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.0"), (0.99999, "99.9"), (0.9714, "97.1"), (0.5, "50.0"), (0, "0.0")]
)
def test_a_hundred_percent_means_all_of_them(share, text):
    assert percent(share) == text
