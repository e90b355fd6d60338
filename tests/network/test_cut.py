import numpy as np
import pytest
import torch
from torch import nn

from regraft.core.errors import UnknownName, UsageError
from regraft.network import catalog
from regraft.network.backbones import Layer
from regraft.network.cut import find_cut, list_cuts, take_mean

NETWORKS = {  # one of each kind, small, with the size at which it is tried
    "convnext_atto": 64,
    "densenet121": 64,
    "inception_v3": 96,
    "legacy_xception": 80,
    "mobilenetv2_035": 64,
    "mobilenetv3_small_050": 64,
    "regnetx_002": 64,
    "resnet10t": 64,
    "test_vit": 160,
    "tf_efficientnet_lite0": 64,
}


def network(name, seed=1):
    """A network with random weights, its BatchNorm statistics too."""
    built = catalog.build(name, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for buffer_name, buffer in built.named_buffers():
        if buffer_name.endswith(("running_mean", "running_var")):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return built


def images(count, size, seed=0):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETWORKS)
def test_tail_of_trunk_is_the_network_bit_for_bit(name):
    whole, x = network(name), images(2, NETWORKS[name])
    cuts = list_cuts(whole)
    chosen = [cuts[round(number)] for number in np.linspace(0, len(cuts) - 1, 5)]
    with torch.no_grad():
        expected = whole(x)
        for cut in [find_cut(whole, path) for path in ("input", *chosen, "pooled")]:
            assert torch.equal(cut.tail(cut.trunk(x)), expected), cut.name


@pytest.mark.parametrize("name", NETWORKS)
def test_trunk_gives_what_the_module_at_the_cut_gives_inside_the_network(name):
    whole, x = network(name), images(1, NETWORKS[name])
    path = list_cuts(whole)[-4]
    seen = []
    whole.get_submodule(path).register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        whole(x)
        assert torch.equal(find_cut(whole, path).trunk(x), seen[0])


@pytest.mark.parametrize("name", ["resnet10t", "test_vit", "swin_tiny_patch4_window7_224"])
def test_trunk_and_tail_hold_the_networks_tensors_under_their_names_and_share_them(name):
    whole = network(name)
    path = list_cuts(whole)[len(list_cuts(whole)) // 2]
    cut, own = find_cut(whole, path), whole.state_dict()
    below, above = cut.trunk.state_dict(), cut.tail.state_dict()
    assert below.keys() | above.keys() == own.keys()
    assert not below.keys() & above.keys()
    assert all(tensor.data_ptr() == own[key].data_ptr() for key, tensor in {**below, **above}.items())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(self.layer(x))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)

    def forward(self, x):
        return x + self.second(self.act(self.first(x)))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.join = nn.Linear(6, 3), nn.Linear(6, 3), nn.Identity()

    def forward(self, x):
        return self.join(torch.cat([self.left(x), self.right(x)], 1))


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.ones(6))

    def forward(self):
        return self.value * 2


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        x = self.layer(x)
        return x, x + 1


class Small(nn.Module):
    """A network with every trap: residuals, branches, an unused head, a constant, a pair, a layer used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.Tanh())
        self.blocks = nn.Sequential(Residual(), Branches(), Residual())
        self.constant, self.pair, self.auxiliary, self.twice = Constant(), Pair(), nn.Linear(6, 6), Twice()
        self.unused, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x):
        x = self.blocks(self.stem(x)) + self.constant()
        self.auxiliary(x)
        first, second = self.pair(x)
        return self.norm(self.twice(first + second))


class Drawn(nn.Module):
    """A network drawn at random: each layer takes the sum of some of the earlier ones."""

    def __init__(self, seed):
        super().__init__()
        rng = np.random.default_rng(seed)
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(10))
        self.sources = [
            sorted(rng.choice(layer + 1, min(layer + 1, 1 + rng.binomial(2, 0.2)), replace=False, p=_late(layer + 1)))
            for layer in range(10)
        ]

    def forward(self, x):
        values = [x.flatten(1)[:, :6]]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            values.append(torch.tanh(layer(sum(values[source] for source in sources))))
        return values[-1]


def _late(count):
    weights = np.arange(1, count + 1) ** 3
    return weights / weights.sum()


def draw(seed):
    torch.manual_seed(seed)
    return (Small() if seed == 0 else Drawn(seed)).double().eval()


def dominates_the_output(whole, path):
    """Found by trying: with the module's output held fixed, the image changes nothing; without, it does."""
    x, other = images(1, 2, seed=1).double(), images(1, 2, seed=2).double()
    if len(calls(whole, path, x)) != 1 or not isinstance(calls(whole, path, x)[0], torch.Tensor):
        return False
    held = calls(whole, path, images(1, 2, seed=3).double())[0]
    handle = whole.get_submodule(path).register_forward_hook(lambda module, inputs, output: held)
    with torch.no_grad():
        fixed = torch.equal(whole(x), whole(other))
    handle.remove()
    return fixed and not torch.equal(whole(x), whole(other))


def calls(whole, path, x):
    """Return what the calls of the module at `path` return."""
    seen = []
    handle = whole.get_submodule(path).register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        whole(x)
    handle.remove()
    return seen


def is_cut(whole, path):
    try:
        find_cut(whole, path)
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("seed", range(12))
def test_a_module_is_a_cut_if_and_only_if_holding_its_output_fixed_hides_the_image(seed):
    whole = draw(seed)
    paths = [path for path, _ in whole.named_modules() if path]
    cuts = {path: is_cut(whole, path) for path in paths}
    assert cuts == {path: dominates_the_output(whole, path) for path in paths}
    assert set(cuts.values()) == {True, False}


@pytest.mark.parametrize("seed", range(12))
def test_the_listed_cuts_all_work_and_miss_none(seed):
    whole, x = draw(seed), images(2, 2).double()
    listed = list_cuts(whole)
    expected = [p for p, part in whole.named_modules() if p and dominates_the_output(whole, p)]
    outputs = {p: calls(whole, p, x)[0] for p in expected}
    assert set(listed) <= set(expected)
    for path in expected:
        assert any(torch.equal(outputs[path], outputs[other]) for other in listed), path


def test_cuts_are_listed_from_the_input_up():
    stem = ["conv1.0", "conv1.1", "conv1.2", "conv1.3", "conv1.4", "conv1.5", "conv1", "bn1", "act1", "maxpool"]
    blocks = ["layer1", "layer2", "layer3", "layer4", "global_pool.pool", "global_pool"]
    assert list_cuts(network("resnet10t")) == stem + blocks


@pytest.mark.parametrize(
    ("path", "reason", "nearest"),
    [
        ("blocks.0.second", "goes round it", "blocks.0"),
        ("blocks.1.left", "goes round it", "blocks.1"),
        ("auxiliary", "not used", "pair.layer"),
        ("constant", "does not depend on the image", "blocks"),
        ("pair", "more than one tensor", "pair.layer"),
        ("twice.layer", "2 times", "twice"),
        ("unused", "no output of its own", "stem.0"),
    ],
)
def test_a_refused_cut_says_why_and_names_one_that_works(path, reason, nearest):
    whole = draw(0)
    with pytest.raises(UsageError, match=reason) as refused:
        find_cut(whole, path)
    named = str(refused.value).split("nearest cut that works is '")[1].split("'")[0]
    assert dominates_the_output(whole, named)
    assert named == nearest


def test_a_cut_inside_what_is_left_whole_names_the_block_around_it():
    with pytest.raises(UsageError, match=r"nearest cut that works is 'bn1'"):
        find_cut(network("mobilenetv2_035"), "bn1.act")


def test_an_unknown_cut_names_near_ones_and_how_to_list_them():
    with pytest.raises(UnknownName, match=r"'layer4'.*`regraft backbones resnet10t --cuts`"):
        find_cut(network("resnet10t"), "layer_4")


def test_known_names_are_tried_first():
    whole = network("resnet10t")
    assert find_cut(whole, "deep", (Layer(name="deep", path="layer3"),)).name == "layer3"
    assert find_cut(whole, "layer1", (Layer(name="layer1", path="layer2"),)).name == "layer2"


def test_two_paths_with_one_output_give_the_cut_one_name():
    whole = network("resnet10t")
    assert find_cut(whole, "layer3.0").name == find_cut(whole, "layer3").name == "layer3"


class Untraceable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 6)

    def forward(self, x):
        return self.layer(x.flatten(1) if x.sum() > 0 else -x.flatten(1))


def test_a_network_that_fx_can_not_trace_is_cut_at_its_ends_only():
    whole, x = Untraceable().eval(), images(1, 2)
    for name in ("pooled", "input"):
        cut = find_cut(whole, name)
        assert torch.equal(cut.tail(cut.trunk(x)), whole(x))
    with pytest.raises(UsageError, match="'pooled' or 'input'"):
        find_cut(whole, "layer")


def test_the_tail_does_not_change_the_features_it_is_given():
    whole = network("resnet10t")
    cut = find_cut(whole, "bn1")  # an in-place ReLU comes next
    features = cut.trunk(images(1, 64)).detach()
    before = features.clone()
    cut.tail(features)
    assert whole.act1.inplace
    assert torch.equal(features, before)


def test_batchnorm_in_the_tail_learns_its_statistics_in_training_mode():
    whole = network("mobilenetv2_035")  # its BatchNorm is timm's own class, with the activation inside
    cut = find_cut(whole, "blocks.4")
    before = cut.tail.state_dict()["bn2.running_mean"].clone()
    cut.tail.train()(cut.trunk(images(4, 64)).detach())
    assert not torch.equal(cut.tail.state_dict()["bn2.running_mean"], before)


@pytest.mark.parametrize("name", ["input", "layer1", "layer2"])
def test_a_tail_that_ends_at_a_layer_gives_that_layers_output(name):
    whole, x, seen = network("resnet10t"), images(2, 64), []
    whole.layer3.register_forward_hook(lambda module, inputs, output: seen.append(output))
    whole(x)
    cut = find_cut(whole, name, end="layer3")
    assert (cut.name, cut.end) == (name, "layer3")
    assert torch.equal(cut.tail(cut.trunk(x)), seen[0])
    assert not any(path.startswith("layer4") for path in cut.tail.state_dict())


def test_the_end_takes_the_names_that_a_cut_takes():
    entry = catalog.find("inception_v3")
    cut = find_cut(catalog.build(entry), "mixed4", entry.layers, end="mixed7")
    assert (cut.name, cut.end) == ("Mixed_6b", "Mixed_6e")
    assert find_cut(network("resnet10t"), "layer1", end="pooled").end is None


def test_the_mean_can_be_taken_where_a_tail_ends_and_its_weights_keep_their_names():
    cut = find_cut(network("resnet10t"), "layer2", end="layer3")
    features, before = cut.trunk(images(2, 64)), dict(cut.tail.named_parameters())
    expected = cut.tail(features).mean((2, 3))
    take_mean(cut.tail, (2, 3))
    assert torch.equal(cut.tail(features), expected)
    assert [*dict(cut.tail.named_parameters())] == [*before]


@pytest.mark.parametrize(("name", "end"), [("layer3", "layer3"), ("layer3", "layer2"), ("pooled", "layer2")])
def test_a_cut_that_is_not_below_the_end_is_refused(name, end):
    with pytest.raises(UsageError, match=f"'{name}' is not below the end '{end}'"):
        find_cut(network("resnet10t"), name, end=end)


def test_an_end_that_is_no_layer_is_refused_as_a_cut_is():
    with pytest.raises(UnknownName, match="layer3"):
        find_cut(network("resnet10t"), "layer1", end="layer_3")
