import copy
import io
import logging

import numpy as np
import pytest
import torch
from tests.training.maps import above, maps
from torch import nn

from regraft.core.errors import StoreError, UsageError
from regraft.network import catalog
from regraft.network.cut import find_cut
from regraft.network.tensors import hash_tensors
from regraft.network.workaround_torchvision_nms import import_timm
from regraft.training import loop, tail
from regraft.training.options import FitOptions


def trained(module=None, validation=None, n=48, *, pretrained=True, bfloat16=False, **choices):
    """Train a tail and an untrained head on it; return both, and the history."""
    options = FitOptions(**{"tail_epochs": 2, "batch_size": 8, "patience": None, **choices})
    whole = tail.build(module or above(), (2, 6, 6), 2, options)
    history = tail.train(whole, maps(n), validation, options, pretrained=pretrained, bfloat16=bfloat16)
    return whole, history


# Its stages


def tail_of(name, cut):
    with torch.device("meta"):
        return find_cut(catalog.build(catalog.find(name)), cut).tail


@pytest.mark.parametrize(
    ("name", "cut", "expected"),
    [
        ("efficientnet_lite0", "blocks.3", ["blocks.4", "blocks.5", "blocks.6"]),
        ("efficientnet_lite0", "input", ["conv_stem", *(f"blocks.{number}" for number in range(7))]),
        ("resnet50", "layer2", ["layer3", "layer4"]),
        ("resnet50", "conv1", ["layer1", "layer2", "layer3", "layer4"]),
        ("inception_v3", "Mixed_6d", ["Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"]),
        ("vgg16", "features.23", ["features.24", "features.26", "features.28", "pre_logits.fc1", "pre_logits.fc2"]),
        ("convnext_tiny", "stages.1", ["stages.2", "stages.3"]),
        ("vit_tiny_patch16_224", "blocks.9", ["blocks.10", "blocks.11"]),
    ],
)
def test_the_stages_of_a_tail_are_the_numbered_parts_of_its_network_from_the_cut_up(name, cut, expected):
    module = tail_of(name, cut)
    stages = tail.stages(module)
    assert list(stages) == expected
    parameters = [id(parameter) for stage in stages.values() for parameter in stage]
    assert sorted(parameters) == sorted(map(id, module.parameters()))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
@pytest.mark.parametrize("traced", [True, False])
def test_the_stages_are_those_that_timm_groups_its_parameters_by(name, traced):
    with torch.device("meta"):
        network = catalog.build(catalog.find(name))
        module = tail_of(name, "act1" if name == "resnet50" else "bn1") if traced else network
    names = {parameter: name for name, parameter in module.named_parameters()}
    stages = [{names[parameter] for parameter in stage} for stage in tail.stages(module).values()]
    groups = import_timm().models.group_parameters(network, network.group_matcher(coarse=True)).values()
    assert stages == [kept for group in groups if (kept := set(group) & set(names.values()))]


def test_a_normalisation_right_above_the_cut_belongs_to_the_stage_above_it():
    module = tail_of("resnet50", "conv1")
    assert next(len(stage) for stage in tail.stages(module).values()) == 2 + len(list(module.layer1.parameters()))


def test_what_has_no_numbers_is_one_stage_and_what_has_no_weights_none():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 2)

    assert [len(stage) for stage in tail.stages(Plain()).values()] == [6]
    assert tail.stages(nn.Flatten()) == {}
    assert [len(stage) for stage in tail.stages(nn.Sequential(nn.BatchNorm1d(2))).values()] == [2]


# Its features


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_features_of_the_frozen_tail_are_torchs_row_for_row_of_images_and_views(bfloat16):
    module, before = above(), hash_tensors(above().state_dict())
    views = (maps(seed=1).inputs, maps(seed=2).inputs)
    groups = np.arange(48) // 2
    result = tail.features(module, maps(views=views, groups=groups), bfloat16=bfloat16)
    with torch.no_grad():
        expected = [module(torch.from_numpy(inputs)).numpy() for inputs in (maps().inputs, *views)]
    for inputs, near in zip(result.all_inputs, expected, strict=True):
        np.testing.assert_allclose(inputs, near, atol=0.02 if bfloat16 else 1e-6)
        assert inputs.dtype == np.float32
    assert result.labels.tolist() == maps().labels.tolist()
    assert result.groups.tolist() == groups.tolist()
    assert hash_tensors(module.state_dict()) == before


def test_the_features_are_of_the_rows_as_they_are_where_each_epoch_augments_them():
    def fresh(number):
        raise AssertionError(f"epoch {number} is asked for")

    result = tail.features(above(), maps(fresh=fresh))
    assert result.fresh is None
    np.testing.assert_array_equal(result.inputs, tail.features(above(), maps()).inputs)


def test_a_full_disk_gives_one_line(monkeypatch):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tail.tempfile, "TemporaryFile", Full)
    with pytest.raises(StoreError, match="no room is left on the disk"):
        tail.features(above(), maps())


def test_the_output_shape_is_that_of_the_tail():
    assert tail.output_shape(above(), (2, 6, 6)) == (8,)


def test_the_same_seed_gives_the_same_head():
    def built(seed):
        return tail.build(above(), (2, 6, 6), 2, FitOptions(seed=seed))[1][1].weight

    assert torch.equal(built(0), built(0))
    assert not torch.equal(built(0), built(1))


# Its training


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_tail_and_a_head_are_trained_together(head):
    module = above()
    before = module[0].weight.clone()
    whole, history = trained(module, maps(seed=1), head=head, tail_epochs=15, tail_learning_rate=0.02)
    probabilities = loop.probabilities(whole, maps(seed=2).inputs)
    assert np.mean(probabilities.argmax(1) == maps(seed=2).labels) > 0.95
    assert whole[0] is module
    assert not torch.equal(module[0].weight, before)
    assert {(row.part, row.phase) for row in history.rows} == {("train", "tail"), ("validation", "tail")}


def test_the_rate_is_the_tails_own_and_goes_through_one_cycle_unless_a_schedule_is_named():
    rates = [row.learning_rate for row in trained(tail_epochs=4, tail_learning_rate=0.01)[1].part("train")]
    module = nn.Linear(1, 1)
    adam = torch.optim.Adam(module.parameters(), lr=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, 0.01, total_steps=24, cycle_momentum=False)
    expected = []
    for _ in range(24):
        expected.append(cycle.get_last_lr()[0])
        adam.step()
        cycle.step()
    assert rates == pytest.approx(expected[5::6])
    assert [row.learning_rate for row in trained(tail_learning_rate=0.01, schedule="constant")[1].part("train")] == [
        0.01,
        0.01,
    ]


def test_each_stage_is_trained_at_the_decayed_rate_of_the_one_above():
    def steps(decay):
        options = {"optimizer": "sgd", "schedule": "constant", "batch_size": "all", "tail_epochs": 1}
        whole, _ = trained(**options, layer_decay=decay, tail_learning_rate=0.1)
        start = tail.build(above(), (2, 6, 6), 2, FitOptions())
        return {name: value - start.state_dict()[name] for name, value in whole.named_parameters()}

    full, decayed = steps(1.0), steps(0.5)
    for name, step in full.items():
        depth = 0 if name.startswith("1.") else 1 if name.startswith(("0.3", "0.4")) else 2
        torch.testing.assert_close(decayed[name], step * 0.5**depth, rtol=1e-3, atol=1e-7)
        assert step.abs().max() > 1e-4


def test_the_groups_are_the_head_and_then_the_stages_from_the_top():
    whole = tail.build(above(), (2, 6, 6), 2, FitOptions())
    groups = tail.groups(whole, FitOptions(layer_decay=0.5, unfreeze_every=3))
    assert [(group.scale, group.from_epoch, len(group.parameters)) for group in groups] == [
        (1.0, 1, 2),
        (0.5, 1, 4),
        (0.25, 4, 4),
    ]
    assert [group.from_epoch for group in tail.groups(whole, FitOptions())] == [1, 1, 1]


@pytest.mark.parametrize("batchnorm", ["keep", "train"])
@pytest.mark.parametrize("pretrained", [True, False])
def test_a_frozen_stage_stays_bit_equal_with_its_normalisation_until_its_turn(batchnorm, pretrained):
    def stages(epochs):
        choices = {"tail_epochs": epochs, "unfreeze_every": 2, "batchnorm": batchnorm}
        whole, _ = trained(pretrained=pretrained, **choices)
        return [hash_tensors(whole[0][first : first + 2].state_dict()) for first in (0, 3)]

    before = [hash_tensors(above()[first : first + 2].state_dict()) for first in (0, 3)]
    assert [now == then for now, then in zip(stages(2), before, strict=True)] == [True, False]
    assert [now == then for now, then in zip(stages(3), before, strict=True)] == [False, False]


def test_stages_whose_turn_never_comes_give_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "regraft"):
        trained(tail_epochs=2, unfreeze_every=2)
    assert "The lowest 1 of the tail's 2 stages stay frozen" in caplog.text
    caplog.clear()
    trained(tail_epochs=3, unfreeze_every=2)
    assert not caplog.records


@pytest.mark.parametrize("pretrained", [True, False])
def test_normalisation_keeps_the_statistics_of_pretrained_weights_and_trains_those_of_random_ones(pretrained):
    module = above()
    before = copy.deepcopy(dict(module[1].named_buffers()))
    trained(module, pretrained=pretrained)
    assert all(torch.equal(values, before[name]) for name, values in module[1].named_buffers()) is pretrained
    assert not torch.equal(module[1].weight, torch.ones(4))  # what is trained is trained in both


def test_the_statistics_of_pretrained_weights_are_trained_on_request():
    module = above()
    before = module[1].running_mean.clone()
    trained(module, batchnorm="train")
    assert not torch.equal(module[1].running_mean, before)


def test_a_tail_trained_in_bfloat16_has_float32_weights_in_their_old_layout_and_nearly_the_same_losses():
    choices = {"tail_epochs": 10, "tail_learning_rate": 0.01}
    whole, history = trained(validation=maps(seed=1), bfloat16=True, **choices)
    _, expected = trained(validation=maps(seed=1), **choices)
    assert all(tensor.is_contiguous() and tensor.dtype != torch.bfloat16 for tensor in whole.state_dict().values())
    for row, near in zip(history.rows, expected.rows, strict=True):
        assert row.loss == pytest.approx(near.loss, rel=0.05, abs=0.01)


def test_a_batch_of_one_is_refused_where_normalisation_is_trained():
    with pytest.raises(UsageError, match="--batch-size is 1"):
        trained(batch_size=1, tail_epochs=1, pretrained=False)
    with pytest.raises(UsageError, match="--batch-size is 1"):
        trained(batch_size=1, tail_epochs=1, batchnorm="train")
    trained(n=4, batch_size=1, tail_epochs=1)


def test_a_sweep_of_the_rate_trains_all_stages_and_leaves_no_trace():
    options = FitOptions(batch_size=8, unfreeze_every=1)
    whole = tail.build(above(), (2, 6, 6), 2, options)
    before = hash_tensors(whole.state_dict())
    sweep = tail.sweep(whole, maps(), options)
    assert sweep.losses[0] == pytest.approx(loop.evaluate(whole, maps())[0], rel=0.2)
    assert 1e-5 < sweep.suggestion < 1
    assert hash_tensors(whole.state_dict()) == before
    assert all(parameter.requires_grad for parameter in whole.parameters())
    assert whole[0][0].weight.is_contiguous()
