"""Poses: fixed views, of which a prediction may be the mean."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from tests.conftest import PLAIN

import regraft
from regraft.core.errors import UsageError
from regraft.core.options import make
from regraft.data.decode import decode
from regraft.features.poses import draw_poses, poses
from regraft.network.preprocess import Preprocess
from regraft.pipeline.options import PredictOptions

RULE = Preprocess(size=48, resize="crop", crop_share=0.875, interpolation="bilinear")


def photo(seed=0, shape=(90, 130)):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def test_the_first_is_the_mirror_image_of_what_the_network_sees():
    (mirrored,) = draw_poses(photo(), RULE, poses(2))
    np.testing.assert_array_equal(mirrored, RULE(photo())[:, ::-1])
    assert mirrored.flags.c_contiguous


@pytest.mark.parametrize("rule", [RULE, dataclasses.replace(RULE, resize="squash", crop_share=1.0)])
def test_the_others_are_the_corners_of_a_larger_square_and_their_mirror_images(rule):
    ten = draw_poses(photo(), rule, poses(10))
    whole = dataclasses.replace(rule, size=55, crop_share=1.0)(photo())
    corners = [whole[:48, :48], whole[:48, 7:], whole[7:, :48], whole[7:, 7:]]
    assert len(ten) == 9
    for made, expected in zip(ten[1:], [*corners, *(corner[:, ::-1] for corner in corners)], strict=True):
        np.testing.assert_array_equal(made, expected)


def test_no_two_have_the_same_key_in_the_store():
    assert len({pose.key for pose in poses(10)}) == 9 and not poses(1)


@pytest.mark.parametrize("tta", [0, 11])
def test_another_number_is_refused(tta):
    with pytest.raises(UsageError, match="--tta"):
        make(PredictOptions, {"tta": tta})


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("poses")
    two = "test_resnet@64+test_efficientnet@48"
    options = {"backbone": two, "weights": "random", "views": 0, "split": "0.6/0.2/0.2", **PLAIN}
    return regraft.train(photos, folder / "model", **options, store=folder / "store").model, folder / "store"


def expected(model, pixels, tta):
    """The mean of the probabilities of each pose, by the whole module."""
    import torch

    each = [[trunk.preprocess(pixels), *draw_poses(pixels, trunk.preprocess, poses(tta))] for trunk in model.trunks]
    with torch.no_grad():
        return model.module(*(torch.from_numpy(np.stack(inputs)) for inputs in each)).numpy().mean(axis=0)


def test_a_prediction_is_the_mean_over_them_and_says_over_how_many(trained, photos):
    model, store = trained
    paths = sorted(photos.glob("*/00[0-2].png"))
    seen = regraft.predict(model, [*paths, photos / "none.png"], tta=3, top=3, store=store)
    assert seen[-1].status == "broken"
    for path, prediction in zip(paths, seen, strict=False):
        mean = expected(model, decode(path.read_bytes()), 3)
        by_class = dict(prediction.ranked)
        np.testing.assert_allclose([by_class[name] for name in model.classes], mean, atol=1e-5)
        assert json.loads(json.dumps(prediction.to_dict()))["tta"] == 3
    alone = regraft.predict(model, paths, top=3, store=store)
    assert "tta" not in alone[0].to_dict() and alone[0].novelty == pytest.approx(seen[0].novelty)


def test_an_evaluation_is_by_the_mean_over_them_and_says_so(trained, photos):
    model, store = trained
    report = regraft.evaluate(model, photos, tta=2, store=store)
    assert any("--tta" in note and "2 views" in note for note in report.notes) and "--tta" in report.html()
    paths = [row.location.path for row in report.index]
    again = regraft.predict(model, paths, tta=2, top=3, store=store)
    by_class = [[dict(each.ranked)[name] for name in model.classes] for each in again]
    np.testing.assert_allclose(report.probabilities, by_class, atol=1e-5)


def test_what_cross_validation_measured_is_given_as_it_was_and_says_so(photos, tmp_path):
    options = {"backbone": "test_efficientnet", "weights": "random", "size": 48, "views": 0, **PLAIN}
    before = regraft.train(photos, tmp_path / "model", **options, store=tmp_path / "store")
    report = regraft.evaluate(before.model, photos, tta=2, store=tmp_path / "store")
    np.testing.assert_array_equal(report.probabilities, before.probabilities)
    assert "--tta is left out" in report.text()


def test_a_mirrored_photograph_gets_the_same_answer_with_its_mirror_image(trained, photos, tmp_path):
    model, store = trained
    pixels = decode(sorted(photos.glob("*/*.png"))[0].read_bytes())
    Image.fromarray(pixels[:, ::-1]).save(tmp_path / "mirrored.png")
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    names = [tmp_path / "photo.png", tmp_path / "mirrored.png"]
    one, other = (dict(each.ranked) for each in regraft.predict(model, names, tta=2, top=3, store=store))
    assert one == pytest.approx(other, abs=1e-5)
