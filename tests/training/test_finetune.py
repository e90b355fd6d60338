import logging

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tests.training.maps import above, maps
from torch import nn

from regraft.core.errors import Diverged, UsageError
from regraft.network.tensors import hash_tensors
from regraft.training import examples as reading
from regraft.training import finetune, tail
from regraft.training.checkpoint import Checkpoint
from regraft.training.examples import Examples
from regraft.training.options import FitOptions

SHAPE = (2, 6, 6)


def fitted(
    module=None, train=None, validation=None, start=None, checkpoint=None, *, pretrained=True, device="cpu", **choices
):
    options = FitOptions(**{"tail_epochs": 3, "epochs": 5, "batch_size": 8, "patience": None, **choices})
    module, train = module or above(), train or maps()
    return finetune.fit(
        *(module, SHAPE, train, validation, 2, options),
        pretrained=pretrained,
        checkpoint=checkpoint,
        start=start,
        device=device,
    )


def noisy(seed=1):
    """Maps some of which have the other class's label, so that no model is right about all."""
    examples = maps(seed=seed)
    return Examples(examples.inputs, np.where(np.arange(48) % 5 == 0, 1 - examples.labels, examples.labels))


def softmax(module, inputs):
    with torch.no_grad():
        return module.eval()(torch.from_numpy(inputs)).double().softmax(1).numpy()


# Which phases there are


@pytest.mark.parametrize(
    ("asked", "pretrained", "trained", "expected"),
    [
        ("head,tail", True, False, ("head", "tail")),
        ("head", True, False, ("head",)),
        ("head", False, True, ("head",)),
        ("head,tail", False, False, ("tail",)),  # random weights: nothing to spoil, and nothing to build a head on
        ("tail", False, False, ("tail",)),
        ("head,tail", True, True, ("tail",)),
        ("tail", True, True, ("tail",)),
    ],
)
def test_the_phases_are_those_of_the_options_without_a_head_that_is_trained_or_of_no_use(
    asked, pretrained, trained, expected
):
    assert finetune.plan(FitOptions(phases=asked), pretrained=pretrained, trained=trained) == expected


def test_a_pretrained_tail_is_not_trained_under_an_untrained_head_unless_insisted_on():
    before = hash_tensors(above().state_dict())
    module = above()
    with pytest.raises(UsageError, match=r"--phases is 'tail'.*untrained.*--phases head,tail.*--untrained-head"):
        fitted(module, phases="tail")
    assert hash_tensors(module.state_dict()) == before
    result = fitted(module, phases="tail", untrained_head=True)
    assert [phase["phase"] for phase in result.chosen["phases"]] == ["tail"]
    assert hash_tensors(module.state_dict()) != before


# The head


def test_the_head_is_scikit_learns_regression_on_the_frozen_tails_features_of_images_and_views():
    module = above()
    before = hash_tensors(module.state_dict())
    train = Examples(noisy().inputs, noisy().labels, views=(noisy(2).inputs,))
    result = fitted(module, train, phases="head", head_options={"regularisation": 2.0})
    assert hash_tensors(module.state_dict()) == before
    with torch.no_grad():
        pooled = [above()(torch.from_numpy(inputs)).double().numpy() for inputs in (*train.all_inputs, maps(9).inputs)]
    rows = np.concatenate(pooled[:2])
    mean, scale = rows.mean(0), np.sqrt(rows.var(0).mean())
    # two classes: regraft's strength is on the difference of their weights, a view is its share of an image
    expected = LogisticRegression(C=1 / 4, tol=1e-10).fit((rows - mean) / scale, np.tile(train.labels, 2))
    assert softmax(result.module, maps(9).inputs) == pytest.approx(
        expected.predict_proba((pooled[2] - mean) / scale), abs=1e-3
    )


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_history_of_both_phases_is_one_with_a_validation_of_the_head(head, monkeypatch):
    monkeypatch.setattr(finetune, "STEPS", (1.0,))
    result = fitted(None, noisy(), noisy(3), head=head)
    epochs = 0 if head == "linear" else 5
    assert [row.epoch for row in result.history.part("validation") if row.phase == "tail"] == [
        epochs + 1,
        epochs + 2,
        epochs + 3,
    ]
    heads = [row for row in result.history.part("validation") if row.phase == "head"]
    assert [row.epoch for row in heads] == ([0] if head == "linear" else [1, 2, 3, 4, 5])
    first, second = result.chosen["phases"]
    assert (first["phase"], first["epochs"], second["phase"], second["epochs"]) == ("head", epochs, "tail", 3)
    assert min(row.loss for row in heads) == pytest.approx(first["loss"], rel=1e-5)
    tails = [row for row in result.history.part("validation") if row.phase == "tail"]
    assert min(row.loss for row in tails) == pytest.approx(second["loss"], rel=1e-5)
    assert second["best_epoch"] == min(tails, key=lambda row: row.loss).epoch
    assert "regularisation" in first if head == "linear" else "best_epoch" in first


def test_the_linear_head_is_not_chosen_by_the_validation_rows():
    train = noisy()
    one, other = (fitted(None, train, noisy(seed), phases="head") for seed in (3, 4))
    assert hash_tensors(one.module.state_dict()) == hash_tensors(other.module.state_dict())
    assert one.chosen["phases"][0]["judged_on"] == "train"
    assert one.chosen["judged_on"] == "validation"


# The tail starts where the head ended


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_tail_starts_from_the_head(head):
    only_head = fitted(None, noisy(), noisy(3), head=head, phases="head")
    tiny = fitted(None, noisy(), noisy(3), head=head, tail_learning_rate=1e-12)
    for name, tensor in only_head.module.state_dict().items():
        torch.testing.assert_close(tiny.module.state_dict()[name], tensor, atol=1e-6, rtol=0)
    first, second = tiny.chosen["phases"]
    assert second["loss"] == pytest.approx(first["loss"], abs=1e-5)


def test_random_weights_are_trained_with_their_head_from_the_start():
    module = above()
    statistics = module[1].running_mean.clone()
    result = fitted(module, pretrained=False)
    assert [phase["phase"] for phase in result.chosen["phases"]] == ["tail"]
    assert not torch.equal(module[1].running_mean, statistics)


# The better one is kept


def test_a_tail_that_does_worse_leaves_the_head_and_the_tail_as_they_were(caplog):
    module = above()
    before = hash_tensors(module.state_dict())
    with caplog.at_level(logging.INFO, "regraft"):
        result = fitted(module, noisy(), noisy(3), tail_learning_rate=1.0, schedule="constant")
    head, worse = result.chosen["phases"]
    assert worse["loss"] > head["loss"]
    assert result.chosen["kept"] == "head"
    assert hash_tensors(module.state_dict()) == before
    expected = fitted(None, noisy(), noisy(3), phases="head").module
    assert hash_tensors(result.module.state_dict()) == hash_tensors(expected.state_dict())
    assert "Kept: head." in caplog.text


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_tail_that_does_better_on_any_device_is_kept_on_the_cpu(head, device):
    weak = {"head_options": {"regularisation": 1000}} if head == "linear" else {"epochs": 1, "learning_rate": 1e-6}
    held = noisy(3)
    result = fitted(None, noisy(), held, tail_epochs=20, tail_learning_rate=0.01, head=head, device=device, **weak)
    first, better = result.chosen["phases"]
    assert (result.chosen["kept"], better["loss"] < first["loss"]) == ("tail", True)
    assert log_loss(held.labels, softmax(result.module, held.inputs)) == pytest.approx(better["loss"], rel=1e-3)


@pytest.mark.parametrize(("regularisation", "expected"), [(1, 0.25), (1000, 0.75)])
def test_from_a_good_head_the_tail_goes_a_little_way_and_far_from_a_weak_one(monkeypatch, regularisation, expected):
    monkeypatch.setattr(finetune._Run, "best", property(lambda run: run.done[-1]))
    head = {"head_options": {"regularisation": regularisation}}
    held, options = noisy(3), {"tail_learning_rate": 0.01, "tail_epochs": 20, **head}
    before = fitted(None, noisy(), held, phases="head", **head).module.state_dict()
    result = fitted(None, noisy(), held, **options)
    monkeypatch.setattr(finetune, "STEPS", (1.0,))
    module = fitted(None, noisy(), held, **options).module
    after, losses = {name: tensor.clone() for name, tensor in module.state_dict().items()}, {}
    for share in (0.25, 0.5, 0.75, 1.0):
        module.load_state_dict({name: before[name] + share * (after[name] - before[name]) for name in after})
        losses[share] = -np.log(softmax(module, held.inputs)[range(48), held.labels])
    best = min(losses.values(), key=np.mean)
    assert expected == min(s for s, own in losses.items() if np.mean(own - best) <= np.std(own - best) / np.sqrt(48))
    assert result.chosen["phases"][1]["share"] == expected
    assert log_loss(held.labels, softmax(result.module, held.inputs)) == pytest.approx(
        losses[expected].mean(), rel=1e-5
    )


def test_random_weights_and_training_rows_choose_no_average_of_weights():
    for result in (fitted(None, noisy(), noisy(3), pretrained=False), fitted(None, noisy())):
        assert result.chosen["phases"][-1]["share"] == 1


def phase(name, losses, right):
    return finetune.Phase(name, np.array(losses), np.arange(10) < right, 1, 0.0, {})


EVEN, ONE_BAD = [0.5] * 10, [0.1] * 9 + [4.0]  # means 0.5 and 0.49


@pytest.mark.parametrize(
    ("watch", "head", "tail", "kept"),
    [
        ("loss", (EVEN, 9), ([0.4] * 10, 8), "tail"),
        ("accuracy", (EVEN, 9), ([0.4] * 10, 8), "head"),
        ("accuracy", (EVEN, 4), ([0.6] * 10, 9), "tail"),
        ("loss", (EVEN, 8), (EVEN, 9), "head"),  # nothing gained: the earlier one
        ("loss", (EVEN, 8), (ONE_BAD, 9), "head"),  # gained 0.01, with a standard error of 0.37
        ("accuracy", (EVEN, 8), ([0.4] * 10, 8), "head"),
        ("loss", ([0.01] * 10, 10), ([0.001] * 10, 10), "head"),  # right about all: only more confident
        ("accuracy", (EVEN, 8), ([0.4] * 10, 9), "tail"),  # gained 0.1, with a standard error of 0.095
    ],
)
def test_the_first_phase_within_a_standard_error_of_the_best_is_kept(watch, head, tail, kept):
    assert finetune.nearest([phase("head", *head), phase("tail", *tail)], watch).name == kept


def test_the_result_has_which_validation_rows_each_phase_was_right_about():
    held = noisy(3)
    result = fitted(None, noisy(), held, tail_learning_rate=0.05)
    assert list(result.correct) == ["head", "tail"]
    kept = result.correct[result.chosen["kept"]]
    assert kept.tolist() == (softmax(result.module, held.inputs).argmax(1) == held.labels).tolist()
    assert [phase["accuracy"] for phase in result.chosen["phases"]] == [
        right.mean() for right in result.correct.values()
    ]


def test_without_a_validation_part_each_phase_is_evaluated_on_the_training_rows():
    result = fitted(None, noisy())
    assert {len(right) for right in result.correct.values()} == {48}
    assert result.chosen["judged_on"] == "train"


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_one_output_for_two_classes_goes_through_both_phases(head):
    result = fitted(None, noisy(), noisy(3), head=head, loss="sigmoid", tail_learning_rate=0.01)
    with torch.no_grad():
        logits = result.module(torch.from_numpy(noisy(3).inputs))
    assert logits.shape == (48, 1)
    assert result.correct[result.chosen["kept"]].tolist() == ((logits[:, 0] > 0).numpy() == noisy(3).labels).tolist()


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_several_labels_go_through_both_phases(head):
    labels = np.eye(2, dtype=np.float32)[maps().labels]
    labels[:6] = 1
    train = Examples(maps().inputs, labels)
    result = fitted(None, train, None, head=head)
    with torch.no_grad():
        named = result.module(torch.from_numpy(train.inputs)).numpy() > 0
    assert result.correct[result.chosen["kept"]].tolist() == (named == (labels > 0)).all(1).tolist()


# The same run again


class Killed(Exception):
    pass


class Dying:
    """Inputs that are read so many times, and then the process is killed."""

    def __init__(self, inputs, lives):
        self.inputs, self.lives, self.shape = inputs, lives, inputs.shape

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, rows):
        self.lives -= 1
        if self.lives < 0:
            raise Killed
        return self.inputs[rows]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_run_that_was_killed_in_the_tails_phase_ends_as_the_one_that_was_not(head, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    choices = {"head": head, "tail_epochs": 6, "tail_learning_rate": 0.01, "unfreeze_every": 2, "layer_decay": 0.5}
    choices |= {"batchnorm": "train", "optimizer": "adamw"}
    kept = Checkpoint(tmp_path / "checkpoint", "of the run")

    def run(lives, checkpoint=None):
        inputs = Dying(noisy().inputs, lives)
        train = Examples(inputs, noisy().labels, views=(noisy(2).inputs,))
        result = fitted(None, train, noisy(3), checkpoint=checkpoint, **choices)
        rows = [(row.epoch, row.part, row.phase, row.loss, row.learning_rate) for row in result.history.rows]
        return hash_tensors(result.module.state_dict()), rows, inputs.lives

    expected = run(10**6)
    needed = 10**6 - expected[2]
    with pytest.raises(Killed):
        run(needed - 9, kept)
    assert kept.path.exists()
    with caplog.at_level(logging.INFO, "regraft"):
        result = run(10**6, kept)
    assert "Resumed after epoch" in caplog.text
    assert result[:2] == expected[:2]


@pytest.mark.parametrize("batchnorm", ["keep", "train"])
def test_what_is_frozen_until_the_end_is_bit_equal_with_its_normalisation(batchnorm):
    module = above()
    below = hash_tensors(module[:2].state_dict())
    fitted(module, noisy(), noisy(3), tail_epochs=2, unfreeze_every=2, batchnorm=batchnorm, tail_learning_rate=0.01)
    assert hash_tensors(module[:2].state_dict()) == below


# Continuing from a trained model


def test_a_trained_model_is_continued_and_kept_where_nothing_is_better():
    earlier = fitted(None, noisy(), noisy(3), tail_learning_rate=0.01)
    more = fitted(None, noisy(), noisy(3), start=earlier.module, tail_learning_rate=1e-12)
    assert [phase["phase"] for phase in more.chosen["phases"]] == ["start", "tail"]
    kept = next(phase for phase in earlier.chosen["phases"] if phase["phase"] == earlier.chosen["kept"])
    assert more.chosen["phases"][0]["loss"] == pytest.approx(kept["loss"], rel=1e-5)
    worse = fitted(None, noisy(), noisy(3), start=earlier.module, tail_learning_rate=1.0, schedule="constant")
    assert worse.chosen["kept"] == "start"
    assert hash_tensors(worse.module.state_dict()) == hash_tensors(earlier.module.state_dict())


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_head_alone_is_continued_on_the_trained_tail(head):
    earlier = fitted(None, noisy(), noisy(3), head=head, tail_learning_rate=0.01)
    again = fitted(
        None, noisy(), noisy(3), head=head, start=earlier.module, phases="head", learning_rate=1e-12, watch="accuracy"
    )
    assert [phase["phase"] for phase in again.chosen["phases"]] == ["start", "head"]
    assert hash_tensors(again.module[0].state_dict()) == hash_tensors(earlier.module[0].state_dict())
    if head == "mlp":
        first, second = again.chosen["phases"]
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)


def test_a_model_of_another_architecture_is_not_continued():
    other = tail.build(above(), SHAPE, 3, FitOptions())
    with pytest.raises(UsageError, match="another network, cut, head or number of classes"):
        fitted(None, maps(), start=other)


# What diverges


def test_a_tail_that_diverges_leaves_the_better_of_the_head_and_its_last_good_weights():
    module = above()
    before = hash_tensors(module.state_dict())
    with pytest.raises(Diverged, match=r"--tail-learning-rate 1e\+06") as caught:
        fitted(module, noisy(), noisy(3), tail_learning_rate=1e6, optimizer="sgd", tail_epochs=50)
    kept = caught.value.kept
    expected = fitted(None, noisy(), noisy(3), phases="head").module
    assert hash_tensors(kept.module.state_dict()) == hash_tensors(expected.state_dict())
    assert hash_tensors(module.state_dict()) == before
    assert kept.chosen["kept"] == "head"


def test_a_head_that_diverges_leaves_the_tail_with_the_heads_last_good_weights():
    with pytest.raises(Diverged) as caught:
        fitted(None, noisy(), None, head="mlp", learning_rate=1e6, optimizer="sgd", epochs=200)
    kept = caught.value.kept.module
    assert isinstance(kept, nn.Sequential)
    assert softmax(kept, maps().inputs).shape == (48, 2)
    assert np.isfinite(softmax(kept, maps().inputs)).all()
