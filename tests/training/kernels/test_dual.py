"""Training by coefficients of the rows, against gradient steps on the weights themselves, in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from regraft.training.examples import Examples
from regraft.training.heads import mlp
from regraft.training.kernels import dual
from regraft.training.options import FitOptions

DESCENT = {"head": "mlp", "optimizer": "sgd", "batch_size": "all", "patience": None, "learning_rate": 0.05}


def examples(rows=60, width=80, seed=0):
    rng = np.random.default_rng(seed)
    return Examples(rng.normal(size=(rows, width)).astype(np.float32), np.arange(rows) % 3)


def fit(train, held=None, hidden=None, **choices):
    return mlp.fit(train, held, 3, mlp.Options(hidden=hidden, dropout=0), FitOptions(**{**DESCENT, **choices}))


def body(train, held=None, hidden=None, **choices):
    return mlp.prepare(train, held, 3, mlp.Options(hidden=hidden), FitOptions(**{**DESCENT, **choices}))[1]


def by_hand(train, head, steps, **settings):
    """Return what so many steps on the standardised rows, from the head's weights, make of its last layer."""
    rows, labels = torch.from_numpy(train.inputs).double(), torch.from_numpy(train.labels)
    rows = (rows - rows.mean(0)) / rows.std(0, correction=0)
    layer = nn.Linear(rows.shape[1], 3).double()
    layer.load_state_dict({name: tensor.double() for name, tensor in head.state_dict().items()})
    optimizer = torch.optim.SGD(layer.parameters(), 0.05, **settings)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(layer(rows), labels).backward()
        optimizer.step()
    return layer


@pytest.mark.parametrize("settings", [{"momentum": 0.0}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_it_ends_where_steps_on_the_weights_end(settings):
    train = examples()
    options = {"epochs": 200, "optimizer_options": settings}
    start = mlp.prepare(train, None, 3, mlp.Options(hidden=None), FitOptions(**DESCENT, **options))[0][1]
    fitted = fit(train, **options)
    expected = by_hand(train, start, fitted.history.best_epoch, **settings)
    assert fitted.history.best_epoch == 200
    for found, exact in zip(fitted.module[1].parameters(), expected.parameters(), strict=True):
        assert found.requires_grad
        assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("hidden", [None, 8])
def test_it_is_the_same_training_as_without(hidden, monkeypatch):
    train, held = examples(), examples(seed=1)
    found = fit(train, held, hidden, epochs=40)
    monkeypatch.setattr(dual, "pays", lambda *given, **told: False)
    expected = fit(train, held, hidden, epochs=40)
    for ours, known in zip(found.history.rows, expected.history.rows, strict=True):
        assert (ours.loss, ours.accuracy) == pytest.approx((known.loss, known.accuracy), abs=1e-5)
    states = found.module.state_dict(), expected.module.state_dict()
    assert list(states[0]) == list(states[1])
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], atol=1e-5, rtol=1e-4)


def test_it_is_taken_for_gradient_steps_on_all_of_fewer_rows_than_twice_the_width_where_there_are_steps_enough():
    def taken(train=None, held=None, **choices):
        return isinstance(body(train or examples(), held, **choices)[0], dual.Dual)

    assert taken(epochs=20)
    assert not taken(epochs=19)  # 60 rows, 3 outputs
    assert taken(examples(159), epochs=60)
    assert not taken(examples(160), epochs=60)
    assert taken(examples(79), examples(), epochs=60)  # judging rows need the weights in each epoch
    assert not taken(examples(80), examples(), epochs=60)
    for choices in ({"optimizer": "adam"}, {"batch_size": 30}, {"balance": "oversample"}):
        assert not taken(epochs=60, **choices)
    assert not taken(epochs=60, optimizer_options={"weight_decay": 0.01})
    assert taken(epochs=60, optimizer_options={"weight_decay": 0.0})


def test_a_training_that_was_ended_and_resumed_is_the_one_that_was_not(tmp_path, monkeypatch):
    train, held = examples(), examples(seed=1)
    options = FitOptions(**DESCENT, epochs=40)

    def trained(checkpoint):
        return mlp.fit(train, held, 3, mlp.Options(hidden=None), options, checkpoint=checkpoint)

    def ended(*given):
        ended.calls += 1
        if ended.calls == 7:
            raise KeyboardInterrupt
        return step(*given)

    from regraft.training import loop

    step, ended.calls = loop.step, 0
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "step", ended)
        trained(tmp_path / "checkpoint")
    resumed, whole = trained(tmp_path / "checkpoint"), trained(None)
    for name, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[name])


def test_other_rows_are_no_rows_to_train_on():
    train = examples()
    module = body(train, epochs=60).train()
    with pytest.raises(AssertionError, match="other rows"):
        module(torch.zeros(60, 80))
