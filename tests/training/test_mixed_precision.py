import pytest
import torch
from torch import nn

from regraft.training import loop, mixed_precision


def forward(module, inputs, bfloat16=True):
    with torch.no_grad():
        return mixed_precision.forward(module, inputs, bfloat16=bfloat16)


def convolution(width, groups):
    with loop.seeded(0, "convolution"):
        return nn.Conv2d(8, 8, width, padding=width // 2, groups=groups), torch.randn(4, 8, 9, 9)


def test_float32_is_the_module_itself():
    module, inputs = convolution(3, 1)
    assert torch.equal(forward(module, inputs, bfloat16=False), module(inputs))


def test_inputs_are_moved_to_the_device_of_the_module_and_outputs_stay_there():
    assert forward(nn.Linear(2, 3, device="meta"), torch.ones(4, 2), bfloat16=False).device.type == "meta"


@pytest.mark.parametrize(("width", "groups"), [(3, 1), (5, 1), (3, 8), (5, 8)])
def test_a_convolution_is_near_the_one_in_float32_and_its_outputs_are_float32(width, groups, device):
    module, inputs = convolution(width, groups)
    expected = module(inputs).detach()
    outputs = forward(module.to(device), inputs).cpu()
    assert outputs.dtype == torch.float32
    assert (outputs - expected).abs().max() < 0.02 * expected.abs().max()
    assert not torch.equal(outputs, expected)


@pytest.mark.parametrize("side", [1, 9, 12, 13])
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_width_1_is_near_the_one_in_double_precision_and_so_are_its_gradients(side, stride, bias):
    module = nn.Conv2d(6, 10, 1, stride=stride, bias=bias)
    exact = nn.Conv2d(6, 10, 1, stride=stride, bias=bias).double()
    exact.load_state_dict(module.state_dict())
    inputs = torch.randn(4, 6, side, side)
    seen = []
    for network, maps in ((module, inputs), (exact, inputs.double())):
        maps.requires_grad_()
        outputs = mixed_precision.forward(network, maps, bfloat16=network is module)
        (outputs * (2 + torch.arange(outputs.numel()).reshape(outputs.shape).sin())).sum().backward()
        seen.append([outputs.detach(), maps.grad, *(parameter.grad for parameter in network.parameters())])
    for actual, expected in zip(*seen, strict=True):
        assert actual.dtype == torch.float32 and actual.shape == expected.shape
        assert (actual - expected).norm() < 0.01 * expected.norm()


def test_maps_keep_their_channels_last_through_a_convolution_of_width_1():
    layouts = []
    body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1, stride=2))
    for part in body:
        part.register_forward_hook(lambda part, inputs, maps: layouts.append(maps.stride()))
    forward(body, torch.randn(2, 8, 10, 10))
    assert layouts == [(800, 1, 80, 8), (200, 1, 40, 8)]


@pytest.mark.parametrize("form", ["with padding in words", "with several outputs a channel"])
def test_convolutions_that_no_workaround_can_do_are_left_to_torch(form):
    outputs, padding = (8, "same") if form == "with padding in words" else (16, 1)
    module = nn.Conv2d(8, outputs, 3, padding=padding, groups=8)
    inputs = torch.randn(4, 8, 9, 9)
    outputs, expected = forward(module, inputs), module(inputs).detach()
    assert (outputs - expected).abs().max() < 0.02 * expected.abs().max()


def test_gradients_reach_float32_weights():
    module, inputs = convolution(5, 8)
    body = nn.Sequential(nn.Conv2d(8, 8, 3), module, nn.Flatten())
    mixed_precision.forward(body, inputs, bfloat16=True).square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in body.parameters()]
    body.zero_grad()
    body(inputs).square().sum().backward()
    for gradient, parameter in zip(gradients, body.parameters(), strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - parameter.grad).norm() < 0.02 * parameter.grad.norm()
