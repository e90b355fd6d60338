import numpy as np
import pytest
import torch
from torch import nn

from regraft.network.tensors import hash_tensors
from regraft.training import loop
from regraft.training.examples import Examples
from regraft.training.lr_find import lr_find, suggest
from regraft.training.optimizers import Group
from regraft.training.options import FitOptions

RATES = np.geomspace(1e-7, 10, 100)


def blobs(n=90, width=8, classes=3):
    labels = np.arange(n) % classes
    centres = np.random.default_rng(9).normal(0, 2, (classes, width))
    return Examples((centres[labels] + np.random.default_rng(0).normal(size=(n, width))).astype(np.float32), labels)


def network():
    with loop.seeded(1, "network"):
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


def options(**choices):
    return FitOptions(**{"batch_size": 16, **choices})


@pytest.mark.parametrize("steepest", [1e-5, 1e-3, 0.1])
def test_the_suggestion_is_where_the_loss_falls_most_steeply(steepest):
    losses = 1 / (1 + (RATES / steepest))  # over the logarithm of the rate a sigmoid, steepest in its middle
    assert suggest(RATES, losses) == pytest.approx(steepest, rel=0.2)


def test_a_loss_that_falls_whatever_the_rate_suggests_none():
    assert suggest(RATES, np.geomspace(1, 1e-3, 100)) is None


def test_a_fall_after_the_lowest_loss_is_not_suggested():
    """Past its lowest the loss climbs and drops again, more steeply than anywhere before."""
    losses = 1 - 0.5 / (1 + (1e-3 / RATES) ** 2)
    losses[RATES > 0.3] = 5
    losses[RATES > 1] = 0.6
    assert suggest(RATES, losses) == pytest.approx(1e-3, rel=0.2)


@pytest.mark.parametrize("losses", [np.ones(100), np.linspace(1, 2, 100), np.linspace(1, 0.95, 100), np.empty(0)])
def test_a_loss_that_falls_nowhere_gives_none(losses):
    assert suggest(RATES[: len(losses)], losses) is None


@pytest.mark.parametrize("name", ["sgd", "adam"])
@pytest.mark.parametrize("size", [16, "all"])
def test_the_rate_it_suggests_trains_and_a_thousandth_of_it_hardly_does(name, size):
    sweep = lr_find(network(), blobs(), options(optimizer=name, batch_size=size))
    reached = []
    for rate in (sweep.suggestion, sweep.suggestion / 1000):
        choices = options(optimizer=name, learning_rate=rate, epochs=15, patience=None, batch_size=size)
        reached.append(loop.train(network(), blobs(), None, choices).rows[-1].loss)
    assert reached[0] < 0.7 * reached[1]


def test_the_sweep_goes_up_evenly_and_ends_where_the_loss_diverges():
    sweep = lr_find(network(), blobs(), options(optimizer="sgd"))
    np.testing.assert_allclose(sweep.rates, RATES[: len(sweep.rates)])
    assert len(sweep.rates) == len(sweep.losses) <= 100
    assert np.isfinite(sweep.losses).all()
    module, rng = nn.Linear(8, 3), np.random.default_rng(0)
    nn.init.zeros_(module.weight)
    unlearnable = Examples(10 * rng.normal(size=(90, 8)), rng.integers(3, size=90))
    ended = lr_find(module, unlearnable, options(optimizer="sgd"))
    assert len(ended.rates) < 80
    assert np.isfinite(ended.losses).all()
    assert ended.losses[-1] > 2 * np.log(3)


def test_losses_that_are_nan_from_the_start_give_an_empty_sweep():
    module = nn.Linear(8, 3)
    nn.init.constant_(module.weight, 1e38)
    sweep = lr_find(module, blobs(), options())
    assert (len(sweep.rates), len(sweep.losses), sweep.suggestion) == (0, 0, None)


def test_the_module_and_the_random_state_are_left_as_they_were():
    module, before = network(), torch.get_rng_state()
    weights = hash_tensors(module.state_dict())
    lr_find(module, blobs(), options())
    assert hash_tensors(module.state_dict()) == weights
    assert torch.equal(before, torch.get_rng_state())


def test_an_interrupt_leaves_the_weights_as_they_were():
    module, calls = network(), []

    def interrupt(*_):
        calls.append(1)
        if len(calls) > 60:
            raise KeyboardInterrupt

    weights = hash_tensors(module.state_dict())
    module[4].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        lr_find(module, blobs(), options())
    assert hash_tensors(module.state_dict()) == weights


def test_the_same_seed_gives_the_same_sweep():
    first, second, other = (lr_find(network(), blobs(), options(seed=seed)).losses for seed in (0, 0, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other[: len(first)])


def test_groups_are_swept_each_at_its_scale():
    moved = {}
    for scale in (0.0, 1.0):
        module, seen = network(), []
        module[4].register_forward_hook(lambda *_, module=module, seen=seen: seen.append(module[0].weight.clone()))
        lr_find(
            module, blobs(), options(), groups=[Group(list(module[4].parameters())), Group([module[0].weight], scale)]
        )
        moved[scale] = not torch.equal(seen[0], seen[-1])
    assert moved == {0.0: False, 1.0: True}
