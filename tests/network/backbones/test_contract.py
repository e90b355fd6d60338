import pytest
import torch

from regraft.core import plugins
from regraft.network import backbones, catalog
from regraft.network.keras import padding
from regraft.network.workaround_torchvision_nms import import_timm

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


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_the_network_builds_and_has_the_facts_that_are_written_down(entry):
    facts = entry.facts
    network = network_on_meta(entry.name)
    assert not network.training
    assert network(torch.empty(2, 3, facts.size, facts.size, device="meta")).shape == (2, facts.width)
    assert sum(parameter.numel() for parameter in network.parameters()) == facts.parameters


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_the_facts_of_the_pretrained_weights_are_timms(entry):
    config, facts = import_timm().models.get_pretrained_cfg(entry.timm_name), entry.facts
    assert config.input_size == (3, facts.size, facts.size)
    assert config.license == facts.licence
    assert (config.hf_hub_id or config.url) == (facts.hub or facts.url)
    assert config.hf_hub_filename is None


KERAS = [entry for entry in ENTRIES if entry.keras]
KERAS_NAMES = [entry.name for entry in KERAS]


def layers_of(name):
    return {layer.name: layer for layer in catalog.find(name).layers}


@pytest.mark.parametrize("entry", KERAS, ids=KERAS_NAMES)
def test_every_layers_path_is_a_module_of_the_network_and_every_weight_one_of_its_tensors(entry):
    with torch.device("meta"):
        network = catalog.build(entry, {"keras": "top"}, num_classes=10)
    paths = {path for path, _ in network.named_modules()} | {"input", "pooled", ""}
    assert {layer.path for layer in entry.layers} <= paths
    names = [name for layer in entry.layers for name in layer.tensors]
    gammas = (
        {name for name in network.state_dict() if name.endswith("bn.weight")} if "inception" in entry.name else set()
    )
    counters = {name for name in network.state_dict() if name.endswith("num_batches_tracked")}
    assert len(names) == len(set(names))
    assert set(names) == set(network.state_dict()) - counters - gammas


@pytest.mark.parametrize("entry", KERAS, ids=KERAS_NAMES)
def test_a_layer_comes_after_those_that_it_takes(entry):
    seen = set()
    for layer in entry.layers:
        assert set(layer.inputs) <= seen
        seen.add(layer.name)


# `len(model.layers)` without and with the top, in Keras 3.
COUNTS = {
    "inception_v3": (311, 313),
    "vgg16": (19, 23),
    "vgg19": (22, 26),
    "xception": (132, 134),
    "resnet50": (175, 177),
    "mobilenet": (86, 91),
    "mobilenet_v2": (154, 156),
}


@pytest.mark.parametrize("name", COUNTS)
def test_there_are_as_many_layers_as_in_keras(name):
    layers = catalog.find(name).layers
    assert (sum(not layer.top for layer in layers), len(layers)) == COUNTS[name]


def test_inceptions_known_layers_have_the_shapes_that_keras_prints():
    shapes, layers = output_shapes("inception_v3", 299), layers_of("inception_v3")
    assert {name: shapes[layers[name].path] for name in INCEPTION_V3} == {
        name: (1, channels, side, side) for name, (channels, side) in INCEPTION_V3.items()
    }


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vggs_known_layers_have_the_shapes_that_keras_prints(name):
    shapes, layers = output_shapes(name, 224), layers_of(name)
    pools = {layer: shapes[layers[layer].path] for layer in VGG_POOLS}
    assert pools == {layer: (1, channels, side, side) for layer, (channels, side) in VGG_POOLS.items()}
    for layer in VGG_CONVOLUTIONS[name]:
        channels, side = VGG_POOLS[layer.partition("_")[0] + "_pool"]
        assert shapes[layers[layer].path] == (1, channels, 2 * side, 2 * side)


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_vggs_convolutions_are_taken_after_their_relu_as_in_keras(name):
    network = network_on_meta(name)
    for layer in VGG_CONVOLUTIONS[name]:
        number = int(layers_of(name)[layer].path.removeprefix("features."))
        assert isinstance(network.features[number], torch.nn.ReLU)
        assert isinstance(network.features[number - 1], torch.nn.Conv2d)


# Sides of an image, and of what a 3x3 window that moves by two makes of it. Source: tf.nn's "same" is ⌈side / 2⌉.
@pytest.mark.parametrize("side", [6, 7])
def test_same_padding_sees_the_pixels_that_tensorflows_does(side):
    image = torch.rand(1, 1, side, side)
    before = side % 2  # an even side is padded at its end only
    zeros = torch.zeros(1, 1, side + before + 1, side + before + 1)
    zeros[..., before : before + side, before : before + side] = image
    convolution = padding.SameConv2d(1, 1, 3, stride=2, padding=1, bias=False)
    pool = padding.SameMaxPool2d(3, 2, 1)
    windows = zeros.unfold(2, 3, 2).unfold(3, 3, 2)  # (1, 1, ⌈side / 2⌉, ⌈side / 2⌉, 3, 3)
    torch.testing.assert_close(convolution(image), torch.einsum("nchwij,ocij->nohw", windows, convolution.weight))
    torch.testing.assert_close(pool(image), windows.amax((4, 5)))  # of values above 0, so that a zero never wins


def test_a_mean_at_the_edge_counts_the_pixels_only():
    image = torch.rand(1, 2, 5, 5)
    convolution = padding.EdgeConv2d(2, 3, 1, bias=False)
    counted = torch.nn.functional.avg_pool2d(image, 3, 1, 1)
    pixels = torch.nn.functional.avg_pool2d(image, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(convolution(counted), torch.nn.functional.conv2d(pixels, convolution.weight))
