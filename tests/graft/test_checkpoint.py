import logging
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from torch import nn

from regraft.core.errors import StoreError
from regraft.graft import loop, optimizers
from regraft.graft.checkpoint import hash_tensors
from regraft.graft.examples import Examples
from regraft.graft.options import FitOptions

# What both processes run: six epochs of three batches, with all that draws, and state in module and optimizer.
RUN = """
import os, signal
import numpy as np
from torch import nn
from regraft.graft import loop
from regraft.graft.examples import Examples
from regraft.graft.options import FitOptions

class Inputs:
    def __init__(self, inputs, ends_at):
        self.inputs, self.ends_at, self.shape, self.calls = inputs, ends_at, inputs.shape, 0
    def __len__(self):
        return len(self.inputs)
    def __getitem__(self, rows):
        self.calls += 1
        if self.calls == self.ends_at:
            end()
        return self.inputs[rows]

def run(checkpoint, ends_at=None, name="adam", **choices):
    inputs = np.random.default_rng(0).normal(size=(48, 5)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64) + (inputs[:, 1] > 0)
    with loop.seeded(0, "module"):
        module = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))
    train = Examples(Inputs(inputs[:36], ends_at), labels[:36])
    options = FitOptions(**{"epochs": 6, "batch_size": 12, "optimizer": name, "learning_rate": 0.01, **choices})
    history = loop.train(module, train, Examples(inputs[36:], labels[36:]), options, checkpoint=checkpoint)
    return module, history
"""


class Ended(Exception):
    """The process is gone, as far as the run can tell."""


def end():
    raise Ended


namespace = {"end": end}
exec(RUN, namespace)
run = namespace["run"]


def outcome(module, history):
    rows = [(row.epoch, row.part, row.loss, row.accuracy) for row in history.rows]
    return hash_tensors(module.state_dict()), rows


@pytest.mark.parametrize("name", optimizers.NAMES)
@pytest.mark.parametrize("ends_at", [3, 9, 17], ids=["in epoch 1", "in epoch 3", "in epoch 6"])
def test_a_run_that_was_ended_and_resumed_is_the_run_that_was_not(tmp_path, name, ends_at):
    path = tmp_path / "checkpoint"
    with pytest.raises(Ended):
        run(path, ends_at, name)
    assert path.exists() is (ends_at > 4)  # reading 1 is the run's identity, then three batches an epoch
    assert outcome(*run(path, name=name)) == outcome(*run(None, name=name))


def test_a_run_that_was_killed_and_resumed_is_the_run_that_was_not(tmp_path):
    path = tmp_path / "checkpoint"
    kill = "def end():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    call = f"import pathlib; run(pathlib.Path({str(path)!r}), 12)"
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(RUN) + kill + call], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert path.exists()
    resumed = run(path)
    assert outcome(*resumed) == outcome(*run(None))


def test_what_is_done_is_not_done_again(tmp_path, caplog):
    path = tmp_path / "checkpoint"
    first = outcome(*run(path))
    with caplog.at_level(logging.INFO, "regraft"):
        again = outcome(*run(path, ends_at=2))  # one reading for the identity, and no batch
    assert again == first
    assert "Going on after epoch 6" in caplog.text


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"batch_size": 9}, {"learning_rate": 0.02}, {"name": "sgd"}, {"epochs": 5}]
)
def test_a_checkpoint_of_another_run_is_left_aside(tmp_path, caplog, other):
    path = tmp_path / "checkpoint"
    with pytest.raises(Ended):
        run(path, 12)
    with caplog.at_level(logging.INFO, "regraft"):
        resumed = run(path, **other)
    assert "another run" in caplog.text
    assert outcome(*resumed) == outcome(*run(None, **other))


@pytest.mark.parametrize("change", ["inputs", "labels", "weights", "validation"])
def test_other_data_or_weights_are_another_run(tmp_path, caplog, change):
    rng = np.random.default_rng(0)
    given = {"inputs": rng.normal(size=(8, 3)), "labels": np.arange(8) % 2, "weights": 0.0, "validation": 1.0}

    def trained(inputs, labels, weights, validation):
        module = nn.Linear(3, 2)
        for parameter in module.parameters():
            nn.init.constant_(parameter, weights)
        held = Examples(np.full((2, 3), validation), np.array([0, 1]))
        loop.train(module, Examples(inputs, labels), held, FitOptions(epochs=1), checkpoint=tmp_path / "checkpoint")

    trained(**given)
    with caplog.at_level(logging.INFO, "regraft"):
        trained(**{**given, change: given[change][::-1] if change in ("inputs", "labels") else 0.5})
    assert "another run" in caplog.text


def cut_short(content):
    return content[: len(content) // 2]


def changed(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize("damage", [cut_short, changed, lambda _: b"", lambda _: b"\x08" + b"\0" * 7 + b'{"a":{}}'])
def test_a_damaged_checkpoint_is_said_and_left_aside(tmp_path, caplog, damage):
    path = tmp_path / "checkpoint"
    with pytest.raises(Ended):
        run(path, 12)
    path.write_bytes(damage(path.read_bytes()))
    assert outcome(*run(path)) == outcome(*run(None))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "damaged" in caplog.text


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_disk(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError):
        run(tmp_path / "file" / "checkpoint")
