import logging
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from torch import nn

from regraft.core.errors import StoreError
from regraft.network.tensors import hash_tensors
from regraft.training import checkpoint, finetune, loop, optimizers
from regraft.training.checkpoint import Checkpoint
from regraft.training.examples import Examples
from regraft.training.history import History, Measured
from regraft.training.options import FitOptions

# What both processes run: six epochs of three batches, with all that draws, and state in module and optimizer.
RUN = """
import os, signal
import numpy as np
from torch import nn
from regraft.training import loop
from regraft.training.checkpoint import Checkpoint
from regraft.training.examples import Examples
from regraft.training.optimizers import Group
from regraft.training.options import FitOptions

class Ends(nn.Module):
    # lets its inputs through, until a step of training is the one to end at

    def __init__(self, at):
        super().__init__()
        self.at, self.steps = at, 0

    def forward(self, inputs):
        self.steps += self.training
        if self.steps == self.at:
            end()
        return inputs

def run(path, ends_at=None, name="adam", digest="of the run", views=(), scale=1.0, from_epoch=1, start=None,
        phase="head", **choices):
    inputs = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64) + (inputs[:, 1] > 0)
    with loop.seeded(0, "module"):
        module = nn.Sequential(
            Ends(ends_at), nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
        )
    train = Examples(inputs[:36], labels[:36], views=tuple(inputs[:36] + view for view in views))
    options = FitOptions(**{"epochs": 6, "batch_size": 12, "optimizer": name, "learning_rate": 0.01, **choices})
    top, rest = list(module[5].parameters()), [*module[1].parameters(), *module[2].parameters()]
    history = loop.train(
        module, train, Examples(inputs[36:], labels[36:]), options, checkpoint=path and Checkpoint(path, digest),
        groups=[Group(top), Group(rest, scale, from_epoch)], start=start, phase=phase,
    )
    return module, history
"""


class Ended(Exception):
    """Ends the run as a killed process would."""


def end():
    raise Ended


namespace = {"end": end}
exec(RUN, namespace)
run = namespace["run"]


def outcome(module, history):
    rows = [(row.epoch, row.part, row.loss, row.accuracy) for row in history.rows]
    return hash_tensors(module.state_dict()), rows


@pytest.mark.parametrize("name", optimizers.NAMES)
@pytest.mark.parametrize("ends_at", [2, 8, 16], ids=["in epoch 1", "in epoch 3", "in epoch 6"])
def test_a_run_that_was_ended_and_resumed_is_the_run_that_was_not(tmp_path, name, ends_at):
    path = tmp_path / "checkpoint"
    with pytest.raises(Ended):
        run(path, ends_at, name)
    assert path.exists() is (ends_at > 3)  # three steps an epoch
    assert outcome(*run(path, name=name)) == outcome(*run(None, name=name))


def before(seconds=1.0):
    return History([Measured(4, "train", 0.1, 1.0, 0.1, seconds), Measured(4, "validation", 0.1, 1.0, 0.1, seconds)])


PLATEAU = {"schedule": "plateau", "schedule_options": {"patience": 1}, "learning_rate": 0.3, "patience": None}


@pytest.mark.parametrize(
    "choices",
    [
        {"views": (0.1, -0.1)},
        {"batch_size": "all"},
        {"scale": 0.1, "from_epoch": 2},
        {"scale": 0.1, "from_epoch": 5},
        {"schedule": "onecycle", "warm_up": 5},
        PLATEAU,
        {"balance": "oversample"},
        {"loss": "softmax", "label_smoothing": 0.1, "balance": "weights"},
        {"watch": "accuracy", "patience": 2},
        {"optimizer_options": {"amsgrad": True}},
        {"name": "rmsprop", "optimizer_options": {"centered": True, "momentum": 0.5}},
        {"start": before(), "phase": "tail", "from_epoch": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("ends_at", [4, 10])
def test_a_resumed_run_is_the_same_whatever_was_chosen(tmp_path, choices, ends_at):
    path = tmp_path / "checkpoint"
    with pytest.raises(Ended):
        run(path, ends_at if choices.get("batch_size") != "all" else ends_at // 2, **choices)
    if "start" in choices:  # the phase before was gone through again, in another time
        choices = {**choices, "start": before(seconds=9.0)}
    assert outcome(*run(path, **choices)) == outcome(*run(None, **choices))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_tail_that_was_ended_and_resumed_is_the_one_that_was_not(tmp_path, bfloat16, device):
    """Its weights have another layout in memory than in the file."""
    inputs = np.random.default_rng(0).normal(size=(24, 2, 6, 6)).astype(np.float32)

    def trained(path, ends_at=None):
        with loop.seeded(0, "module"):
            module = nn.Sequential(
                namespace["Ends"](ends_at), nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.Flatten()
            )
        options = FitOptions(tail_epochs=5, batch_size=8)
        return finetune.fit(
            module, (2, 6, 6), Examples(inputs, np.arange(24) % 2), None, 2, options,
            pretrained=False, bfloat16=bfloat16, device=device, checkpoint=path and Checkpoint(path, "of the run"),
        )  # fmt: skip

    with pytest.raises(Ended):
        trained(tmp_path / "checkpoint", 8)
    resumed, whole = trained(tmp_path / "checkpoint"), trained(None)
    assert outcome(resumed.module, resumed.history) == outcome(whole.module, whole.history)


def test_saving_takes_a_small_fraction_of_the_time(tmp_path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])

    def slow(path, run, state):
        saved.append(state)
        now[0] += 1

    monkeypatch.setattr(checkpoint, "save", slow)
    keeper = checkpoint.Keeper(tmp_path / "checkpoint", "run")
    for epoch in range(200):
        now[0] += 1
        keeper.keep(epoch, last=epoch == 199)
    assert saved[0] == 0
    assert saved[-1] == 199
    assert len(saved) <= 0.06 * 200


def test_a_run_that_was_killed_and_resumed_is_the_run_that_was_not(tmp_path):
    path = tmp_path / "checkpoint"
    kill = "def end():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    call = f"import pathlib; run(pathlib.Path({str(path)!r}), 11)"
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(RUN) + kill + call], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists()
    resumed = run(path)
    assert outcome(*resumed) == outcome(*run(None))


def test_epochs_that_are_done_are_not_trained_again(tmp_path, caplog):
    path = tmp_path / "checkpoint"
    first = outcome(*run(path))
    with caplog.at_level(logging.INFO, "regraft"):
        again = outcome(*run(path, ends_at=1))  # and not one step
    assert again == first
    assert "Resumed after epoch 6" in caplog.text


@pytest.mark.parametrize(
    "other",
    [
        {"digest": "of another run", "learning_rate": 0.02},
        {"batch_size": 9},  # other steps, other groups, another start: no caller need tell
        {"scale": 0.5},
        {"from_epoch": 2},
        {"phase": "tail"},
        {"start": History([Measured(4, "train", 0.1, 1.0, 0.1, 1.0)])},
    ],
    ids=str,
)
def test_a_checkpoint_of_another_run_is_left_aside(tmp_path, caplog, other):
    path = tmp_path / "checkpoint"
    with pytest.raises(Ended):
        run(path, 11)
    with caplog.at_level(logging.INFO, "regraft"):
        resumed = run(path, **other)
    assert "another run" in caplog.text
    assert outcome(*resumed) == outcome(*run(None, **other))


@pytest.mark.parametrize("change", [{"weights": 0.5}, {"bfloat16": True}], ids=str)
def test_other_weights_to_begin_with_or_another_precision_are_another_run(tmp_path, caplog, change):
    def train(weights=0.0, bfloat16=False):
        module = nn.Linear(3, 2)
        for parameter in module.parameters():
            nn.init.constant_(parameter, weights)
        examples = Examples(np.random.default_rng(0).normal(size=(8, 3)), np.arange(8) % 2)
        kept = Checkpoint(tmp_path / "checkpoint", "of the run")
        loop.train(module, examples, None, FitOptions(epochs=1), checkpoint=kept, bfloat16=bfloat16)

    train()
    with caplog.at_level(logging.INFO, "regraft"):
        train(**change)
    assert "another run" in caplog.text


def cut_short(content):
    return content[: len(content) // 2]


def changed(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("damage", [cut_short, changed, lambda _: b"", lambda _: b"\x08" + b"\0" * 7 + b'{"a":{}}'])
def test_a_damaged_checkpoint_gives_a_warning_and_is_left_aside(tmp_path, caplog, damage):
    path = tmp_path / "checkpoint"
    with pytest.raises(Ended):
        run(path, 11)
    path.write_bytes(damage(path.read_bytes()))
    assert outcome(*run(path)) == outcome(*run(None))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "damaged" in caplog.text


def test_a_checkpoint_that_cannot_be_written_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError):
        run(tmp_path / "file" / "checkpoint")
