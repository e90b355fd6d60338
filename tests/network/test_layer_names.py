import pytest
import torch

from regraft.core.errors import UnknownName, UsageError
from regraft.network import catalog, cut
from regraft.network.graph import trace
from regraft.network.layer_names import path_of


@pytest.fixture(scope="module")
def graphs():
    traced = {}

    def graph(name):
        if name not in traced:
            with torch.device("meta"):
                traced[name] = trace(catalog.build(name))
        return traced[name]

    return graph


def path_at(graphs, backbone, name):
    return path_of(graphs(backbone), name, catalog.find(backbone).layers)


# By what timm calls what follows in its source.
@pytest.mark.parametrize(
    ("backbone", "name", "path"),
    [
        ("inception_v3", "mixed0", "Mixed_5b"),
        ("inception_v3", "mixed10", "Mixed_7c"),
        ("vgg16", "block4_pool", "features.23"),
        ("vgg19", "block4_pool", "features.27"),
        ("xception", "block14_sepconv2_act", "act4"),
        ("resnet50", "conv4_block6_out", "layer3.5"),
        ("mobilenet", "conv_pw_13_relu", "blocks.4.1"),
        ("mobilenet_v2", "block_16_project", "blocks.6.0.conv_pwl"),
        ("mobilenet_v2", "block_2_add", "blocks.1.1"),
        ("inception_v3", "avg_pool", "pooled"),
        ("inception_v3", "input_layer", "input"),
    ],
)
def test_keras_names_are_known(graphs, backbone, name, path):
    assert path_at(graphs, backbone, name) == path


# 249 is from Keras's own guide to fine-tuning InceptionV3: it "freezes the first 249 layers", the top two blocks stay.
@pytest.mark.parametrize(
    ("count", "path"),
    [("249", "Mixed_7a"), ("229", "Mixed_6e"), ("-62", "Mixed_7a"), ("0", "input"), ("311", "Mixed_7c")],
)
def test_a_count_freezes_so_many_of_keras_layers(graphs, count, path):
    assert path_at(graphs, "inception_v3", count) == path


@pytest.mark.parametrize("backbone", ["inception_v3", "resnet50", "xception", "mobilenet_v2"])
def test_below_the_cut_of_a_count_are_the_weights_of_just_so_many_layers(graphs, backbone):
    graph, layers = graphs(backbone), catalog.find(backbone).layers
    names = {name for name, _ in graph.network.named_parameters()}
    checked = 0
    for count in range(1, len(layers) - 1):
        try:
            path = path_of(graph, str(count), layers)
        except UsageError:
            continue
        if path in ("input", "pooled"):
            continue
        frozen = {name for layer in layers[:count] for name in layer.tensors} & names
        below = {name for name, _ in cut.find_cut(graph.network, path).trunk.named_parameters()}
        assert frozen == {
            name for name in below if name in frozen or not name.endswith("bn.weight")
        }  # some have no gamma
        checked += 1
        if checked == 12:
            return


def test_a_count_within_a_block_is_refused_with_the_nearest_that_work(graphs):
    with pytest.raises(UsageError, match=r"layers\[:30\].* 18 \(Pool2\) and 36 \(Mixed_5b\)"):
        path_at(graphs, "inception_v3", "30")


@pytest.mark.parametrize(("backbone", "count"), [("inception_v3", "400"), ("efficientnet_lite0", "10")])
def test_a_count_that_keras_does_not_have_is_refused(graphs, backbone, count):
    with pytest.raises(UsageError, match="counts Keras's layers"):
        path_at(graphs, backbone, count)


@pytest.mark.parametrize(
    ("backbone", "name", "nearest"),
    [
        ("inception_v3", "activation_20", "mixed1"),
        ("inception_v3", "batch_normalization_3", "activation_3"),
        ("inception_v3", "predictions", "avg_pool"),
        ("resnet50", "conv2_block1_add", "conv2_block1_out"),
        ("xception", "block3_sepconv1_act", "add"),
        ("vgg16", "fc1", "fc2"),
    ],
)
def test_a_layer_that_is_no_cut_is_refused_with_the_nearest_that_is(graphs, backbone, name, nearest):
    with pytest.raises(UsageError, match=f"nearest cut that works is '{nearest}'"):
        path_at(graphs, backbone, name)


def test_an_unknown_layer_is_answered_with_near_ones(graphs):
    with pytest.raises(UnknownName, match="'mixed7'"):
        path_at(graphs, "inception_v3", "mixed77")


# The blocks of each resolution, as the papers' tables have them.
@pytest.mark.parametrize(
    ("backbone", "name", "path"),
    [
        ("inception_v3", "top-1-stage", "Mixed_6e"),
        ("inception_v3", "top-2-stages", "Mixed_5d"),
        ("resnet50", "top-2-stages", "layer2"),
        ("resnet50", "top-5-stages", "input"),
        ("vgg16", "top-1-stage", "features.23"),
        ("xception", "top-1-stage", "block11"),
        ("efficientnet_lite0", "top-2-stages", "blocks.2"),
    ],
)
def test_depth_counts_stages_from_the_top(graphs, backbone, name, path):
    result = path_at(graphs, backbone, name)
    assert result == path or graphs(backbone).outputs[result] == graphs(backbone).outputs[path]


@pytest.mark.parametrize("name", ["top-0-stages", "top-6-stages"])
def test_more_stages_than_there_are_are_refused(graphs, name):
    with pytest.raises(UsageError, match="top-1-stage to top-5-stages"):
        path_at(graphs, "resnet50", name)


def test_the_list_of_cuts_has_names_shape_and_what_is_above():
    cuts = cut.named_cuts(catalog.find("resnet50"))
    assert next(iter(cuts)) == "input"
    assert list(cuts)[-1] == "pooled"
    assert (cuts["input"]["parameters_above"], cuts["input"]["computation_above"]) == (1, 1)
    assert (cuts["pooled"]["parameters_above"], cuts["pooled"]["computation_above"]) == (0, 0)
    third = cuts["layer3"]
    assert third["names"] == ["conv4_block6_out", "top-1-stage"]
    assert third["layers"] == 143
    assert third["shape"] == [1024, 14, 14]
    # He et al. 2015, table 1: three blocks of 1x1, 3x3, 1x1 and a projection, each with its batch normalisation
    blocks = 3 * (512 * 512 * 9 + 512 * 2048 + 2 * (512 + 512 + 2048)) + 1024 * 512 + 2 * 2048 * 512
    assert third["parameters_above"] == pytest.approx((blocks + 1024 * 2048 + 2 * 2048) / 23_508_032)
    multiplications = 7 * 7 * (3 * (512 * 512 * 9 + 512 * 2048) + 2 * 2048 * 512 + 1024 * 2048) + 14 * 14 * 1024 * 512
    assert third["computation_above"] == pytest.approx(multiplications / 4.0873e9, rel=1e-2)  # timm's count: 4.1 G
    assert "conv4_block6_out" in cut.text(cuts)
