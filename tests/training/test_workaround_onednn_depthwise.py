"""Gradients of depthwise convolutions, against torch's own in float64 on the same bfloat16 numbers."""

import pytest
import torch

from regraft.core.machine import fast_bfloat16
from regraft.training.workaround_onednn_depthwise import convolve, suits


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()


@pytest.mark.skipif(not fast_bfloat16(), reason="this processor has no bfloat16 products, so that oneDNN has no kernel")
@pytest.mark.parametrize(
    ("width", "stride", "gradient", "depthwise"),
    [
        (3, 1, "backward_weights", True),
        (5, 1, "backward_weights", False),
        (3, 1, "backward_data", True),
        (3, 2, "backward_data", False),
    ],
)
def test_onednn_itself_has_no_depthwise_kernel_for_two_gradients(width, stride, gradient, depthwise, capfd):
    """If this fails, oneDNN has one now: see which version brought it, and what is left to work around."""
    maps, weight = numbers(4, 16, 14, 14), numbers(16, 1, width, width)
    with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
        torch.conv2d(maps, weight, None, stride, width // 2, 1, 16).sum().backward()
    lines = [line.split(",") for line in capfd.readouterr().out.splitlines()]
    (kernel,) = {line[6] for line in lines if "convolution" in line[5:6] and gradient in line}
    assert ("_dw:" in kernel) is depthwise


@pytest.mark.parametrize(
    ("width", "stride", "padding", "shape"),
    [
        (3, (1, 1), (1, 1), (9, 9)),
        (3, (2, 2), (0, 0), (9, 9)),
        (5, (1, 1), (2, 2), (8, 8)),
        (5, (1, 1), (2, 2), (2, 3)),  # a map smaller than the kernel
        (5, (2, 2), (0, 0), (11, 8)),  # the last column is not seen
        (5, (2, 1), (2, 1), (7, 10)),
        (7, (1, 1), (3, 3), (7, 7)),
        (9, (1, 1), (4, 4), (10, 10)),
    ],
)
def test_values_and_gradients_are_those_of_float64(width, stride, padding, shape):
    maps, weight = numbers(4, 16, *shape), numbers(16, 1, width, width)
    outputs = convolve(maps.contiguous(memory_format=torch.channels_last), weight, stride, padding)
    maps64, weight64 = maps.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = torch.conv2d(maps64, weight64, None, stride, padding, 1, 16)
    pull = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    outputs.backward(pull), expected.backward(pull.double())
    for ours, exact in ((outputs, expected), (maps.grad, maps64.grad), (weight.grad, weight64.grad)):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - exact).abs().max() < 2**-7 * exact.abs().max()


def test_only_what_is_asked_for_is_computed():
    maps, weight = numbers(1, 16, 8, 8).detach(), numbers(16, 1, 5, 5)
    convolve(maps, weight, (1, 1), (2, 2)).sum().backward()
    assert maps.grad is None and weight.grad is not None


@pytest.mark.parametrize(
    ("shape", "padding", "dilation", "groups"),
    [
        ((8, 2, 3, 3), (1, 1), (1, 1), 4),
        ((8, 1, 3, 3), (1, 1), (1, 1), 4),
        ((8, 1, 3, 5), (1, 2), (1, 1), 8),
        ((8, 1, 2, 2), (0, 0), (1, 1), 8),
        ((8, 1, 1, 1), (0, 0), (1, 1), 8),
        ((8, 1, 3, 3), (2, 2), (2, 2), 8),
        ((8, 1, 3, 3), "same", (1, 1), 8),
    ],
)
def test_other_convolutions_are_not_taken(shape, padding, dilation, groups):
    assert suits(torch.empty(8, 1, 3, 3), (1, 1), (1, 1), 8)
    assert not suits(torch.empty(shape), padding, dilation, groups)
