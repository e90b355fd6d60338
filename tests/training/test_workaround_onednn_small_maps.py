"""Convolutions on small maps as products, against torch's own in float64 on the same bfloat16 numbers."""

import pytest
import torch

from regraft.training.workaround_onednn_small_maps import convolve, suits


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "shape"),
    [
        ((1, 1), (1, 1), (0, 0), (9, 8)),
        ((1, 1), (2, 2), (0, 0), (9, 8)),
        ((1, 1), (1, 1), (1, 0), (1, 1)),
        ((3, 3), (1, 1), (1, 1), (3, 3)),
        ((3, 3), (2, 2), (0, 0), (8, 7)),  # the last row is not seen
        ((1, 3), (1, 1), (0, 1), (3, 3)),
        ((7, 1), (2, 3), (3, 0), (2, 5)),  # a map smaller than the kernel
        ((2, 4), (1, 1), (0, 2), (3, 3)),
    ],
)
def test_values_and_gradients_are_those_of_float64(kernel, stride, padding, shape, layout):
    maps, weight = numbers(4, 16, *shape), numbers(24, 16, *kernel)
    outputs = convolve(maps.contiguous(memory_format=layout), weight.to(memory_format=layout), stride, padding)
    maps64, weight64 = maps.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = torch.conv2d(maps64, weight64, None, stride, padding)
    pull = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    outputs.backward(pull), expected.backward(pull.double())
    for ours, exact in ((outputs, expected), (maps.grad, maps64.grad), (weight.grad, weight64.grad)):
        assert ours.dtype == torch.bfloat16 and ours.shape == exact.shape
        assert (ours.double() - exact).abs().max() < 2**-7 * exact.abs().max()


def test_its_outputs_are_channels_last():
    maps = numbers(2, 8, 3, 3).detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    outputs = convolve(maps, numbers(16, 8, 1, 1), (1, 1), (0, 0))
    assert outputs.is_contiguous(memory_format=torch.channels_last)
    outputs.sum().backward()
    assert maps.grad.stride() == maps.stride()


def test_only_what_is_asked_for_is_computed():
    maps, weight = numbers(1, 16, 3, 3).detach(), numbers(16, 16, 3, 3)
    convolve(maps, weight, (1, 1), (1, 1)).sum().backward()
    assert maps.grad is None and weight.grad is not None


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding", "fits"),
    [
        (12, (1, 1), (1, 1), (0, 0), True),
        (13, (1, 1), (1, 1), (0, 0), False),
        (25, (1, 1), (2, 2), (0, 0), False),
        (24, (1, 1), (2, 2), (0, 0), True),
        (3, (3, 3), (1, 1), (1, 1), True),
        (5, (3, 3), (1, 1), (0, 0), True),
        (4, (3, 3), (1, 1), (1, 1), False),
        (12, (3, 3), (2, 2), (1, 1), True),
        (13, (3, 3), (2, 2), (1, 1), False),
        (4, (1, 3), (1, 1), (0, 1), False),
    ],
)
def test_the_outputs_must_be_small(side, kernel, stride, padding, fits):
    maps, weight = torch.empty(1, 8, side, side), torch.empty(8, 8, *kernel)
    assert suits(maps, weight, stride, padding, (1, 1), 1) is fits


@pytest.mark.parametrize(
    ("padding", "dilation", "groups"), [("same", (1, 1), 1), ((1, 1), (2, 2), 1), ((1, 1), (1, 1), 2)]
)
def test_other_convolutions_are_not_taken(padding, dilation, groups):
    assert not suits(torch.empty(1, 8, 3, 3), torch.empty(8, 8 // groups, 3, 3), (1, 1), padding, dilation, groups)
