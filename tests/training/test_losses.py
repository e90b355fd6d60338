import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from scipy.stats import sem
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from regraft.core.errors import UsageError
from regraft.training import losses
from regraft.training.losses import Loss
from regraft.training.options import FitOptions

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], [30, 10, 5])
LOGITS = RNG.normal(0, 2, (45, 3))
TWO = (LABELS > 0).astype(int)
MULTILABEL = (RNG.random((45, 3)) < 0.4).astype(np.float32)


def value(loss, logits, labels):
    """Return the loss by PyTorch, which is equal to that by NumPy."""
    result = loss(torch.from_numpy(logits), torch.from_numpy(labels)).item()
    assert loss.measure(logits, labels)[0] == pytest.approx(result, rel=1e-12)
    return result


def test_softmax_is_the_log_loss_of_scikit_learn():
    assert value(Loss(), LOGITS, LABELS) == pytest.approx(log_loss(LABELS, softmax(LOGITS, axis=1)))


def test_the_error_of_a_loss_is_the_standard_error_of_scipy_over_its_rows():
    rows = -log_softmax(LOGITS, axis=1)[np.arange(45), LABELS]
    assert Loss().error(LOGITS, LABELS) == pytest.approx(sem(rows))
    assert Loss().error(LOGITS[:1], LABELS[:1]) == 0


def test_sigmoid_with_one_output_is_the_log_loss_of_scikit_learn_of_two_classes():
    logits = LOGITS[:, :1]
    assert value(Loss("sigmoid"), logits, TWO) == pytest.approx(log_loss(TWO, expit(logits[:, 0])))


def test_of_several_labels_it_is_the_mean_of_their_log_losses():
    each = [log_loss(MULTILABEL[:, label], expit(LOGITS[:, label])) for label in range(3)]
    assert value(Loss("sigmoid", multilabel=True), LOGITS, MULTILABEL) == pytest.approx(np.mean(each))


def test_smoothing_spreads_a_fraction_of_the_label_over_all_classes():
    targets = 0.7 * np.eye(3)[LABELS] + 0.3 / 3
    expected = -(targets * log_softmax(LOGITS, axis=1)).sum(axis=1).mean()
    assert value(Loss(smoothing=0.3), LOGITS, LABELS) == pytest.approx(expected)


@pytest.mark.parametrize("multilabel", [False, True])
def test_smoothing_of_the_sigmoid_spreads_it_over_yes_and_no(multilabel):
    logits, labels = (LOGITS, MULTILABEL) if multilabel else (LOGITS[:, :1], TWO)
    targets = (0.7 * labels + 0.15).reshape(logits.shape)
    expected = -(targets * np.log(expit(logits)) + (1 - targets) * np.log(expit(-logits))).mean()
    assert value(Loss("sigmoid", multilabel, 0.3), logits, labels) == pytest.approx(expected)


def test_two_classes_smoothed_are_the_same_by_either_loss():
    both = np.concatenate([np.zeros((45, 1)), LOGITS[:, :1]], axis=1)
    expected = value(Loss(smoothing=0.2), both, TWO)
    assert value(Loss("sigmoid", smoothing=0.2), LOGITS[:, :1], TWO) == pytest.approx(expected)


def test_class_weights_are_scikit_learns_balanced_ones():
    np.testing.assert_allclose(
        losses.balanced(LABELS), compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    )
    weighed = losses.of(FitOptions(balance="weights"), LABELS)
    sample = compute_sample_weight("balanced", LABELS)
    assert sample.mean() == pytest.approx(1)
    expected = log_loss(LABELS, softmax(LOGITS, axis=1), sample_weight=sample)
    assert value(weighed, LOGITS, LABELS) == pytest.approx(expected)


def test_a_weighted_loss_is_divided_by_the_number_of_rows_not_by_their_weights():
    """So that the mean over all batches is the loss of all rows."""
    weighed = losses.of(FitOptions(balance="weights"), LABELS)
    parts = [value(weighed, LOGITS[start : start + 9], LABELS[start : start + 9]) for start in range(0, 45, 9)]
    assert np.mean(parts) == pytest.approx(value(weighed, LOGITS, LABELS))


@pytest.mark.parametrize(
    ("loss", "logits", "expected"),
    [
        (Loss(), LOGITS, softmax(LOGITS, axis=1)),
        (Loss("sigmoid"), LOGITS[:, :1], np.c_[1 - expit(LOGITS[:, 0]), expit(LOGITS[:, 0])]),
        (Loss("sigmoid", multilabel=True), LOGITS, expit(LOGITS)),
    ],
    ids=["softmax", "one output", "several labels"],
)
def test_probabilities_are_those_of_the_classes(loss, logits, expected):
    np.testing.assert_allclose(loss.probabilities(logits), expected)


@pytest.mark.parametrize(
    ("loss", "labels"), [(Loss(), [0, 1]), (Loss("sigmoid"), [0, 1]), (Loss("sigmoid", multilabel=True), [[0], [1]])]
)
def test_logits_as_large_as_float32_holds_give_finite_losses_and_probabilities(loss, labels):
    logits = np.float32([[1e30, 1.0], [-1e30, 1.0]])[:, : 2 if loss.name == "softmax" else 1]
    assert loss.of_rows(logits, np.array(labels)) == pytest.approx([0 if loss.name == "softmax" else 1e30] * 2)
    assert np.isin(loss.probabilities(logits), (0, 1)).all()


@pytest.mark.parametrize(
    ("loss", "label"), [(Loss(), 0), (Loss("sigmoid"), 0), (Loss("sigmoid", multilabel=True), [1, 0])]
)
def test_logits_of_a_training_that_diverged_give_a_loss_that_is_not_finite(loss, label):
    for logits in ([[np.inf, -np.inf]], [[np.nan, 1.0]]):
        outputs = np.array(logits * 2)[:, : loss.outputs(2)]
        assert not np.isfinite(loss.measure(outputs, np.array([label] * 2))[0])
        assert np.isnan(loss.error(outputs, np.array([label] * 2)))


def test_a_row_is_right_if_its_most_probable_class_is_or_all_of_its_labels_are():
    def right(loss, logits, labels):
        correct = loss.correct(np.array(logits), np.array(labels)).tolist()
        assert loss.correct(torch.tensor(logits), torch.tensor(labels)).tolist() == correct
        return correct

    assert right(Loss(), [[0.0, 1.0], [0.0, 1.0]], [1, 0]) == [True, False]
    assert right(Loss("sigmoid"), [[0.1], [0.1], [-0.1], [-0.1]], [1, 0, 1, 0]) == [True, False, False, True]
    multilabel = Loss("sigmoid", multilabel=True)
    assert right(multilabel, [[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]], [[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]) == [
        True,
        False,
        True,
    ]


def test_one_output_is_enough_for_two_classes_by_sigmoid():
    assert [loss.outputs(2) for loss in (Loss(), Loss("sigmoid"), Loss("sigmoid", multilabel=True))] == [2, 1, 2]


@pytest.mark.parametrize(("labels", "name"), [(LABELS, "softmax"), (TWO, "softmax"), (MULTILABEL, "sigmoid")])
def test_the_loss_is_chosen_by_the_labels_unless_the_options_say(labels, name):
    loss = losses.of(FitOptions(label_smoothing=0.1), labels)
    assert (loss.name, loss.multilabel, loss.smoothing, loss.weights) == (name, labels.ndim == 2, 0.1, None)


@pytest.mark.parametrize(
    ("options", "labels", "says"),
    [
        ({"loss": "softmax"}, MULTILABEL, "--loss is softmax.*several labels"),
        ({"loss": "sigmoid"}, LABELS, "--loss is sigmoid.*there are 3"),
        ({"balance": "weights"}, MULTILABEL, "--balance is weights.*several labels"),
        ({"balance": "oversample"}, MULTILABEL, "--balance is oversample.*several labels"),
    ],
)
def test_a_loss_that_does_not_fit_the_labels_is_refused(options, labels, says):
    with pytest.raises(UsageError, match=says):
        losses.of(FitOptions(**options), labels)


def test_a_loss_is_not_changed_by_leaving_its_weights_out():
    weighed = losses.of(FitOptions(balance="weights"), LABELS)
    assert value(dataclasses.replace(weighed, weights=None), LOGITS, LABELS) == value(Loss(), LOGITS, LABELS)
