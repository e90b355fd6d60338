import json
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from regraft.core.errors import RefusedFile, WeightsMissing
from regraft.network import catalog, weights
from regraft.network.weights import file
from regraft.network.workaround_torchvision_nms import import_timm

BACKBONE = catalog.find("test_resnet")


@pytest.fixture(scope="module")
def tensors():
    return dict(catalog.build(BACKBONE, num_classes=10, seed=1).state_dict())


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


WRITERS = {
    "w.safetensors": save_file,
    "w.pth": torch.save,
    "w.pt": lambda tensors, path: torch.save({"state_dict": tensors, "epoch": 3}, path),
    "w.bin": lambda tensors, path: torch.save({"model": tensors}, path),
    "module.pth": lambda tensors, path: torch.save({f"module.{name}": t for name, t in tensors.items()}, path),
    "parameters.pth": lambda tensors, path: torch.save(
        {n: torch.nn.Parameter(t) if t.is_floating_point() else t for n, t in tensors.items()}, path
    ),
    "old.pth": lambda tensors, path: torch.save(tensors, path, _use_new_zipfile_serialization=False),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_was_written_is_read_back(name, tensors, tmp_path):
    WRITERS[name](tensors, tmp_path / name)
    loaded = weights.load(str(tmp_path / name), BACKBONE)
    assert same(loaded.tensors, tensors)
    assert not any(tensor.requires_grad for tensor in loaded.tensors.values())
    assert (loaded.source, loaded.path) == ("file", str(tmp_path / name))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(kind, tensors, tmp_path):
    path = tmp_path / "half.safetensors"
    save_file(
        {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, path
    )
    loaded = file.read(path)
    assert all(t.dtype == (torch.float32 if t.is_floating_point() else torch.int64) for t in loaded.values())
    assert torch.equal(loaded["conv1.0.weight"], tensors["conv1.0.weight"].to(kind).float())


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("it-ran",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("new.pth", "w") as archive:
        archive.writestr("new/data.pkl", pickle.dumps(RunsCode(), protocol))
        archive.writestr("new/version", "3\n")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(RunsCode(), protocol))
    for name in ("new.pth", "plain.pth"):
        with pytest.raises(RefusedFile, match=name):
            file.read(tmp_path / name)
    assert not (tmp_path / "it-ran").exists()


def test_a_whole_pickled_network_is_refused_by_the_name_of_its_code(tmp_path):
    torch.save(catalog.build(BACKBONE), tmp_path / "network.pth")
    with pytest.raises(RefusedFile, match=r"would run code \(timm\.models\.resnet\.ResNet\)"):
        file.read(tmp_path / "network.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pth"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(name, share, tensors, tmp_path):
    path = tmp_path / name
    WRITERS[name](tensors, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RefusedFile, match=name):
            file.read(path)


@pytest.mark.parametrize("name", ["page.pth", "page.safetensors", "page.bin"])
def test_a_web_page_saved_under_the_files_name_is_refused(name, tmp_path):
    (tmp_path / name).write_text("<!DOCTYPE html><html>Not found</html>" * 50)
    with pytest.raises(RefusedFile, match=name):
        file.read(tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.zeros(2)}, {}, {"a": {"b": torch.zeros(1)}}, 7])
def test_what_is_not_tensors_by_name_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(RefusedFile, match=r"odd\.pth holds"):
        file.read(tmp_path / "odd.pth")


def test_sparse_tensors_are_refused(tmp_path):
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(RefusedFile, match="dense"):
        file.read(tmp_path / "sparse.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(value, tensors, tmp_path):
    broken = tensors | {"conv1.0.weight": torch.full_like(tensors["conv1.0.weight"], value)}
    save_file(broken, tmp_path / "nan.safetensors")
    with pytest.raises(RefusedFile, match=r"NaN or infinite values in conv1\.0\.weight"):
        file.read(tmp_path / "nan.safetensors")


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    (tmp_path / "weights.zip").write_bytes(b"PK")
    with pytest.raises(RefusedFile, match=r"weights\.zip is of an unknown kind; expected \.safetensors, \.pth"):
        weights.load(str(tmp_path / "weights.zip"), BACKBONE)


@pytest.fixture
def folder(tmp_path):
    """A folder as timm itself writes it, with preprocessing and arguments that are not the defaults."""
    model = import_timm().create_model("test_resnet", num_classes=3, output_stride=16)
    config = {
        "model_args": {"output_stride": 16},
        "pretrained_cfg": {"input_size": (3, 96, 96), "crop_pct": 0.9, "crop_mode": "squash", "license": "mit"},
    }
    import_timm().models.save_for_hf(model, tmp_path / "saved", model_config=config, safe_serialization=True)
    torch.save(model.state_dict(), tmp_path / "expected.pth")
    return tmp_path / "saved"


def test_a_folder_that_timm_wrote_gives_its_tensors_arguments_and_preprocessing(folder):
    loaded = weights.load(str(folder), BACKBONE)
    assert file.architecture(folder) == "test_resnet"
    assert loaded.model_args == {"output_stride": 16, "global_pool": "avg", "in_chans": 3}  # timm adds two
    rule = loaded.preprocess
    assert (rule.size, rule.crop_share, rule.resize) == (96, 0.9, "squash")
    assert loaded.licence == "mit"
    assert same(loaded.tensors, torch.load(folder.parent / "expected.pth", weights_only=True))


def test_the_network_of_a_folder_gives_timms_own_features(folder):
    loaded = weights.load(str(folder), BACKBONE)
    ours = catalog.build(BACKBONE, loaded.model_args)
    weights.fill(ours, loaded.tensors)
    theirs = import_timm().create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("name", ["pretrained", "checkpoint_path", "pretrained_cfg_overlay", "features_only"])
def test_model_arguments_that_make_timm_fetch_read_or_wrap_are_refused(folder, name):
    rewrite(folder, model_args={name: "/etc/passwd"})
    with pytest.raises(RefusedFile, match=name):
        weights.load(str(folder), BACKBONE)


def test_a_folder_for_another_number_of_channels_is_refused(folder):
    rewrite(folder, model_args={"in_chans": 1})
    with pytest.raises(RefusedFile, match="1 channels"):
        weights.load(str(folder), BACKBONE)


def test_a_folder_of_an_architecture_that_timm_does_not_know_is_refused(folder):
    rewrite(folder, architecture="resnet_of_my_own")
    with pytest.raises(RefusedFile, match="resnet_of_my_own"):
        file.architecture(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_mode": "spiral"},
        {"std": [0, 0, 0]},
        {"std": "wide"},
        {"input_size": [3, 64]},
        {"input_size": [3, "a", "a"]},
        {"interpolation": 3},
        {"mean": [0.5, None, 0.5]},
        {"crop_pct": "most"},
    ],
)
def test_invalid_preprocessing_is_refused(folder, changes):
    rewrite(folder, pretrained_cfg=json.loads((folder / "config.json").read_text())["pretrained_cfg"] | changes)
    with pytest.raises(RefusedFile, match="preprocessing"):
        weights.load(str(folder), BACKBONE)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "{", "{}", '{"architecture": 3}', '{"architecture": "test_resnet", "model_args": 3}', "[" * 99999],
)
def test_a_config_that_describes_no_model_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(RefusedFile, match=r"config\.json"):
        weights.load(str(folder), BACKBONE)


def test_a_config_that_is_not_utf8_is_refused(folder):
    (folder / "config.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(RefusedFile, match=r"config\.json"):
        weights.load(str(folder), BACKBONE)


def test_a_folder_without_one_of_its_files_says_which(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=r"model\.safetensors"):
        weights.load(str(folder), BACKBONE)
    (folder / "config.json").unlink()
    with pytest.raises(RefusedFile, match=r"no config\.json"):
        weights.load(str(folder), BACKBONE)


def test_only_folders_name_their_architecture(tmp_path):
    assert file.architecture(tmp_path / "weights.pth") is None
