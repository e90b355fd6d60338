import json
import zipfile

import numpy as np
import pytest
import torch

from regraft.core.errors import RefusedFile, UsageError, WeightsMissing
from regraft.network import catalog, weights
from regraft.network.keras import weights as keras
from regraft.network.weights import file

h5py = pytest.importorskip("h5py")

BACKBONE = catalog.find("mobilenet")
PREFIXES = {  # how Keras counts the classes of layers that have weights
    "Conv2D": "conv2d",
    "DepthwiseConv2D": "depthwise_conv2d",
    "BatchNormalization": "batch_normalization",
}


def keras_arrays(top, classes=7):
    """Random weights by layer, in Keras's shapes; written down from MobileNet's paper, table 1, by hand."""
    rng = np.random.default_rng(0)
    widths = [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    shapes_by_layer = {"conv1": [(3, 3, 3, 32)], "conv1_bn": [(32,)] * 4}
    for number, (before, after) in enumerate(zip([32, *widths], widths, strict=False), start=1):
        shapes_by_layer |= {
            f"conv_dw_{number}": [(3, 3, before, 1)],
            f"conv_dw_{number}_bn": [(before,)] * 4,
            f"conv_pw_{number}": [(1, 1, before, after)],
            f"conv_pw_{number}_bn": [(after,)] * 4,
        }
    if top:
        shapes_by_layer["conv_preds"] = [(1, 1, 1024, classes), (classes,)]
    return {name: [rng.random(shape, np.float32) for shape in shapes] for name, shapes in shapes_by_layer.items()}


def kind_of(name):
    return "BatchNormalization" if name.endswith("bn") else "DepthwiseConv2D" if "_dw_" in name else "Conv2D"


def write_legacy(path, arrays, group=""):
    with h5py.File(path, "w") as root:
        where = root.create_group(group) if group else root
        where.attrs["layer_names"] = [b"input_1", *(name.encode() for name in arrays)]
        where.create_group("input_1").attrs["weight_names"] = np.array([], "S1")
        for name, values in arrays.items():
            layer = where.create_group(name)
            layer.attrs["weight_names"] = [f"{name}/{number}:0".encode() for number in range(len(values))]
            for number, value in enumerate(values):
                layer[f"{name}/{number}:0"] = value


def write_counted(path, arrays):
    counts = {}
    with h5py.File(path, "w") as root:
        root.create_group("layers/input_layer")
        for name, values in arrays.items():
            key = PREFIXES[kind_of(name)]
            number = counts[key] = counts.get(key, -1) + 1
            for position, value in enumerate(values):
                root[f"layers/{key}{f'_{number}' if number else ''}/vars/{position}"] = value


def description(top):
    """A .keras file's description of MobileNet's layers, as far as it is read."""
    layers = [layer for layer in BACKBONE.layers if top or not layer.top]
    rows = [{"class_name": layer.kind, "registered_name": None, "config": {"name": layer.name}} for layer in layers]
    for layer in rows:
        if layer["class_name"] == "BatchNormalization":
            layer["config"]["epsilon"] = 0.001
    return rows


def write_keras(path, arrays, layers=None, **members):
    write_counted(path.with_suffix(".part"), arrays)
    rows = description("conv_preds" in arrays) if layers is None else layers
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_suffix(".part"), "model.weights.h5")
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": rows}}))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


WRITERS = {
    "w.h5": write_legacy,
    "w.hdf5": lambda path, arrays: write_legacy(path, arrays, "model_weights"),
    "w.weights.h5": write_counted,
    "w.keras": write_keras,
}


@pytest.mark.parametrize("top", [False, True], ids=["without top", "with top"])
@pytest.mark.parametrize("name", WRITERS)
def test_each_layout_gives_the_networks_tensors(name, top, tmp_path):
    arrays = keras_arrays(top)
    WRITERS[name](tmp_path / name, arrays)
    loaded = weights.load(str(tmp_path / name), BACKBONE)
    assert (loaded.source, loaded.model_args) == ("keras", {"keras": "top" if top else "notop"})
    network = catalog.build(BACKBONE, loaded.model_args, num_classes=7 if top else 0)
    weights.fill(network, loaded.tensors)
    stem, norm = arrays["conv1"][0], arrays["conv_dw_2_bn"]
    assert np.array_equal(network.conv_stem.weight.detach()[5, 1], stem[:, :, 1, 5])
    depthwise, pointwise = arrays["conv_dw_2"][0], arrays["conv_pw_2"][0]
    block = network.blocks[1][0]
    assert np.array_equal(block.conv_dw.weight.detach()[9, 0], depthwise[:, :, 9, 0])
    assert np.array_equal(block.conv_pw.weight.detach()[9, 8, 0, 0], pointwise[0, 0, 8, 9])
    ours = (block.bn1.weight.detach(), block.bn1.bias.detach(), block.bn1.running_mean, block.bn1.running_var)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(ours, norm, strict=True))
    if top:
        assert np.array_equal(network.classifier.weight.detach(), arrays["conv_preds"][0][0, 0].T)


@pytest.mark.parametrize("name", WRITERS)
def test_the_architecture_is_recognised_by_the_files_layers(name, tmp_path):
    WRITERS[name](tmp_path / name, keras_arrays(top=False))
    assert file.architecture(tmp_path / name) == "mobilenetv1_100"


# `preprocess_input` in its two modes, worked out by hand for a pixel of red 200, green 100, blue 50.
@pytest.mark.parametrize(
    ("name", "expected"),
    [("mobilenet", [200 / 127.5 - 1, 100 / 127.5 - 1, 50 / 127.5 - 1]), ("vgg16", [76.32, -16.779, -53.939])],
)
def test_preprocessing_is_keras_own(name, expected):
    mean, std = keras._MODES[catalog.find(name).keras.mode]
    values = (np.array([200, 100, 50]) / 255 - mean) / std
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def refuse(path, match, backbone=BACKBONE):
    with pytest.raises(RefusedFile, match=match):
        weights.load(str(path), backbone)


def test_a_lambda_layer_is_refused_and_not_run(tmp_path):
    layers = description(top=False)
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAAAAAAA"}}
    layers.insert(3, {"class_name": "Lambda", "registered_name": None, "config": {"function": code}})
    refuse(write_keras(tmp_path / "w.keras", keras_arrays(top=False), layers), "class 'Lambda'")


def test_a_class_of_the_users_own_is_refused(tmp_path):
    layers = description(top=False)
    layers[1]["registered_name"] = "mine>Conv2D"
    refuse(write_keras(tmp_path / "w.keras", keras_arrays(top=False), layers), "'conv1'")


@pytest.mark.parametrize(("number", "setting"), [(2, {"epsilon": 0.1}), (1, {"strides": [1, 1]})])
def test_another_setting_than_keras_own_is_refused(number, setting, tmp_path):
    layers = description(top=False)
    layers[number]["config"] |= setting
    refuse(write_keras(tmp_path / "w.keras", keras_arrays(top=False), layers), next(iter(setting)))


def test_a_function_as_an_activation_is_refused(tmp_path):
    layers = description(top=False)
    layers[1]["config"]["activation"] = {"class_name": "function", "config": "os.system"}
    refuse(write_keras(tmp_path / "w.keras", keras_arrays(top=False), layers), "activation")


def test_a_keras_file_with_anything_else_in_it_is_refused(tmp_path):
    refuse(write_keras(tmp_path / "w.keras", keras_arrays(top=False), **{"run.py": "1"}), "'run.py'")


def write_with_link(path, arrays):
    write_counted(path.with_suffix(".other"), arrays)
    write_counted(path, arrays)
    with h5py.File(path, "r+") as root:
        del root["layers/conv2d/vars/0"]
        root["layers/conv2d/vars/0"] = h5py.ExternalLink(str(path.with_suffix(".other")), "/layers/conv2d/vars/0")


def with_array(value):
    def write(path, arrays):
        write_counted(path, {**arrays, "conv1": [value]})

    return write


DAMAGE = {
    "a link to another file": (write_with_link, "link"),
    "no file of this kind": (lambda path, arrays: path.write_bytes(b"nothing"), "can't be read"),
    "not a number": (with_array(np.full((3, 3, 3, 32), np.nan, np.float32)), "NaN"),
    "integers": (with_array(np.zeros((3, 3, 3, 32), np.int64)), "floating"),
    "another shape": (with_array(np.zeros((3, 3, 3, 16), np.float32)), r"\(3, 3, 3, 16\).*\(3, 3, 3, 32\)"),
    "a layer too few": (lambda path, arrays: write_counted(path, dict(list(arrays.items())[:-1])), "has 'batch_norm"),
    "a layer too many": (
        lambda path, arrays: write_counted(path, {**arrays, **dict.fromkeys(("more", "most"), arrays["conv1"])}),
        "holds conv2d_15",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_file_with_something_wrong_is_refused(name, tmp_path):
    write, message = DAMAGE[name]
    write(tmp_path / "w.weights.h5", keras_arrays(top=False))
    refuse(tmp_path / "w.weights.h5", message)


def test_a_legacy_file_with_a_layer_too_many_is_refused(tmp_path):
    arrays = keras_arrays(top=False)
    write_legacy(tmp_path / "w.h5", {**arrays, "more": arrays["conv1"], "most": arrays["conv1"]})
    refuse(tmp_path / "w.h5", "layers with weights")


def test_a_legacy_file_of_another_session_is_matched_by_order(tmp_path):
    arrays = {f"layer_{number}": values for number, values in enumerate(keras_arrays(top=False).values())}
    write_legacy(tmp_path / "w.h5", arrays)
    loaded = weights.load(str(tmp_path / "w.h5"), BACKBONE)
    assert np.array_equal(loaded.tensors["conv_stem.weight"][5, 1], arrays["layer_0"][0][:, :, 1, 5])


def test_weights_of_another_network_are_refused_with_what_to_do(tmp_path):
    write_counted(tmp_path / "w.weights.h5", keras_arrays(top=False))
    refuse(tmp_path / "w.weights.h5", "--backbone", catalog.find("mobilenet_v2"))
    with pytest.raises(UsageError, match="expected one of inception_v3"):
        weights.load(str(tmp_path / "w.weights.h5"), catalog.find("efficientnet_lite0"))


def test_a_file_that_does_not_exist_is_missing(tmp_path):
    with pytest.raises(WeightsMissing, match="nowhere"):
        weights.load(str(tmp_path / "nowhere.keras"), BACKBONE)


def test_the_channels_are_reordered_for_networks_that_take_blue_first(tmp_path):
    rng = np.random.default_rng(0)
    arrays, before = {}, 3
    for block, (count, width) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        for number in range(1, count + 1):
            arrays[f"block{block}_conv{number}"] = [
                rng.random((3, 3, before, width), np.float32),
                rng.random(width, np.float32),
            ]
            before = width
    write_legacy(tmp_path / "w.h5", arrays)
    loaded = weights.load(str(tmp_path / "w.h5"), catalog.find("vgg16"))
    first = loaded.tensors["features.0.weight"]
    assert np.array_equal(first[7, 0], arrays["block1_conv1"][0][:, :, 2, 7])  # red is the last in Keras
    network = catalog.build("vgg16", loaded.model_args)
    weights.fill(network, loaded.tensors)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 512)  # VGG without its top, as `pooling="avg"` gives it
