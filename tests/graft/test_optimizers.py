import pytest
import torch

from regraft.graft import optimizers

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
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(torch.linspace(1, 2, 48).reshape(2, 3, 4, 2).contiguous(memory_format=layout))
        optimizer = optimizers.build(name, [weight], 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (weight**3 * torch.arange(48).reshape(weight.shape)).sum().backward()
            optimizer.step()
        found.append(weight.detach().contiguous())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_two_steps_are_those_of_the_formula(name):
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = optimizers.build(name, [weight], 0.1)
    found = []
    for _ in range(2):
        weight.grad = torch.tensor([4.0], dtype=torch.float64)
        optimizer.step()
        found.append(weight.item())
    assert found == pytest.approx(EXPECTED[name], rel=1e-6)
