import pytest
import torch

from regraft.core.errors import UnknownName, UsageError
from regraft.training import optimizers
from regraft.training.optimizers import Group

# The first two steps from weight 2.0 with gradient 4.0 and rate 0.1, by the formulas of the papers.
EXPECTED = {
    "sgd": [2 - 0.1 * 4, 2 - 0.1 * 4 - 0.1 * (0.9 * 4 + 4)],
    "adam": [2 - 0.1, 2 - 0.2],  # mean over root mean square is 1 for a constant gradient
    "adamw": [2 * (1 - 0.1 * 0.01) - 0.1, (2 * (1 - 0.1 * 0.01) - 0.1) * (1 - 0.1 * 0.01) - 0.1],
    "rmsprop": [2 - 0.1 / 0.01**0.5, 2 - 0.1 / 0.01**0.5 - 0.1 / (0.01 * 0.99 + 0.01) ** 0.5],
    "adagrad": [2 - 0.1, 2 - 0.1 - 0.1 / 2**0.5],
}


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_a_step_is_the_same_wherever_the_channels_lie_in_memory(name):
    weights = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(torch.linspace(1, 2, 48).reshape(2, 3, 4, 2).contiguous(memory_format=layout))
        optimizer = optimizers.build(name, [Group([weight])], 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (weight**3 * torch.arange(48).reshape(weight.shape)).sum().backward()
            optimizer.step()
        weights.append(weight.detach().contiguous())
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_two_steps_are_those_of_the_formula(name):
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = optimizers.build(name, [Group([weight])], 0.1)
    values = []
    for _ in range(2):
        weight.grad = torch.tensor([4.0], dtype=torch.float64)
        optimizer.step()
        values.append(weight.item())
    assert values == pytest.approx(EXPECTED[name], rel=1e-6)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("sgd", {"momentum": 0.5, "weight_decay": 0.1}, [2 - 0.1 * 4.2, 2 - 0.1 * 4.2 - 0.1 * (0.5 * 4.2 + 4.158)]),
        ("sgd", {"nesterov": True}, [2 - 0.1 * 7.6, 2 - 0.1 * 7.6 - 0.1 * (4 + 0.9 * 7.6)]),
        ("sgd", {"momentum": 0}, [2 - 0.4, 2 - 0.8]),
        ("adamw", {"weight_decay": 0.0}, [2 - 0.1, 2 - 0.2]),
        ("adam", {"betas": (0.0, 0.0), "eps": 4.0}, [2 - 0.05, 2 - 0.1]),
        ("rmsprop", {"alpha": 0.0, "momentum": 0.9}, [2 - 0.1, 2 - 0.1 - 0.19]),
        ("adagrad", {"initial_accumulator_value": 48.0}, [2 - 0.4 / 8, 2 - 0.4 / 8 - 0.4 / 80**0.5]),
    ],
)
def test_every_parameter_of_the_optimizer_may_be_set(name, settings, expected):
    optimizers.check(name, settings)
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = optimizers.build(name, [Group([weight])], 0.1, settings)
    values = []
    for _ in range(2):
        weight.grad = torch.tensor([4.0], dtype=torch.float64)
        optimizer.step()
        values.append(weight.item())
    assert values == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "setting", "says"),
    [
        ("adam", "beta", "No option of adam 'beta'. Did you mean 'betas'"),
        ("adam", "momentum", "Known: .*weight_decay"),
        ("sgd", "lr", "--learning-rate"),
        ("sgd", "fused", "No option of sgd"),
    ],
)
def test_a_parameter_that_it_does_not_have_is_refused_with_those_it_has(name, setting, says):
    with pytest.raises(UnknownName, match=says):
        optimizers.check(name, {setting: 0.5})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sgd", {"momentum": -1}),
        ("sgd", {"momentum": "much"}),
        ("sgd", {"nesterov": True, "momentum": 0}),
        ("adam", {"betas": 0.9}),
        ("adam", {"betas": (0.9, 1.5)}),
        ("adamw", {"weight_decay": (1, 2)}),
    ],
)
def test_a_value_that_it_refuses_gives_one_line(name, settings):
    with pytest.raises(UsageError, match=f"^--optimizer-options of {name}, {next(iter(settings))} [^\n]*$"):
        optimizers.check(name, settings)


def test_a_group_carries_its_scale_and_its_epoch():
    first, second = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = optimizers.build("sgd", [Group([first]), Group([second], 0.1, 3)], 0.5)
    assert [(group["scale"], group["from_epoch"]) for group in optimizer.param_groups] == [(1.0, 1), (0.1, 3)]
    assert [group["params"][0] is weight for group, weight in zip(optimizer.param_groups, (first, second), strict=True)]
