import copy
import dataclasses
import json
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from regraft.core.errors import RefusedFile, UnknownName, UsageError
from regraft.inference.runner import Runner
from regraft.network.build import build, build_with_tail, restore, restore_tail
from regraft.network.cut import find_cut, list_cuts
from regraft.network.options import NetworkOptions, TailOptions
from regraft.network.own_backbone import check_fingerprint, fingerprint, own_backbone
from regraft.network.preprocess import Preprocess
from regraft.network.trunk import Choice
from regraft.network.workaround_torchvision_nms import import_timm

RULE = {"size": 32, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}


class Small(nn.Module):
    """A network of a user's own: a stem, a residual block, a mean over height and width."""

    def __init__(self, width=8, slope=0.1):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.LeakyReLU(slope))
        self.block = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.block(x))
        return self.dropout(x.mean((2, 3)))


class Returns(nn.Module):
    """A module that returns what a function makes of the images."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def images(count=2, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def test_the_backbone_computes_what_the_module_computes_in_eval_mode():
    module = Small()
    own = own_backbone(module, RULE)
    assert (own, own.preprocess) == ("Small", Preprocess(**RULE))
    with torch.no_grad():
        assert torch.equal(own.network(images()), module.eval()(images()))


def test_the_module_itself_is_left_as_it_is():
    module = Small().double().train()
    before = copy.deepcopy(module.state_dict())
    own = own_backbone(module, RULE)
    assert module.training and all(part.training for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(parameter.dtype == torch.float32 for parameter in own.network.parameters())
    ours, theirs = ({t.data_ptr() for t in network.state_dict().values()} for network in (own.network, module))
    assert not ours & theirs


def test_it_stands_in_options_where_a_name_does_and_in_json_as_its_name():
    own = own_backbone(Small(), RULE, name="mine")
    options = NetworkOptions(backbone=own)
    assert options.backbone is own
    assert json.loads(json.dumps(dataclasses.asdict(options)))["backbone"] == "mine"
    assert copy.deepcopy(own) is own
    again = pickle.loads(pickle.dumps(own))
    assert (again, again.preprocess) == (own, own.preprocess)
    assert torch.equal(again.network(images()), own.network(images()))


def test_it_is_cut_at_the_paths_of_its_modules():
    own = own_backbone(Small(), RULE)
    assert list_cuts(own.network) == ["stem.0", "stem.1", "stem", "dropout"]
    cut = find_cut(own.network, "stem")
    with torch.no_grad():
        assert torch.equal(cut.trunk(images()), own.network.stem(images()))
        assert torch.equal(cut.tail(cut.trunk(images())), own.network(images()))


def test_a_refused_cut_lists_others_as_the_command_line_does_not_know_the_network():
    network = own_backbone(Small(), RULE).network
    with pytest.raises(UsageError, match=r"goes round it\. .*'block\.?\S*|'stem'.* The highest are stem\.0, .*pooled"):
        find_cut(network, "block")
    with pytest.raises(UnknownName, match=r"'stem'.* The highest are .*stem, dropout, pooled"):
        find_cut(network, "stemm")


def test_a_module_that_fx_can_not_trace_is_a_backbone_cut_at_its_ends():
    module = Returns(lambda x: x.mean((2, 3)) if x.mean() > -9 else x.amax((2, 3)))
    network = own_backbone(module, RULE).network
    assert torch.equal(find_cut(network, "pooled").trunk(images()), images().mean((2, 3)))
    with pytest.raises(UsageError, match="Returns can't be cut inside"):
        find_cut(network, "function")


def test_a_network_of_timms_brings_its_own_preprocessing():
    module = import_timm().create_model("test_resnet", num_classes=0)
    own = own_backbone(module)
    assert own == "test_resnet"
    assert own.preprocess == Preprocess.from_timm(module.pretrained_cfg)


@pytest.mark.parametrize(("crop", "resized"), [(224, 232), (224, 256), (299, 342), (384, 384), (480, 493)])
def test_torchvisions_transforms_are_taken_as_the_preprocessing(crop, resized):
    # as torchvision.transforms._presets.ImageClassification keeps them
    transforms = SimpleNamespace(
        crop_size=[crop],
        resize_size=[resized],
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        interpolation=SimpleNamespace(value="bilinear"),
    )
    rule = own_backbone(Returns(lambda x: x.mean((2, 3))), transforms).preprocess
    assert (rule.size, rule.interpolation, rule.mean) == (crop, "bilinear", (0.485, 0.456, 0.406))
    assert int(rule.size / rule.crop_share) == resized


def test_torchvisions_own_evaluation_transform_gives_the_same_input():
    import_timm()  # makes torchvision importable
    from PIL import Image
    from torchvision.transforms._presets import ImageClassification

    transforms = ImageClassification(crop_size=48, resize_size=56)
    rule = Preprocess.from_torchvision(transforms)
    pixels = np.random.default_rng(0).integers(64, 192, (90, 70, 3), np.uint8)
    theirs = transforms(Image.fromarray(pixels)).permute(1, 2, 0).numpy() * rule.std + rule.mean
    assert np.abs(255 * theirs - rule(pixels)).max() <= 2.001  # torch's filter weights have fewer bits than Pillow's


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_the_preprocessing_takes_sequences_of_any_kind(kind):
    rule = own_backbone(Small(), {"size": 32, "mean": kind([0.5, 0.25, 0.125])}).preprocess
    assert rule.mean == (0.5, 0.25, 0.125)
    assert Preprocess.from_dict(rule.to_dict()) == rule


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        (None, r"is None; expected how an image enters it: preprocess={'size': 224"),
        (224, "is a int; expected how an image enters it"),
        ({"mean": (0, 0, 0)}, "size is None; expected a whole number of pixels"),
        ({"size": 32, "sdt": (1, 1, 1)}, "'sdt'.*'std'"),
        ({"size": 32, "std": 0.2}, r"std is 0\.2; expected three numbers above 0"),
        ({"size": "32"}, "size is '32'; expected a whole number"),
    ],
)
def test_preprocessing_that_is_missing_or_invalid_is_refused(preprocess, message):
    with pytest.raises(UsageError, match=message):
        own_backbone(Small(), preprocess)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[:, :1, 0, 0] @ torch.zeros(7, 2), "does not take images"),
        (lambda x: (x.mean((2, 3)), x), "gives tuple for 2 images"),
        (lambda x: x.mean(), r"gives \(\) for 2 images; expected \(2, …\)"),
        (lambda x: x.flatten().reshape(3, -1), r"gives \(3, 2048\) for 2 images"),
        (lambda x: x.mean((2, 3)) / 0, "NaN or infinity"),
        (lambda x: x.mean((2, 3)) + torch.rand(1), "another stands beside it, or at a second time"),
        (lambda x: x.mean((2, 3)) - x.mean(), "another stands beside it"),
    ],
)
def test_a_module_that_gives_no_features_of_each_image_alone_is_refused(function, message):
    with pytest.raises(UsageError, match=message):
        own_backbone(Returns(function), RULE)


@pytest.mark.parametrize("backbone", [nn.Linear, lambda x: x, 3])
def test_what_is_no_module_is_refused(backbone):
    with pytest.raises(UsageError, match=r"expected a name or a torch\.nn\.Module"):
        own_backbone(backbone, RULE)


def test_a_module_that_can_not_be_copied_is_refused():
    module = Small()
    module.buffer = (x for x in ())  # a generator
    with pytest.raises(UsageError, match="can't be copied"):
        own_backbone(module, RULE)


def test_the_fingerprint_is_the_same_for_the_same_network_whatever_the_threads():
    module, threads = Small().eval(), torch.get_num_threads()
    first = fingerprint(module, 32)
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        again = fingerprint(copy.deepcopy(module), 32)
    finally:
        torch.set_num_threads(threads)
    check_fingerprint("Small", first, again)


@pytest.mark.parametrize("change", ["code", "weights", "size"])
def test_the_fingerprint_tells_other_code_other_weights_and_another_size_apart(change):
    module, size = Small().eval(), 32
    first = fingerprint(module, size)
    if change == "code":
        module = Small(slope=0.2).eval()  # all tensors are equal
    elif change == "weights":
        with torch.no_grad():
            module.stem[0].weight *= 1.1
    else:
        size = 40
    with pytest.raises(RefusedFile, match=r"'Small'.*same code"):
        check_fingerprint("Small", first, fingerprint(module, size))


@pytest.mark.parametrize("expected", [[], [1.0], [1.0, 0.5, 0.2]])
def test_a_fingerprint_of_another_length_is_refused(expected):
    with pytest.raises(RefusedFile):
        check_fingerprint("Small", expected, [1.0, 0.5])


# A trunk of an own backbone, and the model folder's half of it

CHOICE = Choice("torch", "float32")


def pixels(count=3, size=32):
    return np.random.default_rng(2).integers(0, 256, (count, size, size, 3), np.uint8)


def normalised(images):
    scaled = (images / 255 - np.array(RULE["mean"])) / np.array(RULE["std"])
    return torch.from_numpy(scaled.transpose(0, 3, 1, 2).astype(np.float32))


def trunk_of(module, **choices):
    return build(NetworkOptions(backbone=own_backbone(module, RULE), **choices), CHOICE)


def reopened(trunk, module):
    """The trunk as from a model folder: its description through JSON, its tensors, and the module beside it."""
    return restore(json.loads(json.dumps(trunk.describe())), trunk.tensors, CHOICE, own=module)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_features_are_the_modules_own(engine):
    pytest.importorskip(engine)
    trunk = build(NetworkOptions(backbone=own_backbone(Small(), RULE)), Choice(engine, "float32"))
    with torch.no_grad():
        expected = Small().eval()(normalised(pixels())).numpy()
    np.testing.assert_allclose(Runner(trunk)(pixels()), expected, rtol=1e-4, atol=1e-5)
    assert trunk.output_shape == (8,)


def test_a_map_at_a_cut_becomes_its_mean():
    module = Small().eval()
    trunk = trunk_of(module, cut="stem")
    with torch.no_grad():
        expected = module.stem(normalised(pixels())).mean((2, 3)).numpy()
    np.testing.assert_allclose(Runner(trunk)(pixels()), expected, rtol=1e-4, atol=1e-5)


def test_the_digest_knows_the_weights_and_the_code():
    other = Small()
    with torch.no_grad():
        other.stem[0].weight *= 2
    digests = [trunk_of(module).digest for module in (Small(), Small(), other, Small(slope=0.2))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_another_size_is_given_as_for_any_backbone():
    assert trunk_of(Small(), size=48).preprocess.size == 48
    with pytest.raises(UsageError, match="--size is 1; expected at least"):
        trunk_of(Returns(lambda x: torch.nn.functional.max_pool2d(x, 16).mean((2, 3))), size=1)


def test_weights_beside_an_own_backbone_are_refused():
    with pytest.raises(UsageError, match="'Small' is a module of your own, which has its weights"):
        trunk_of(Small(), weights="random")


def test_a_trunk_is_opened_again_with_a_module_of_the_same_code_whatever_its_weights():
    trained, fresh = Small(), Small()
    with torch.no_grad():
        trained.stem[0].weight *= 2
    before = copy.deepcopy(fresh.state_dict())
    trunk = trunk_of(trained)
    again = reopened(trunk, fresh)
    assert again.digest == trunk.digest
    np.testing.assert_array_equal(Runner(again)(pixels()), Runner(trunk)(pixels()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, r"'Small' is a module of its maker's own.*regraft\.load\(folder, backbone=module\)"),
        (Small(slope=0.2), "gives other features"),
        (Small(width=4), "stem.0.weight"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 8)), "None of the"),
    ],
    ids=["none", "other code", "other width", "another module"],
)
def test_a_trunk_is_not_opened_without_its_module_or_with_another(module, message):
    with pytest.raises(RefusedFile, match=message):
        assert reopened(trunk_of(Small()), module).module


def test_a_module_beside_a_network_of_the_catalogue_is_refused():
    trunk = build(NetworkOptions(backbone="test_resnet", weights="random", size=64), CHOICE)
    with pytest.raises(RefusedFile, match="backbone is test_resnet, no module of your own"):
        reopened(trunk, Small())


def test_the_network_above_the_cut_is_a_tail_and_comes_back():
    trunk, tail = build_with_tail(
        NetworkOptions(backbone=own_backbone(Small(), RULE), cut="stem"), CHOICE, TailOptions(tail=True)
    )
    with torch.no_grad():
        expected = Small().eval()(normalised(pixels()))
        maps = torch.from_numpy(Runner(trunk)(pixels()))
        torch.testing.assert_close(tail.module.eval()(maps), expected, rtol=1e-4, atol=1e-5)
    tensors = tail.network.tensors()
    again = restore_tail(reopened(trunk, Small()), tail.end, tail.pool, tail.output_shape, lambda: tensors)
    with torch.no_grad():
        assert torch.equal(again.module.eval()(maps), tail.module.eval()(maps))
