import torch

from regraft.network import catalog
from regraft.network.weights import random


def test_the_same_seed_draws_the_same_weights_whatever_was_drawn_before():
    backbone = catalog.find("test_resnet")
    first = random.load(backbone, seed=1)
    torch.rand(7)
    again = random.load(backbone, seed=1)
    assert first.tensors.keys() == again.tensors.keys()
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)


def test_another_seed_draws_other_weights():
    backbone = catalog.find("test_resnet")
    first, other = (random.load(backbone, seed=seed).tensors for seed in (1, 2))
    assert not torch.equal(first["conv1.0.weight"], other["conv1.0.weight"])


def test_drawing_leaves_torchs_own_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    random.load(catalog.find("test_resnet"), seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_random_weights_are_marked_as_not_pretrained():
    loaded = random.load(catalog.find("test_resnet"))
    assert (loaded.source, loaded.path, loaded.pretrained) == ("random", "", False)
