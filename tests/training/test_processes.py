"""Several processes that train together do what one does: the same gradients, the same epochs, the same bits."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from tests.training import run_together

from regraft.core.errors import UsageError
from regraft.training import loop, processes
from regraft.training.checkpoint import Checkpoint
from regraft.training.losses import Loss
from regraft.training.options import FitOptions


def start(size, *words):
    """Start Python with these words in so many processes, as torchrun does: they can reach each other by loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    address = {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {**os.environ, **address, "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    environments = [{**environment, "RANK": str(rank)} for rank in range(size)]
    errors = {"stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([sys.executable, *words], env=each, **errors) for each in environments]


def run(folder, size):
    """Run `run_together` in so many processes; return what each has written."""
    folder.mkdir()
    started = start(size, "-m", "tests.training.run_together", str(folder))
    errors = [process.communicate(timeout=200)[1] for process in started]
    assert [process.returncode for process in started] == [0] * size, errors
    return [np.load(folder / f"{rank}.npz") for rank in range(size)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return run(tmp_path_factory.mktemp("together") / "two", 2)


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(run_together.streamed_rows, "CHUNK", 50)
    return run_together


@pytest.mark.slow
@pytest.mark.parametrize("name", run_together.BATCHES)
def test_the_gradient_of_a_step_is_that_of_one_process(two, alone, name):
    expected = alone.gradients(alone.BATCHES[name])
    for results in two:
        np.testing.assert_allclose(results[name], expected, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_so_it_is_with_weighted_classes_and_smoothed_labels(two, alone):
    expected = alone.gradients(7, balance="weights", label_smoothing=0.1)
    np.testing.assert_allclose(two[0]["weighted"], expected, rtol=0, atol=1e-12)
    assert np.array_equal(two[0]["weighted"], two[1]["weighted"])


@pytest.mark.slow
def test_the_epochs_are_those_of_one_process(two, alone):
    losses = [row.loss for row in alone.fit_mlp(stop=2).history.rows]
    np.testing.assert_allclose(two[0]["losses"], losses, rtol=1e-5)
    assert np.array_equal(two[0]["losses"], two[1]["losses"])


@pytest.mark.slow
def test_one_process_goes_on_where_two_have_stopped(two, alone, tmp_path_factory):
    checkpoint = Checkpoint(tmp_path_factory.getbasetemp() / "together0" / "two" / "checkpoint", "run")
    resumed, whole = alone.fit_mlp(checkpoint), alone.fit_mlp()
    assert [row.epoch for row in resumed.history.rows] == [row.epoch for row in whole.history.rows]
    for name, weights in whole.weights.items():
        np.testing.assert_allclose(resumed.weights[name], weights, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_linear_head_by_two_processes_has_the_bits_of_one(two, alone):
    head = alone.linear.fit(alone.examples(4, 1030), None, 3, alone.linear.Options(), FitOptions(memory=0))
    assert {str(results["linear"]) for results in two} == {alone.digest(head.weights)}


@pytest.mark.slow
def test_a_process_whose_peer_ends_says_so():
    peer = "import os; from regraft.training import processes as p; t = p.join(); t.agreed(1); t.rank and os._exit(9); "
    started = start(2, "-c", peer + "[t.agreed(n) for n in range(9)]; [*t.in_order(str, 'abc')]")
    errors = [process.communicate(timeout=100)[1] for process in started]
    assert [process.returncode for process in started] == [1, 9]
    assert "RegraftError: Another process of torchrun has ended" in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 8])
def test_any_number_of_processes_gives_the_same(two, tmp_path, size):
    for results in run(tmp_path / "more", size):
        assert str(results["linear"]) == str(two[0]["linear"])
        for name in run_together.BATCHES:
            np.testing.assert_allclose(results[name], two[0][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 7])
def test_what_the_parts_of_a_batch_add_to_its_mean_is_the_mean(rows):
    batch, module = run_together.examples(0, rows, (3, 5, 5), kind=np.float64), run_together.network()
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)

    def part(together):
        """Return the loss of a process's rows and its gradient, dropout included."""
        module.train()[1].eval()
        module.zero_grad()
        own = together.own(np.arange(rows))
        with loop.seeded(0, "step"), together.dropout(module, rows):
            loss = loop.part_of_mean(Loss(), module(inputs[own]), labels[own], rows)
        loss.backward()
        return np.append(module[5].weight.grad.ravel().numpy(), loss.item())

    whole = part(processes.ALONE)
    np.testing.assert_allclose(sum(part(processes.Processes(3, rank)) for rank in range(3)), whole, atol=1e-12)


def test_batchnorm_that_would_be_trained_on_parts_of_a_batch_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "current", lambda: processes.Processes(2, 0))
    with pytest.raises(UsageError, match="--batchnorm keep"):
        loop.begin(run_together.network(), run_together.examples(0, 7), FitOptions())


def test_the_rows_of_a_batch_are_divided_without_rest():
    for size in (1, 2, 3, 8):
        parts = [processes.Processes(size, rank).own(np.arange(7)) for rank in range(size)]
        assert np.array_equal(np.concatenate(parts), np.arange(7))


def test_who_was_not_started_by_torchrun_trains_alone(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert processes.join() is processes.ALONE
