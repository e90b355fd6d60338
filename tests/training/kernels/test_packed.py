import pytest
import torch
from torch import nn

from regraft.training.kernels.packed import Packed


def layers(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layer = nn.Linear(300, 5)
        return Packed(layer), layer, torch.randn(70, 300), torch.randn(70, 5)


def gradients(module, layer, inputs, direction):
    layer.zero_grad()
    outputs = module(inputs)
    (outputs * direction).sum().backward()
    return [outputs, layer.weight.grad.clone(), layer.bias.grad.clone()]


def test_outputs_and_gradients_are_those_of_the_layer_in_step_after_step():
    packed, layer, inputs, direction = layers()
    for _ in range(3):
        expected = gradients(layer, layer, inputs, direction)
        for found, known in zip(gradients(packed, layer, inputs, direction), expected, strict=True):
            torch.testing.assert_close(found, known, atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            layer.weight += 0.1


def test_other_inputs_are_noticed():
    packed, layer, inputs, _ = layers()
    packed(inputs)
    for others in (inputs + 1, inputs[:30].clone(), inputs[:30], inputs[30:]):
        torch.testing.assert_close(packed(others), layer(others), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_its_parameters_are_the_layers_and_outside_training_it_is_the_layer(training):
    packed, layer, inputs, _ = layers()
    packed.train(training)
    assert [id(parameter) for parameter in packed.parameters()] == [id(parameter) for parameter in layer.parameters()]
    assert set(packed.state_dict()) == {"layer.weight", "layer.bias"}
    assert training or torch.equal(packed(inputs), layer(inputs))
