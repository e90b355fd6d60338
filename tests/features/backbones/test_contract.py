import pytest
import torch

from regraft.core import plugins
from regraft.features import backbones, catalog

FAMILIES = plugins.names(backbones)
ENTRIES = [entry for family in FAMILIES for entry in plugins.load(backbones, family).BACKBONES]
NAMES = [entry.name for entry in ENTRIES]

# Channels and side of each layer's output, as `keras.applications` prints them in a model's summary.
INCEPTION_V3 = {
    **{f"mixed{n}": (c, 35) for n, c in enumerate((256, 288, 288))},
    **{f"mixed{n}": (768, 17) for n in range(3, 8)},
    **{f"mixed{n}": (c, 8) for n, c in ((8, 1280), (9, 2048), (10, 2048))},
}
VGG_POOLS = {f"block{n}_pool": (c, 224 // 2**n) for n, c in enumerate((64, 128, 256, 512, 512), 1)}
VGG_CONVOLUTIONS = {
    "vgg16": [f"block{b}_conv{n}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, count + 1)],
    "vgg19": [f"block{b}_conv{n}" for b, count in enumerate((2, 2, 4, 4, 4), 1) for n in range(1, count + 1)],
}


def network_on_meta(name):
    with torch.device("meta"):
        return catalog.build(name)


def output_shapes(name, side):
    """The shape of the output of each module of the network, by its path."""
    network, shapes = network_on_meta(name), {}
    for path, module in network.named_modules():
        module.register_forward_hook(
            lambda _module, _inputs, output, path=path: shapes.__setitem__(path, tuple(output.shape))
        )
    network(torch.empty(1, 3, side, side, device="meta"))
    return shapes


def test_the_families_are_the_ones_that_the_project_is_named_for():
    assert sorted(NAMES) == [
        *(f"efficientnet_lite{number}" for number in range(3)),
        "inception_v3",
        "mobilenet",
        "mobilenet_v2",
        "resnet50",
        "vgg16",
        "vgg19",
        "xception",
    ]


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_the_common_name_and_timms_name_find_the_same_entry(entry):
    assert catalog.find(entry.name) == entry
    by_timm = catalog.find(entry.architecture)
    assert (by_timm.architecture, by_timm.layers, by_timm.package) == (entry.architecture, entry.layers, entry.package)


@pytest.fixture(scope="module")
def listed():
    return {row["name"]: row for row in catalog.listing()}


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_the_network_builds_and_ends_in_features_as_wide_as_listed(entry, listed):
    row = listed[entry.name]
    side = int(row["input"].partition("x")[0])
    network = network_on_meta(entry.name)
    assert not network.training
    assert network(torch.empty(2, 3, side, side, device="meta")).shape == (2, row["width"])
    assert sum(parameter.numel() for parameter in network.parameters()) == row["parameters"]


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_every_known_layer_is_a_module_of_the_network(entry):
    paths = [path for path, _ in network_on_meta(entry.name).named_modules()]
    assert set(entry.layers.values()) <= set(paths)
    places = [paths.index(path) for path in entry.layers.values()]
    assert places == sorted(set(places))


def test_inceptions_known_layers_have_the_shapes_that_keras_prints():
    shapes, layers = output_shapes("inception_v3", 299), catalog.find("inception_v3").layers
    assert {name: shapes[path] for name, path in layers.items()} == {
        name: (1, channels, side, side) for name, (channels, side) in INCEPTION_V3.items()
    }


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vggs_known_layers_have_the_shapes_that_keras_prints(name):
    shapes, layers = output_shapes(name, 224), catalog.find(name).layers
    pools = {layer: shapes[layers[layer]] for layer in VGG_POOLS}
    assert pools == {layer: (1, channels, side, side) for layer, (channels, side) in VGG_POOLS.items()}
    assert set(layers) == {*VGG_POOLS, *VGG_CONVOLUTIONS[name]}
    for layer in VGG_CONVOLUTIONS[name]:
        channels, side = VGG_POOLS[layer.partition("_")[0] + "_pool"]
        assert shapes[layers[layer]] == (1, channels, 2 * side, 2 * side)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vggs_convolutions_are_taken_after_their_relu_as_in_keras(name):
    network = network_on_meta(name)
    for layer in VGG_CONVOLUTIONS[name]:
        place = int(catalog.find(name).layers[layer].removeprefix("features."))
        assert isinstance(network.features[place], torch.nn.ReLU)
        assert isinstance(network.features[place - 1], torch.nn.Conv2d)
