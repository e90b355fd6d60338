"""A torch data set of an index sees each image as the network does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import PLAIN

import regraft
from regraft.core.errors import DataError

NETWORK = {"backbone": "test_resnet", "weights": "random", "size": 64}


def test_its_images_give_the_features_that_are_extracted(photos):
    index = regraft.split(regraft.read(photos))
    data = regraft.dataset(index, "train", **NETWORK)
    features = regraft.extract(index, views=0, **NETWORK, **PLAIN).part("train")
    body = features.trunk.module.body
    with torch.no_grad():
        images = torch.stack([image for image, _ in data])
        np.testing.assert_allclose(body(images).numpy(), np.asarray(features), atol=1e-5)
    assert [label for _, label in data] == features.labels(index.classes).tolist()


def test_a_loader_of_torchs_reads_it_in_batches(photos):
    loader = torch.utils.data.DataLoader(regraft.dataset(photos, **NETWORK), batch_size=8)
    shapes = [(tuple(images.shape), tuple(labels.shape)) for images, labels in loader]
    assert shapes == [((8, 3, 64, 64), (8,))] * 4 + [((4, 3, 64, 64), (4,))]


def test_labels_are_positions_among_all_classes_also_in_a_part_that_lacks_one(photos):
    index = regraft.split(regraft.read(photos))
    only_red = index.where(lambda row: row.part == "train" or row.label == "red")
    data = regraft.dataset(only_red, "test", **NETWORK)
    assert data.classes == ("blue", "green", "red") and {label for _, label in data} == {2}


def test_a_broken_image_is_named_when_it_is_read(tmp_path):
    for number in range(2):
        path = tmp_path / "a" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(path)
    (tmp_path / "a" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:-60])
    data = regraft.dataset(tmp_path, **NETWORK)
    assert data[0][0].shape == (3, 64, 64)
    with pytest.raises(DataError, match=r"a/1\.png can't be read"):
        data[1]
