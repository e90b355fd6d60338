"""Edited model folders and weights files by the thousand: each opens, or is refused in words, with its checksums right.

A folder's description is changed as JSON, value by value, and its files byte by byte, tensor by tensor; the checksums
are written again, so that nothing but what the files say can be refused. Seeds are fixed.
"""

from __future__ import annotations

import collections
import copy
import hashlib
import io
import json
import pickle
import random
import shutil
import struct

import numpy as np
import pytest
import safetensors.numpy
import torch
from tests.conftest import PLAIN
from tests.data.sources.test_fuzz import with_changed_bytes

import regraft
from regraft.core.errors import RegraftError
from regraft.model import folder as folders
from regraft.model.model import load
from regraft.network import catalog, weights
from regraft.network.trunk import Choice
from regraft.pipeline.report import model_page

ROUNDS = 1_000  # weights of each kind, and
FOLDERS = 500  # of each kind of model
PAGES = 5  # of so many folders one has its page made, which takes longest
CHOICE = Choice(**PLAIN)
VALUES = (0, -1, 1, 2, 0.5, 10**9, 10**30, 1e300, float("nan"), float("inf"), True, False, None, "", "x", "224", [], {})
VALUES += ([1], {"a": 1}, "../../x", "\x1b[31m", ["a", "a"], [None], "crop", "linear", "mlp", "softmax", "\ud800", 3.7)


def leaves(value, path=()):
    """Yield the path of each value of nested JSON, of those that hold others too."""
    yield path
    for name in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from leaves(value[name], (*path, name))


def changed(description, rng):
    """Replace, remove, repeat or rename some of the values."""
    description = copy.deepcopy(description)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        *path, last = rng.choice([path for path in leaves(description) if path] or [("x",)])
        holder = description
        for name in path:
            holder = holder[name]
        match rng.randrange(6):
            case 0:
                del holder[last]
            case 1 if isinstance(holder, dict):
                holder["x" + str(last)] = holder.pop(last)
            case 2 if isinstance(holder, list):
                holder.insert(last, holder[last])
            case 3 if isinstance(holder[last], int | float):
                holder[last] = -holder[last] * rng.choice((1, 2, 1000, 1e9)) + rng.choice((0, 1))
            case _:
                holder[last] = copy.deepcopy(rng.choice(VALUES))
    return description


def tensor_file(tensors, rng):
    """The tensors, some of them of another shape, type, value or name; or the header of the file changed as JSON."""
    tensors = dict(tensors)
    for name in rng.sample(list(tensors), min(len(tensors), rng.choice((0, 1, 1, 2)))):
        tensor = tensors.pop(name)
        match rng.randrange(6):
            case 0:
                tensors["x" + name] = tensor
            case 1:
                tensors[name] = tensor.reshape(-1)[: rng.randrange(tensor.size + 1)]
            case 2:
                tensors[name] = np.full_like(tensor, rng.choice((0, 1, 100)))
            case 3 if tensor.dtype.kind == "f":
                tensors[name] = np.full_like(tensor, rng.choice((np.nan, np.inf, 1e38)))
            case 4:
                tensors[name] = tensor.astype(rng.choice(("f8", "i8", "u1", "f2", "?")))
            case 5:
                tensors[name] = tensor[None]
    data = safetensors.numpy.save({name: np.array(tensor, order="C") for name, tensor in tensors.items()})
    if rng.random() < 0.3:
        length = struct.unpack("<Q", data[:8])[0]
        header = json.dumps(changed(json.loads(data[8 : 8 + length]), rng)).encode("utf-8", "replace")
        data = struct.pack("<Q", rng.choice((len(header), len(header), 2**63, 0))) + header + data[8 + length :]
    return with_changed_bytes(data, rng) if rng.random() < 0.2 else data


def sign(folder):
    names = [path for path in folder.iterdir() if path.name != folders.SUMS]
    sums = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in names)
    (folder / folders.SUMS).write_text(sums)


def outcome_of(action):
    """Return "accepted" or "refused"; anything but an error of the tree is an error here."""
    try:
        action()
    except RegraftError as error:
        assert str(error)
        return "refused"
    return "accepted"


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """Models of each kind: a linear head, and a tail with an mlp."""
    made = tmp_path_factory.mktemp("trained")
    small = {**PLAIN, "backbone": "test_resnet", "weights": "random", "size": 64, "views": 0}
    regraft.train(photos, made / "linear", **small)
    regraft.train(photos, made / "tail", **small, cut="layer2", tail=True, head="mlp", epochs=1, tail_epochs=1)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "tail"])
def test_an_edited_model_folder_opens_and_answers_or_is_refused_in_words(trained, photos, tmp_path, kind, capsys):
    original, folder = trained / kind, tmp_path / "model"
    description = json.loads((original / folders.DESCRIPTION).read_bytes())
    tensors = {name: dict(safetensors.numpy.load_file(original / name)) for name in (folders.NETWORK, folders.HEAD)}
    rng, counts = random.Random(kind), collections.Counter()
    photo = photos / "red" / "000.png"

    def use():
        model = load(folder, CHOICE)
        if number % PAGES == 0:
            model_page(model)
        regraft.predict(model, photo, store=tmp_path / "store")
        model.save(tmp_path / "saved", overwrite=True)

    for number in range(FOLDERS):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, folder)
        name = rng.choice((folders.DESCRIPTION,) * 6 + (folders.NETWORK, folders.HEAD, folders.HEAD, folders.IMAGES))
        if name == folders.DESCRIPTION:
            data = json.dumps(changed(description, rng)).encode("utf-8", "replace")
        elif name == folders.IMAGES:
            data = with_changed_bytes((original / name).read_bytes(), rng)
        else:
            data = tensor_file(tensors[name], rng)
        (folder / name).write_bytes(data)
        sign(folder)
        try:
            counts[outcome_of(use)] += 1
        except Exception as error:
            raise AssertionError(f"round {number} of {kind}, {name}: {data[:3000]!r}") from error
    with capsys.disabled():
        print(f"\nmodel folders, {kind}: {FOLDERS:,}; {dict(counts)}")
    assert min(counts.values()) > FOLDERS / 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "pth", "folder"])
def test_a_weights_file_is_loaded_or_refused_in_words(tmp_path, kind, capsys):
    backbone = catalog.find("test_resnet")
    state = {name: tensor.numpy() for name, tensor in catalog.build("test_resnet").state_dict().items()}
    config = {"architecture": "test_resnet", "num_classes": 0, "model_args": {"layers": [1, 1, 1, 1]}}
    config["pretrained_cfg"] = {"input_size": [3, 64, 64], "crop_pct": 0.9, "mean": [0.5] * 3, "std": [0.5] * 3}
    config["pretrained_cfg"] |= {"interpolation": "bicubic", "crop_mode": "center", "license": "mit"}
    rng, counts = random.Random(kind), collections.Counter()
    for number in range(ROUNDS):
        where = tmp_path / f"weights.{kind}"
        if kind == "folder":
            where.mkdir(exist_ok=True)
            (where / "model.safetensors").write_bytes(
                tensor_file(state, rng) if rng.random() < 0.3 else safetensors.numpy.save(state)
            )
            data = json.dumps(changed(config, rng)).encode("utf-8", "replace")
            (where / "config.json").write_bytes(data)
        else:
            data = tensor_file(state, rng) if kind == "safetensors" else pickled(state, rng)
            where.write_bytes(data)

        def use():
            loaded = weights.load(str(where), backbone)  # noqa: B023
            architecture = weights.file.architecture(where) or "test_resnet"  # noqa: B023
            weights.fill(catalog.build(architecture, loaded.model_args), loaded.tensors)

        try:
            counts[outcome_of(use)] += 1
        except Exception as error:
            raise AssertionError(f"round {number} of {kind}: {data[:3000]!r}") from error
    with capsys.disabled():
        print(f"\nweights, {kind}: {ROUNDS:,}; {dict(counts)}")
    assert min(counts.values()) > ROUNDS / 100


def pickled(state, rng):
    """A .pth as torch writes it, or something else in its place, with changed bytes or not."""
    content = {name: torch.from_numpy(np.array(tensor)) for name, tensor in state.items()}
    match rng.randrange(8):
        case 0:
            content = {"state_dict": content}
        case 1:
            content = rng.choice((list(content.values()), 3, "x", {}, {"model": 3}, {1: 2}, {"state_dict": {}}, None))
        case 2:
            return pickle.dumps(rng.choice((print, {"a": np.zeros(3)}, [1], b"x" * 100)))
        case 3:
            content[rng.choice(list(content))] = rng.choice((3, None, torch.zeros(0), torch.zeros(3, dtype=torch.int8)))
        case 4:
            content[rng.choice(list(content))] = torch.zeros(2, 2).to_sparse()
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.7)
    return with_changed_bytes(file.getvalue(), rng) if rng.random() < 0.5 else file.getvalue()
