import logging

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from regraft.core.errors import DataError, Diverged
from regraft.core.rng import generator
from regraft.network.tensors import hash_tensors
from regraft.training import examples as reading
from regraft.training import loop
from regraft.training.examples import Examples
from regraft.training.history import History, Measured
from regraft.training.losses import Loss
from regraft.training.optimizers import Group
from regraft.training.options import FitOptions


def blobs(n=60, width=4, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(99).normal(0, 3, (classes, width))
    return Examples((centres[labels] + rng.normal(size=(n, width))).astype(np.float32), labels)


def linear(width=4, classes=3):
    module = nn.Linear(width, classes)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def network(width=4, classes=3):
    with loop.seeded(7, "network"):
        return nn.Sequential(
            nn.Linear(width, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, classes)
        )


def options(**choices):
    return FitOptions(**{"epochs": 3, "batch_size": 16, "patience": None, **choices})


class Watched:
    """Inputs that call a function when they are read: `seen(call, rows)` may raise, or return a factor."""

    def __init__(self, inputs, seen):
        self.inputs, self.seen, self.calls = inputs, seen, 0
        self.shape = inputs.shape

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, rows):
        self.calls += 1
        factor = self.seen(self.calls, rows)
        return self.inputs[rows] * np.float32(1 if factor is None else factor)


@pytest.fixture
def from_disk(monkeypatch):
    """Inputs are read a batch at a time, as large ones are."""
    monkeypatch.setattr(reading, "IN_MEMORY", 0)


def test_one_step_of_gradient_descent_is_the_closed_form(device):
    examples = blobs()
    module = linear().to(device)
    history = loop.train(module, examples, None, options(epochs=1, batch_size=60, optimizer="sgd", learning_rate=0.1))
    error = 1 / 3 - np.eye(3)[examples.labels]  # softmax of zeros, less the truth: (n, classes)
    np.testing.assert_allclose(module.weight.detach().cpu(), -0.1 * error.T @ examples.inputs / 60, atol=1e-6)
    np.testing.assert_allclose(module.bias.detach().cpu(), -0.1 * error.mean(0), atol=1e-6)
    assert history.rows[0].loss == pytest.approx(np.log(3), rel=1e-6)
    assert history.rows[0].accuracy == pytest.approx(1 / 3)  # zeros name the first class


def test_two_epochs_are_those_of_a_loop_written_by_hand():
    examples, module, twin = blobs(), network()[:1], network()[:1]
    loop.train(module, examples, blobs(seed=1), options(epochs=2, optimizer="adam", learning_rate=0.01))
    adam = torch.optim.Adam(twin.parameters(), lr=0.01)
    for number in (1, 2):
        order = generator(0, "shuffle", number).permutation(60)
        for start in (0, 16, 32, 48):
            rows = order[start : start + 16]
            adam.zero_grad()
            loss = nn.CrossEntropyLoss()(twin(torch.from_numpy(examples.inputs[rows])), torch.from_numpy(rows % 3))
            loss.backward()
            adam.step()
    torch.testing.assert_close(dict(module.state_dict()), dict(twin.state_dict()))


def test_all_rows_in_one_step_give_the_full_gradient():
    examples, module, twin = blobs(), linear(), linear()
    history = loop.train(module, examples, None, options(batch_size="all", epochs=20, optimizer="sgd"))
    sgd = torch.optim.SGD(twin.parameters(), lr=1e-3, momentum=0.9)
    for row in history.rows:
        sgd.zero_grad()
        loss = nn.CrossEntropyLoss()(twin(torch.from_numpy(examples.inputs)), torch.from_numpy(examples.labels))
        loss.backward()
        sgd.step()
        assert row.loss == pytest.approx(loss.item(), rel=1e-6)
    np.testing.assert_allclose(module.weight.detach(), twin.weight.detach(), atol=1e-6)


def test_inputs_read_from_the_disk_train_as_those_in_memory_do(monkeypatch):
    def trained():
        module, (views, held) = network(), ((blobs(seed=2).inputs,), blobs(seed=1))
        loop.train(module, Examples(blobs().inputs, blobs().labels, views=views), held, options())
        return hash_tensors(module.state_dict())

    in_memory = trained()
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    assert trained() == in_memory


def test_an_epoch_trains_on_each_row_or_one_of_its_views_and_validation_has_no_views():
    inputs = np.arange(40, dtype=np.float32)[:, None]
    train = Examples(inputs, np.arange(40) % 3, views=(inputs + 100, inputs + 200))
    seen = []
    module = nn.Sequential(nn.Identity(), linear(1))
    module[0].register_forward_hook(lambda part, inputs, result: seen.append((part.training, result[:, 0].tolist())))
    loop.train(module, train, Examples(inputs, train.labels), options(batch_size=40))
    epochs = [values for training, values in seen if training]
    assert [sorted(value % 100 for value in epoch) for epoch in epochs] == [list(range(40))] * 3
    assert all({value // 100 for value in epoch} == {0, 1, 2} for epoch in epochs)
    assert len({tuple(sorted(epoch)) for epoch in epochs}) == 3
    assert [values for training, values in seen if not training] == [inputs[:, 0].tolist()] * 3


def test_fresh_inputs_are_asked_for_by_the_number_of_the_epoch():
    seen = []
    examples = blobs(8)
    train = Examples(examples.inputs, examples.labels, fresh=lambda number: np.full((8, 4), number, np.float32))
    module = nn.Sequential(nn.Identity(), linear())
    module[0].register_forward_hook(lambda part, inputs, result: seen.append(result.unique().tolist()))
    loop.train(module, train, None, options())
    assert seen == [[1], [2], [3]]


def test_products_in_bfloat16_train_nearly_as_those_in_float32_do_and_the_weights_stay_float32():
    def trained(bfloat16):
        module = network()
        return module, loop.train(module, blobs(300), blobs(seed=1), options(epochs=10), bfloat16=bfloat16)

    (module, history), (_, expected) = trained(True), trained(False)
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float32}
    for row, near in zip(history.rows, expected.rows, strict=True):
        assert row.loss == pytest.approx(near.loss, rel=0.02)
    assert [row.loss for row in history.rows] != [row.loss for row in expected.rows]


@pytest.mark.usefixtures("from_disk")
def test_every_epoch_sees_every_row_once_in_another_order():
    seen = []
    examples = blobs(50)
    watched = Watched(examples.inputs, lambda _, rows: seen.extend(rows.tolist()))
    loop.train(linear(), Examples(watched, examples.labels), None, options(epochs=3))
    epochs = [seen[start : start + 50] for start in (0, 50, 100)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.usefixtures("from_disk")
def test_no_more_than_a_batch_is_read_at_once():
    sizes = []
    examples = blobs(600)
    watched = Watched(examples.inputs, lambda _, rows: sizes.append(len(rows)))
    part = Examples(watched, examples.labels)
    loop.train(linear(), part, part, options(batch_size=32))
    assert max(sizes) <= 257


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(device):
    def trained(seed):
        module = network().to(device)
        loop.train(module, blobs(), blobs(seed=1), options(seed=seed))
        return hash_tensors(module.cpu().state_dict())

    assert trained(0) == trained(0) != trained(1)


def test_every_epoch_drops_other_values_and_a_second_run_the_same_ones():
    def dropped():
        masks = []
        module = nn.Sequential(nn.Dropout(0.5), linear())
        module[0].register_forward_hook(lambda _, inputs, result: masks.append((result == 0).numpy().tobytes()))
        loop.train(module, blobs(), None, options(epochs=3, batch_size=60))
        return masks

    assert len(set(dropped())) == 3
    assert dropped() == dropped()


def test_training_on_a_device_is_nearly_that_on_the_cpu_and_leaves_the_module_there(device):
    choices = options(epochs=5, learning_rate=0.01)
    module, twin = network().to(device), network()
    module[3].p = twin[3].p = 0.0  # what is dropped differs
    history = loop.train(module, blobs(), blobs(seed=1), choices)
    expected = loop.train(twin, blobs(), blobs(seed=1), choices)
    for row, near in zip(history.rows, expected.rows, strict=True):
        assert row.loss == pytest.approx(near.loss, rel=1e-3)
    assert {tensor.device.type for tensor in module.state_dict().values()} == {device}


def test_the_random_state_of_the_caller_is_left_alone(device):
    states = [torch.get_rng_state] + [torch.cuda.get_rng_state] * (device == "cuda")
    before = [state() for state in states]
    loop.train(network().to(device), blobs(), None, options())
    for state, known in zip(states, before, strict=True):
        assert torch.equal(state(), known)


def test_training_learns_and_validation_is_measured_in_eval_mode():
    module = network()
    held = blobs(seed=1)
    history = loop.train(module, blobs(300), held, options(epochs=20, learning_rate=0.01))
    best = history.part("validation")[history.best_epoch - 1]
    outputs = module(torch.from_numpy(held.inputs)).detach().double().numpy()
    log_probabilities = scipy.special.log_softmax(outputs, axis=1)
    assert not module.training
    assert best.loss == pytest.approx(-log_probabilities[np.arange(60), held.labels].mean(), rel=1e-6)
    assert best.accuracy == np.mean(outputs.argmax(1) == held.labels) > 0.9
    assert best.loss_error == pytest.approx(scipy.stats.sem(-log_probabilities[np.arange(60), held.labels]), rel=1e-5)
    assert [(row.part, row.images) for row in history.rows[:2]] == [("train", 300), ("validation", 60)]


def test_early_stopping_restores_the_weights_of_the_best_epoch():
    train = blobs()
    contrary = Examples(train.inputs, (train.labels + 1) % 3)  # the better on train, the worse here
    module, once = linear(), linear()
    history = loop.train(module, train, contrary, options(epochs=50, patience=4))
    loop.train(once, train, contrary, options(epochs=1))
    assert (history.best_epoch, history.epochs) == (1, 5)
    assert hash_tensors(module.state_dict()) == hash_tensors(once.state_dict())


def test_a_single_last_row_does_not_stop_batch_normalisation():
    history = loop.train(network(), blobs(33), None, options(batch_size=16, epochs=1))
    assert history.epochs == 1


def test_frozen_norms_keep_their_statistics():
    module, learning = network(), network()
    before = module[1].running_mean.clone()
    loop.train(module, blobs(), None, options(), frozen_norms=[module[1]])
    loop.train(learning, blobs(), None, options())
    assert torch.equal(module[1].running_mean, before)
    assert not torch.equal(learning[1].running_mean, before)


def test_a_frozen_parameter_does_not_move():
    module = network()
    module[0].requires_grad_(False)
    before, last = module[0].weight.clone(), module[4].weight.clone()
    loop.train(module, blobs(), None, options())
    assert torch.equal(module[0].weight, before)
    assert not torch.equal(module[4].weight, last)


def groups(module):
    """The last layer at the full rate, the first two at a tenth of it and from the third epoch on."""
    lower = [*module[0].parameters(), *module[1].parameters()]
    return [Group(list(module[4].parameters())), Group(lower, 0.1, 3)]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_groups_are_trained_as_by_pytorch_each_at_its_scale_of_the_rate(name):
    examples, (module, twin) = blobs(), ([network()[0], linear(16)] for _ in range(2))
    choices = options(epochs=4, batch_size=60, optimizer=name, warm_up=1, learning_rate=0.1, schedule="step",
                      schedule_options={"every": 2, "factor": 0.5})  # fmt: skip
    parameter_groups = [Group(list(module[1].parameters())), Group(list(module[0].parameters()), 0.1)]
    loop.train(nn.Sequential(*module), examples, None, choices, groups=parameter_groups)
    kind = {"sgd": lambda groups: torch.optim.SGD(groups, momentum=0.9), "adamw": torch.optim.AdamW}[name]
    optimizer = kind([{"params": part.parameters()} for part in reversed(twin)])
    for rate in (0.05, 0.1, 0.1, 0.05):
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate, rate / 10
        optimizer.zero_grad()
        outputs = nn.Sequential(*twin)(torch.from_numpy(examples.inputs))
        nn.CrossEntropyLoss()(outputs, torch.from_numpy(examples.labels)).backward()
        optimizer.step()
    for part, other in zip(module, twin, strict=True):
        torch.testing.assert_close(dict(part.state_dict()), dict(other.state_dict()))


def test_a_group_is_frozen_until_its_epoch_with_its_batchnorm_and_trained_from_then_on():
    module, seen = network(), []

    def note(*_):
        moved = [module[0].weight, module[1].running_mean, module[1].weight, module[4].weight]
        seen.append([hash_tensors({"tensor": tensor}) for tensor in moved])

    module[4].register_forward_pre_hook(note)
    loop.train(module, blobs(), None, options(epochs=4, batch_size=60, optimizer="adamw"), groups=groups(module))
    first, second, third, fourth = seen  # before the step of each epoch; the third has the statistics of its own batch
    assert first[:3] == second[:3] == [third[0], second[1], third[2]]
    assert third[1] != second[1]
    assert first[3] != second[3] != third[3] != fourth[3]
    assert all(before != after for before, after in zip(third, fourth, strict=True))


def test_what_is_frozen_has_no_gradient_and_no_weight_decay():
    module, gradients = network(), []
    parameter_groups = [Group(list(module[4].parameters())), Group(list(module[0].parameters()), from_epoch=9)]
    module[4].register_forward_hook(lambda *_: gradients.append(module[0].weight.grad))
    before = module[0].weight.clone()
    choices = options(optimizer="adamw", optimizer_options={"weight_decay": 0.5})
    loop.train(module, blobs(), None, choices, groups=parameter_groups)
    assert torch.equal(module[0].weight, before)
    assert all(gradient is None for gradient in gradients)


def test_the_rate_of_every_step_is_the_schedules_and_the_history_has_that_of_the_last_step():
    choices = options(
        epochs=3, schedule="cosine", schedule_options={"floor": 0.01}, learning_rate=0.11, optimizer="sgd"
    )
    module = linear()
    history = loop.train(module, blobs(64), None, choices)  # four steps an epoch
    expected = [0.01 + 0.1 * (1 + np.cos(np.pi * step / 12)) / 2 for step in (3, 7, 11)]
    assert [row.learning_rate for row in history.rows] == pytest.approx(expected)


def test_the_rate_falls_when_the_validation_loss_does_not():
    train = blobs()
    contrary = Examples(train.inputs, (train.labels + 1) % 3)  # worse from epoch to epoch
    plateau = {"schedule": "plateau", "schedule_options": {"patience": 2, "factor": 0.5}, "learning_rate": 0.1}
    history = loop.train(linear(), train, contrary, options(epochs=7, **plateau))
    rates = [row.learning_rate for row in history.part("validation")]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025])


def test_a_later_phase_counts_epochs_on_and_chooses_among_its_own():
    head = History([Measured(5, "train", 0.0, 1.0, 0.1, 1.0), Measured(5, "validation", 0.0, 1.0, 0.1, 1.0)])
    choices = options(epochs=2, schedule="step", schedule_options={"every": 1}, learning_rate=0.1)
    history = loop.train(network(), blobs(), blobs(seed=1), choices, start=head, phase="tail")
    assert history.rows[:2] == head.rows
    assert [(row.epoch, row.part, row.phase) for row in history.rows[2:]] == [
        (6, "train", "tail"),
        (6, "validation", "tail"),
        (7, "train", "tail"),
        (7, "validation", "tail"),
    ]
    assert [row.learning_rate for row in history.rows[2::2]] == pytest.approx([0.1, 0.01])
    assert history.best_epoch in (6, 7)
    assert len(head.rows) == 2


def test_divergence_of_the_tail_names_the_flag_of_its_rate():
    examples = blobs()
    large = Examples(examples.inputs * np.float32(1e30), examples.labels)
    with pytest.raises(Diverged, match=r"--tail-learning-rate 1e\+06.*Try --tail-learning-rate 100000"):
        loop.train(linear(), large, None, options(optimizer="sgd", learning_rate=1e6), phase="tail")


def test_one_output_trained_by_sigmoid_converges_to_scikit_learns_regression():
    examples, fresh = blobs(90, classes=2), blobs(90, classes=2, seed=1)
    noisy = Examples(examples.inputs, np.where(np.arange(90) % 9 == 0, 1 - examples.labels, examples.labels))
    module = linear(classes=1)
    choices = options(loss="sigmoid", epochs=2000, batch_size="all", learning_rate=0.05)
    history = loop.train(module, noisy, None, choices)
    model = LogisticRegression(C=1e8, tol=1e-8, max_iter=10_000).fit(noisy.inputs, noisy.labels)
    probabilities = loop.probabilities(module, fresh.inputs, Loss("sigmoid"))
    np.testing.assert_allclose(probabilities, model.predict_proba(fresh.inputs), atol=5e-3)
    assert history.rows[-1].loss == pytest.approx(log_loss(noisy.labels, model.predict_proba(noisy.inputs)), abs=1e-4)
    assert history.rows[-1].accuracy == model.score(noisy.inputs, noisy.labels)


def test_several_labels_converge_to_a_regression_of_scikit_learn_each():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 4)).astype(np.float32)
    labels = (inputs @ rng.normal(size=(4, 3)) + rng.normal(size=(200, 3)) > 0).astype(np.float32)
    module = linear()
    loop.train(module, Examples(inputs, labels), None, options(epochs=1500, batch_size="all", learning_rate=0.05))
    models = [LogisticRegression(C=1e8, tol=1e-8).fit(inputs, labels[:, label]) for label in range(3)]
    expected = np.stack([model.predict_proba(inputs)[:, 1] for model in models], axis=1)
    loss = Loss("sigmoid", multilabel=True)
    np.testing.assert_allclose(loop.probabilities(module, inputs, loss), expected, atol=5e-3)
    assert loop.evaluate(module, Examples(inputs, labels), loss)[1] == np.mean(((expected > 0.5) == labels).all(axis=1))


def rare(n=120, seed=0):
    """Three classes that overlap, of 1/2, 1/3 and 1/6 of the rows."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1, 2], [n // 2, n // 3, n // 6])
    return Examples((np.eye(3, 4)[labels] + rng.normal(size=(n, 4))).astype(np.float32), labels)


def test_weighted_classes_converge_to_scikit_learns_balanced_regression():
    train, held, module = rare(), rare(seed=1), linear()
    choices = options(balance="weights", epochs=1500, batch_size="all", learning_rate=0.05)
    history = loop.train(module, train, held, choices)
    model = LogisticRegression(C=1e8, tol=1e-8, class_weight="balanced").fit(train.inputs, train.labels)
    expected = model.predict_proba(train.inputs)
    last = history.part("train")[-1]
    sample = compute_sample_weight("balanced", train.labels)
    assert last.loss == pytest.approx(log_loss(train.labels, expected, sample_weight=sample), abs=1e-4)
    best = history.part("validation")[history.best_epoch - 1]
    weighted = log_loss(held.labels, loop.probabilities(module, held.inputs), sample_weight=sample)  # as many of each
    assert best.loss == pytest.approx(weighted, rel=1e-5)


def test_oversampling_has_the_effect_of_weights():
    held = rare(3000, seed=1)
    recalls = []
    for balance in ("none", "weights", "oversample"):
        module = linear()
        loop.train(module, rare(1200), None, options(balance=balance, epochs=60, batch_size=100, learning_rate=0.01))
        named = loop.logits(module, held.inputs).argmax(1)
        recalls.append([np.mean(named[held.labels == label] == label) for label in range(3)])
    plain, weights, oversample = np.array(recalls)
    assert oversample == pytest.approx(weights, abs=0.04)
    assert weights[2] > plain[2] + 0.15


def test_an_oversampled_epoch_has_every_class_equally_often_also_in_one_step():
    for size in (16, "all"):
        seen = []
        module = linear()
        module.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].numpy().copy()))
        train = rare()
        tagged = Examples(np.c_[train.inputs[:, :3], train.labels].astype(np.float32), train.labels)
        loop.train(module, tagged, None, options(balance="oversample", epochs=1, batch_size=size))
        assert np.bincount(np.concatenate(seen)[:, 3].astype(int)).tolist() == [40, 40, 40]


def test_the_validation_loss_of_an_oversampled_run_weights_the_classes():
    train, held, module = rare(), rare(seed=1), linear()
    history = loop.train(module, train, held, options(balance="oversample", epochs=1))
    sample = compute_sample_weight("balanced", held.labels)
    expected = log_loss(held.labels, loop.probabilities(module, held.inputs), sample_weight=sample)
    assert history.part("validation")[0].loss == pytest.approx(expected, rel=1e-5)


def test_the_epoch_of_the_highest_accuracy_is_kept_if_accuracy_is_watched():
    held = blobs(seed=1)
    kept = {}
    for watch in ("loss", "accuracy"):
        module = network()
        history = loop.train(module, blobs(), held, options(watch=watch, epochs=12, learning_rate=0.02))
        values = [getattr(row, watch) for row in history.part("validation")]
        best = max(values) if watch == "accuracy" else min(values)
        assert history.best_epoch == values.index(best) + 1
        kept[watch] = loop.evaluate(module, held)[watch == "accuracy"]
        assert kept[watch] == pytest.approx(best)


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ({"epochs": 2}, "all 2 epochs are done"),
        ({"epochs": 90, "target_accuracy": 0.8}, "the validation accuracy reached 0.8"),
        ({"epochs": 90, "minutes": 1e-9}, "1e-09 minutes are over"),
        ({"epochs": 90, "patience": 1, "minimum_gain": 9.0}, "1 epochs without a lower loss on the validation part"),
    ],
)
def test_the_log_has_why_training_stopped(caplog, choices, says):
    with caplog.at_level(logging.INFO, "regraft"):
        history = loop.train(network(), blobs(), blobs(seed=1), options(**choices))
    assert f"Stopped after epoch {history.epochs}: {says}" in caplog.text
    assert history.epochs < 90


@pytest.mark.parametrize("validation", [None, blobs(seed=1)])
def test_a_learning_rate_too_large_is_called_so_and_the_weights_before_are_restored(validation):
    examples, module = blobs(), linear()
    large = Examples(examples.inputs * np.float32(1e30), examples.labels)
    says = r"epoch 1, .*--learning-rate 1e\+06.*before training.*Try --learning-rate 100000"
    with pytest.raises(Diverged, match=says):
        loop.train(module, large, validation, options(optimizer="sgd", learning_rate=1e6))
    assert not module.weight.any()


def test_a_weight_that_is_nan_is_detected_at_the_end_of_the_epoch():
    examples, module = blobs(), linear()
    large = Examples(examples.inputs * np.float32(1e35), examples.labels)
    with pytest.raises(Diverged, match="weight"):  # the one step's own loss is still log 3
        loop.train(module, large, None, options(optimizer="sgd", learning_rate=1e6, batch_size=60, epochs=1))
    assert not module.weight.any()


@pytest.mark.usefixtures("from_disk")
def test_divergence_later_keeps_the_weights_of_the_best_epoch_before():
    examples, module, twice = blobs(), linear(), linear()
    watched = Watched(examples.inputs, lambda call, _: 1e30 if call > 8 else 1)  # four batches an epoch
    with pytest.raises(Diverged, match=r"epoch 3.*those of epoch 2 are kept"):
        loop.train(module, Examples(watched, examples.labels), None, options(epochs=9, optimizer="sgd"))
    loop.train(twice, examples, None, options(epochs=2, optimizer="sgd"))
    assert hash_tensors(module.state_dict()) == hash_tensors(twice.state_dict())


def test_inputs_that_are_nan_are_not_blamed_on_the_learning_rate():
    with pytest.raises(DataError, match="NaN"):
        loop.train(linear(), Examples(np.full((6, 4), np.nan), np.arange(6) % 3), None, options())


@pytest.mark.usefixtures("from_disk")
def test_an_interrupt_leaves_the_best_weights_in_the_module():
    def interrupt(call, _):
        if call > 6:
            raise KeyboardInterrupt

    examples, module, once = blobs(), linear(), linear()
    with pytest.raises(KeyboardInterrupt):
        loop.train(module, Examples(Watched(examples.inputs, interrupt), examples.labels), None, options())
    loop.train(once, examples, None, options(epochs=1))
    assert hash_tensors(module.state_dict()) == hash_tensors(once.state_dict())


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_probabilities_are_the_softmax_of_the_logits_whatever_the_batches(precision):
    module = network().to(precision)
    inputs = blobs(513).inputs
    probabilities = loop.probabilities(module, inputs)
    expected = module.eval()(torch.from_numpy(inputs).to(precision)).detach().double().numpy()
    np.testing.assert_allclose(probabilities, scipy.special.softmax(expected, axis=1), rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
    assert probabilities.shape == (513, 3)
    assert probabilities.dtype == np.float64
