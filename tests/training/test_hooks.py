import logging

import numpy as np
import pytest
from tests.training.maps import above, maps
from torch import nn

from regraft.core.errors import Diverged
from regraft.network.tensors import hash_tensors
from regraft.training import finetune, loop
from regraft.training.checkpoint import Checkpoint
from regraft.training.examples import Examples
from regraft.training.heads import linear, mlp
from regraft.training.hooks import Hooks
from regraft.training.options import FitOptions


class Recorder(Hooks):
    """Writes down what it is called with; `at` is the end of an epoch at which it does `action`."""

    def __init__(self, at=None, action=lambda: None):
        self.calls, self.at, self.action = [], at, action

    def note(self, name, state):
        self.calls.append((name, state.phase, state.epoch))

    def on_train_begin(self, state):
        self.note("train begins", state)

    def on_epoch_begin(self, state):
        self.note("epoch begins", state)

    def on_epoch_end(self, state):
        self.note("epoch ends", state)
        return self.action() if state.epoch == self.at else None

    def on_train_end(self, state):
        self.note("train ends", state)
        self.weights = hash_tensors(state.module.state_dict())


def blobs(seed=0):
    labels = np.arange(60) % 3
    noise = np.random.default_rng(seed).normal(size=(60, 4))
    return Examples((3 * np.eye(3, 4)[labels] + noise).astype(np.float32), labels)


def untrained():
    with loop.seeded(0, "module"):
        return nn.Linear(4, 3)


def train(hooks=None, *, epochs=3, **more):
    module, options = untrained(), FitOptions(epochs=epochs, patience=None, optimizer="sgd")
    history = loop.train(module, blobs(), blobs(1), options, hooks=hooks, **more)
    return module, history


def epochs(first, last, phase="head"):
    return [(name, phase, epoch) for epoch in range(first, last + 1) for name in ("epoch begins", "epoch ends")]


def test_hooks_are_called_around_the_training_and_each_epoch_and_see_the_best_weights_at_the_end():
    hooks = Recorder()
    module, _ = train(hooks)
    assert hooks.calls == [("train begins", "head", 0), *epochs(1, 3), ("train ends", "head", 3)]
    assert hooks.weights == hash_tensors(module.state_dict())


def test_at_the_end_of_an_epoch_a_hook_sees_what_was_measured_of_it():
    class Losses(Hooks):
        seen = ()

        def on_epoch_end(self, state):
            self.seen = (*self.seen, state.history.part("validation")[-1].loss)

    hooks = Losses()
    _, history = train(hooks)
    assert list(hooks.seen) == [row.loss for row in history.part("validation")]


def test_hooks_that_override_nothing_change_nothing():
    outcomes = [train(hooks)[0].state_dict() for hooks in (None, Hooks())]
    assert hash_tensors(outcomes[0]) == hash_tensors(outcomes[1])


def test_a_hook_that_returns_true_ends_the_training_with_that_epoch(caplog):
    hooks = Recorder(at=2, action=lambda: True)
    with caplog.at_level(logging.INFO, "regraft"):
        module, history = train(hooks, epochs=9)
    assert history.epochs == 2
    assert hooks.calls[-1] == ("train ends", "head", 2)
    assert "Stopped after epoch 2: a hook asked for it" in caplog.text
    assert hash_tensors(module.state_dict()) == hash_tensors(train(epochs=2)[0].state_dict())


class Killed(Exception):
    pass


def kill():
    raise Killed


def test_an_error_in_a_hook_ends_the_training_with_the_best_weights_so_far():
    module, options = untrained(), FitOptions(epochs=9, patience=None, optimizer="sgd")
    with pytest.raises(Killed):
        loop.train(module, blobs(), blobs(1), options, hooks=Recorder(at=2, action=kill))
    assert hash_tensors(module.state_dict()) == hash_tensors(train(epochs=2)[0].state_dict())


def test_a_resumed_run_calls_hooks_for_the_epochs_that_it_trains_and_ends_as_the_run_that_was_not_killed(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint", "of the run")
    with pytest.raises(Killed):
        train(Recorder(at=3, action=kill), epochs=5, checkpoint=checkpoint)
    hooks = Recorder()
    module, _ = train(hooks, epochs=5, checkpoint=checkpoint)
    _, phase, done = hooks.calls[0]
    assert 1 <= done <= 2  # the checkpoint is of an epoch before the one that was killed
    assert hooks.calls[1:] == [*epochs(done + 1, 5, phase), ("train ends", "head", 5)]
    assert hash_tensors(module.state_dict()) == hash_tensors(train(epochs=5)[0].state_dict())


def test_a_training_that_diverges_has_no_end_for_a_hook():
    hooks, large = Recorder(), Examples(blobs().inputs * np.float32(1e30), blobs().labels)
    with pytest.raises(Diverged):
        loop.train(untrained(), large, None, FitOptions(learning_rate=1e6, optimizer="sgd"), hooks=hooks)
    assert hooks.calls[-1][0] == "epoch begins"


def test_an_mlp_calls_hooks_and_a_linear_head_which_is_solved_none():
    hooks = Recorder()
    linear.fit(blobs(), blobs(1), 3, linear.Options(), FitOptions(), hooks=hooks)
    assert hooks.calls == []
    mlp.fit(blobs(), blobs(1), 3, mlp.Options(), FitOptions(head="mlp", epochs=2), hooks=hooks)
    assert hooks.calls == [("train begins", "head", 0), *epochs(1, 2), ("train ends", "head", 2)]


def test_fine_tuning_calls_hooks_in_both_phases_and_counts_the_epochs_on():
    hooks = Recorder()
    options = FitOptions(head="mlp", epochs=2, tail_epochs=3, batch_size=8, patience=None)
    finetune.fit(above(), (2, 6, 6), maps(), maps(seed=1), 2, options, hooks=hooks)
    assert hooks.calls == [
        *[("train begins", "head", 0), *epochs(1, 2), ("train ends", "head", 2)],
        *[("train begins", "tail", 2), *epochs(3, 5, "tail"), ("train ends", "tail", 5)],
    ]
