from __future__ import annotations

import json

import numpy as np
import pytest
from rich.cells import cell_len
from sklearn import metrics

from regraft.core.errors import DataError
from regraft.evaluation.multilabel import MultilabelEvaluation, choose_thresholds, evaluate
from regraft.evaluation.significance import wilson

NAMES = ["beach", "猫", "sunset", "tree"]


def random_predictions(n, n_labels=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.random((n, n_labels)) < np.linspace(0.1, 0.6, n_labels)
    return 1 / (1 + np.exp(-rng.normal(size=truth.shape) - 2 * truth + 1)), truth.astype(int)


def test_every_measure_of_a_label_is_that_of_scikit_learn():
    probabilities, truth = random_predictions(200)
    thresholds = np.array([0.3, 0.5, 0.6, 0.9])
    evaluation, predicted = evaluate(probabilities, truth, NAMES, thresholds), probabilities >= thresholds
    for at, name in enumerate(NAMES):
        scores, pair = evaluation.per_label[name], (truth[:, at], predicted[:, at])
        assert (scores["n"], scores["n_predicted"]) == (truth[:, at].sum(), predicted[:, at].sum())
        assert scores["precision"] == pytest.approx(metrics.precision_score(*pair, zero_division=0))
        assert scores["recall"] == pytest.approx(metrics.recall_score(*pair))
        assert scores["f1"] == pytest.approx(metrics.f1_score(*pair))
        assert scores["average_precision"] == pytest.approx(
            metrics.average_precision_score(pair[0], probabilities[:, at])
        )
        assert scores["threshold"] == thresholds[at]
        assert scores["recall_interval"] == wilson(int((pair[0] & pair[1]).sum()), scores["n"])
    assert evaluation.mean_average_precision == pytest.approx(
        metrics.average_precision_score(truth, probabilities, average="macro")
    )
    for average, scores in (("macro", evaluation.macro), ("micro", evaluation.micro)):
        expected = metrics.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)
        assert [scores["precision"], scores["recall"], scores["f1"]] == pytest.approx(expected[:3])


def test_an_image_is_exact_only_if_every_label_is_right():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.9], [0.2, 0.2], [0.4, 0.6]])
    truth = np.array([[1, 0], [1, 0], [0, 0], [0, 1]])
    evaluation = evaluate(probabilities, truth, ["a", "b"])
    assert (evaluation.n, evaluation.exact_match) == (4, 0.75)
    assert evaluation.exact_match_interval == wilson(3, 4)
    assert (
        evaluate(probabilities, truth, ["a", "b"], [0.5, 0.95]).exact_match == 0.75
    )  # the second is right now, the last not


def best_f1(probabilities, truth):
    """Return the highest F1 of any threshold, by trying all of them."""
    tried = [*np.unique(probabilities), 1.1]
    return max(metrics.f1_score(truth, probabilities >= threshold, zero_division=0) for threshold in tried)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_higher_f1(seed):
    probabilities, truth = random_predictions(40, seed=seed)
    thresholds = choose_thresholds(probabilities, truth)
    for column, has, threshold in zip(probabilities.T, truth.T, thresholds, strict=True):
        assert metrics.f1_score(has, column >= threshold) == pytest.approx(best_f1(column, has))


def test_a_threshold_lies_halfway_between_what_it_separates_and_of_equals_nearest_to_a_half():
    probabilities = np.array([[0.1, 0.2], [0.3, 0.4], [0.9, 0.45], [0.95, 0.9]])
    truth = np.array([[0, 1], [0, 1], [1, 1], [1, 1]])
    assert choose_thresholds(probabilities, truth).tolist() == pytest.approx([0.6, 0.1])
    tied = choose_thresholds(np.array([[0.2], [0.5], [0.6], [0.8]]), np.array([[1], [0], [0], [1]]))
    assert tied.tolist() == pytest.approx([0.7])  # 0.1 and 0.7 have the F1 2/3


@pytest.mark.parametrize("equal", [0.0, 0.5, 1.0])
def test_equal_probabilities_are_all_taken_where_most_have_the_label(equal):
    thresholds = choose_thresholds(np.full((4, 1), equal), np.array([[1], [1], [1], [0]]))
    assert (np.full(4, equal) >= thresholds[0]).all()


def test_a_label_that_no_image_has_is_left_out_of_the_means():
    probabilities, truth = random_predictions(60)
    probabilities[:, 2], truth[:, 2] = 0.1, 0
    evaluation = evaluate(probabilities, truth, NAMES, choose_thresholds(probabilities, truth))
    nowhere = evaluation.per_label["sunset"]
    assert (nowhere["n"], nowhere["n_predicted"], nowhere["threshold"]) == (0, 0, 0.5)
    assert (nowhere["average_precision"], nowhere["recall_interval"]) == (None, (0, 1))
    others = [0, 1, 3]
    assert evaluation.mean_average_precision == pytest.approx(
        metrics.average_precision_score(truth[:, others], probabilities[:, others], average="macro")
    )
    assert evaluation.macro["f1"] == pytest.approx(np.mean([evaluation.per_label[NAMES[at]]["f1"] for at in others]))
    assert "means over 3 of 4 labels, those with images here" in evaluation.text()
    probabilities[0, 2] = 0.9
    mistaken = evaluate(probabilities, truth, NAMES, 0.5)
    precisions = [mistaken.per_label[NAMES[at]]["precision"] for at in others]
    assert mistaken.macro["precision"] == pytest.approx(np.mean(precisions)), "also where it is predicted"


def test_images_without_labels_that_are_predicted_to_have_none_are_all_right():
    evaluation = evaluate(np.full((3, 2), 0.1), np.zeros((3, 2), int), ["a", "b"])
    assert (evaluation.exact_match, evaluation.mean_average_precision) == (1, None)
    assert evaluation.micro == {"precision": 0, "recall": 0, "f1": 0}
    assert evaluation.macro["classes"] == 0
    assert {evaluation.macro[name] for name in evaluation.micro} == {None}
    json.dumps(evaluation.to_dict(), allow_nan=False)
    assert "mAP       \N{EN DASH}" in evaluation.text()


def test_one_label_is_enough():
    evaluation = evaluate(np.array([[0.9], [0.1]]), np.array([[1], [0]]), ["a"])
    assert (evaluation.exact_match, evaluation.macro["f1"], evaluation.mean_average_precision) == (1, 1, 1)


def test_the_dictionary_survives_json():
    evaluation = evaluate(*random_predictions(50), NAMES)
    back = MultilabelEvaluation.from_dict(
        {**json.loads(json.dumps(evaluation.to_dict(), allow_nan=False)), "part": "test"}
    )
    assert back.text() == evaluation.text()
    assert back.per_label["tree"]["f1"] == evaluation.per_label["tree"]["f1"]


def test_the_text_has_the_exact_share_with_its_interval_and_a_line_for_each_label():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.9], [0.2, 0.2], [0.4, 0.6]])
    text = evaluate(probabilities, np.array([[1, 0], [1, 0], [0, 0], [0, 1]]), ["a", "b"]).text()
    assert text.splitlines()[:3] == [
        "exact     75.0 % (95 % interval: 30.1\N{EN DASH}95.4)",
        '          3 of 4 images have all labels right; the only mistake is "b" predicted',
        "          wrongly (once).",
    ]
    assert ["a", "2", "100.0", "100.0", "100.0", "100.0", "0.500"] in [line.split() for line in text.splitlines()]
    many = evaluate(*random_predictions(90, 50), [f"label {at}" for at in range(50)]).text().splitlines()
    assert many[-1] == "and 20 labels with a higher F1; --json lists all"
    assert len({cell_len(line) for line in many[many.index("") + 1 : -1]}) == 1


@pytest.mark.parametrize(
    ("predicted", "truth", "sentence"),
    [
        ([[1, 0], [0, 1]], [[1, 0], [0, 1]], "All 2 images have all labels right."),
        ([[0, 0], [0, 1]], [[1, 0], [0, 1]], 'the only mistake is "beach" missed (once).'),
        ([[0, 1], [0, 1]], [[1, 0], [1, 1]], 'the most frequent mistake is "beach" missed (twice).'),
        ([[1, 1], [0, 0]], [[0, 1], [0, 1]], '"beach" predicted wrongly and "tree" missed (once each).'),
    ],
)
def test_one_sentence_says_how_many_are_right_and_which_label_is_wrong_most_often(predicted, truth, sentence):
    assert evaluate(np.array(predicted, float), np.array(truth), ["beach", "tree"]).summary().endswith(sentence)


GOOD = np.array([[0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("probabilities", "truth", "labels", "words"),
    [
        (GOOD, [[1, 0]], ["a", "b"], "shape"),
        (GOOD, [[1, 0], [0, 1]], ["a"], "1 labels"),
        (GOOD[:0], np.zeros((0, 2)), ["a", "b"], "at least one"),
        (GOOD, [[1, 0], [0, 2]], ["a", "b"], "neither 0 nor 1"),
        ([[3.0, 0.1], [0.5, 0.5]], [[1, 0], [0, 1]], ["a", "b"], "sigmoid"),
        ([[np.nan, 0.1], [0.5, 0.5]], [[1, 0], [0, 1]], ["a", "b"], "from 0 to 1"),
        (GOOD, [[1, 0], [0, 1]], ["a", "a"], "different"),
    ],
)
def test_invalid_arguments_are_refused_with_words(probabilities, truth, labels, words):
    with pytest.raises(DataError, match=words):
        evaluate(np.asarray(probabilities), np.asarray(truth), labels)


def test_versions_of_one_picture_count_once_in_the_intervals():
    probabilities, truth = random_predictions(50)
    labels = ["a", "b", "c", "d"]
    once = evaluate(probabilities, truth, labels)
    four = evaluate(
        np.repeat(probabilities, 4, 0), np.repeat(truth, 4, 0), labels, pictures=np.repeat(np.arange(50), 4)
    )
    assert (four.n, four.pictures, four.exact_match) == (200, 50, once.exact_match)
    assert four.exact_match_interval == pytest.approx(once.exact_match_interval)
    for name in labels:
        assert four.per_label[name]["recall_interval"] == pytest.approx(once.per_label[name]["recall_interval"])
    assert "200 images show 50 pictures" in four.text()
