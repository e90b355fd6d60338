"""What the tests of several processes run in each of them, and alone: `python -m tests.training.run_together OUT`."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from regraft.training import loop, processes, streamed_rows
from regraft.training.checkpoint import Checkpoint
from regraft.training.examples import Examples
from regraft.training.heads import linear, mlp
from regraft.training.hooks import Hooks
from regraft.training.options import FitOptions

streamed_rows.CHUNK = 50
BATCHES = {"uneven": 7, "one row": 1, "few": 2}


def examples(seed, n, shape=(6,), classes=3, kind=np.float32):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    centres = rng.normal(size=(classes, *shape))
    return Examples((centres[labels] + rng.normal(size=(n, *shape))).astype(kind), labels, np.arange(n))


def network():
    """A convolution, BatchNorm that stays frozen, dropout and a linear layer, in float64."""
    with loop.seeded(1, "network"):
        module = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3)
        )
    return module.double()


def gradients(rows, **options):
    """Return all gradients of one step on a batch of so many rows, the loss, and how many were right."""
    module, batch = network(), examples(0, rows, (3, 5, 5), kind=np.float64)
    labels = np.append(batch.labels, [0, 1, 2])  # so that each class has a weight
    with_all = Examples(np.zeros((rows + 3, 3, 5, 5)), labels)
    state = loop.begin(module, with_all, FitOptions(optimizer="sgd", **options), frozen_norms=[module[1]])
    loop.thaw(state, 1)
    own = state.together.own(np.arange(rows))
    with loop.seeded(0, "step"):
        loss, right = loop.step(state, batch.inputs[own], batch.labels[own], 0.1, rows)
    parts = [parameter.grad.ravel().numpy() for parameter in module.parameters()]
    return np.concatenate([*parts, [loss, right]])


def digest(weights):
    return hashlib.sha256(b"".join(weights[name].tobytes() for name in sorted(weights))).hexdigest()


class Stop(Hooks):
    """Ends the training after so many epochs."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, state):
        return state.epoch >= self.epochs


def fit_mlp(checkpoint=None, epochs=4, stop=4):
    options = FitOptions(head="mlp", epochs=epochs, batch_size=32, seed=3)
    train, validation = examples(1, 101), examples(2, 33)
    return mlp.fit(train, validation, 3, mlp.Options(hidden=16), options, checkpoint=checkpoint, hooks=Stop(stop))


def main(out):
    together = processes.join()
    results = {name: gradients(rows) for name, rows in BATCHES.items()}
    results["weighted"] = gradients(7, balance="weights", label_smoothing=0.1)
    head = linear.fit(examples(4, 1030), None, 3, linear.Options(), FitOptions(memory=0))
    results["linear"] = np.array(digest(head.weights))
    fitted = fit_mlp(Checkpoint(out / "checkpoint", "run"), stop=2)
    results |= {"losses": np.array([row.loss for row in fitted.history.rows])}
    np.savez(out / f"{together.rank}.npz", **results)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
