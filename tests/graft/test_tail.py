import numpy as np
import pytest
import torch
from torch import nn

from regraft.core.errors import UsageError
from regraft.graft import loop, tail
from regraft.graft.examples import Examples
from regraft.graft.options import FitOptions


def maps(n=48, seed=0):
    """Maps whose class is the half that is bright: (n, 2, 6, 6)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    inputs = rng.normal(0, 0.3, (n, 2, 6, 6)).astype(np.float32)
    inputs[labels == 0, :, :, :3] += 1
    inputs[labels == 1, :, :, 3:] += 1
    return Examples(inputs, labels)


def above():
    with loop.seeded(3, "tail"):
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten()
        ).eval()


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_tail_and_a_head_are_trained_together(head):
    module = above()
    before = module[0].weight.clone()
    options = FitOptions(head=head, epochs=15, learning_rate=0.02, batch_size=8)
    fitted = tail.fit(module, (2, 6, 6), maps(), maps(seed=1), 2, options)
    found = loop.probabilities(fitted.module, maps(seed=2).inputs)
    assert np.mean(found.argmax(1) == maps(seed=2).labels) > 0.95
    assert fitted.module[0] is module
    assert not torch.equal(module[0].weight, before)
    assert {row.part for row in fitted.history.rows} == {"train", "validation"}


@pytest.mark.parametrize("pretrained", [True, False])
def test_normalisation_keeps_the_statistics_of_pretrained_weights_and_learns_those_of_random_ones(pretrained):
    module = above()
    before = {name: values.clone() for name, values in module[1].named_buffers()}
    tail.fit(module, (2, 6, 6), maps(), None, 2, FitOptions(epochs=2), pretrained=pretrained)
    assert all(torch.equal(values, before[name]) for name, values in module[1].named_buffers()) is pretrained
    assert not torch.equal(module[1].weight, torch.ones(4))  # what is trained is trained in both


def test_the_statistics_of_pretrained_weights_are_trained_on_request():
    module = above()
    before = module[1].running_mean.clone()
    tail.fit(module, (2, 6, 6), maps(), None, 2, FitOptions(epochs=2, batchnorm="train"))
    assert not torch.equal(module[1].running_mean, before)


def test_what_is_trained_in_bfloat16_is_float32_lies_as_before_and_is_nearly_the_same():
    def fitted(bfloat16):
        options = FitOptions(epochs=10, learning_rate=0.01, batch_size=8, patience=None)
        return tail.fit(above(), (2, 6, 6), maps(), maps(seed=1), 2, options, bfloat16=bfloat16)

    found, expected = fitted(True), fitted(False)
    tensors = found.module.state_dict().values()
    assert all(tensor.is_contiguous() and tensor.dtype != torch.bfloat16 for tensor in tensors)
    for row, near in zip(found.history.rows, expected.history.rows, strict=True):
        assert row.loss == pytest.approx(near.loss, rel=0.05, abs=0.005)


def test_a_batch_of_one_is_refused_where_normalisation_has_to_learn():
    with pytest.raises(UsageError, match="--batch-size is 1"):
        tail.fit(above(), (2, 6, 6), maps(), None, 2, FitOptions(batch_size=1, epochs=1), pretrained=False)
    with pytest.raises(UsageError, match="--batch-size is 1"):
        tail.fit(above(), (2, 6, 6), maps(), None, 2, FitOptions(batch_size=1, epochs=1, batchnorm="train"))
    tail.fit(above(), (2, 6, 6), maps(4), None, 2, FitOptions(batch_size=1, epochs=1))


def test_the_same_seed_gives_the_same_head():
    def built(seed):
        return tail.build(above(), (2, 6, 6), 2, FitOptions(seed=seed))[1][1].weight

    assert torch.equal(built(0), built(0))
    assert not torch.equal(built(0), built(1))


def test_the_shape_above_is_the_one_that_the_tail_gives():
    assert tail.output_shape(above(), (2, 6, 6)) == (8,)
