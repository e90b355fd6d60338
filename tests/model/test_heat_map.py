"""What an answer rests on: exact where the head is linear on pooled features, and another for another class."""

import dataclasses
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import COLOURS, PLAIN

import regraft
from regraft.model import heat_map
from regraft.network.preprocess import Preprocess

SMALL = {"backbone": "test_resnet", "weights": "random", "size": 64, "views": 0, **PLAIN}
TWO = {"backbone": "test_resnet@64+test_efficientnet@96"}
KINDS = {
    "pooled": {},
    "joined": TWO,
    "map": {"cut": "layer3"},
    "whole map": {"cut": "layer2", "pool": "none"},
    "sigmoid": {"loss": "sigmoid"},
    "mlp": {"head": "mlp", "epochs": 2},
    "tail": {"cut": "layer2", "tail": True, "tail_epochs": 1, "phases": "tail"},
    "class token": {"backbone": "test_vit", "size": 160},
}


@pytest.fixture(scope="module")
def models(photos, tmp_path_factory):
    """A model of each kind, trained once."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def model(kind):
        if kind not in made:
            paths = sorted(path for path in photos.glob("*/*.png") if kind != "sigmoid" or "red" not in str(path))
            index = regraft.split(regraft.read(paths, [path.parent.name for path in paths]), split="0.7/0.3")
            options = {**SMALL, **KINDS[kind], "store": folder / "store"}
            made[kind] = regraft.train(index, folder / kind, **options).model
        return made[kind]

    return model


def halves(left="blue", right="red", size=120):
    """A picture that is of one colour on the left, of another on the right."""
    noise = np.random.default_rng(5).integers(-30, 30, (size, size, 3))
    colours = np.repeat([COLOURS[left], COLOURS[right]], size // 2, axis=0)
    return (colours[None] + noise).clip(0, 255).astype(np.uint8)


def inputs(model, pixels):
    return [trunk.preprocess(pixels)[None] for trunk in model.trunks]


def logits(model, pixels):
    features = [
        trunk.module(torch.from_numpy(image)).numpy()
        for trunk, image in zip(model.trunks, inputs(model, pixels), strict=True)
    ]
    values = model.logits(model.runner.join(features))[0]
    return values if len(values) > 1 else [-values[0], values[0]]


@pytest.mark.parametrize("kind", ["pooled", "joined", "map", "whole map", "sigmoid", "tail"])
def test_the_mean_of_the_maps_of_a_linear_head_and_its_bias_are_the_logit_of_each_class(models, kind):
    model, pixels = models(kind), halves(right="green")
    for code, logit in enumerate(logits(model, pixels)):
        grids = heat_map.gradient_grids(model, inputs(model, pixels), code)
        assert (grids.method, len(grids.grids)) == (heat_map.ACTIVATION, len(model.trunks))
        assert min(min(grid.shape) for grid in grids.grids) > 1
        assert sum(grid.mean() for grid in grids.grids) + grids.bias == pytest.approx(logit, abs=1e-3)


def test_a_cell_is_the_networks_own_map_there_times_the_heads_weights(models):
    model, pixels = models("pooled"), halves()
    frozen, image = model.trunk.module, torch.from_numpy(inputs(model, pixels)[0])
    with torch.no_grad():
        last = frozen.body.forward_features(image.permute(0, 3, 1, 2).float() * frozen.scale + frozen.shift)[0].numpy()
    expected = np.einsum("chw,kc->khw", last, model.head_weights["1.weight"])
    for code in range(3):
        (grid,) = heat_map.gradient_grids(model, inputs(model, pixels), code).grids
        np.testing.assert_allclose(grid, expected[code], atol=1e-3 * np.abs(expected).max())


def test_a_head_that_is_not_linear_has_a_map_by_its_gradient(models):
    grids = heat_map.gradient_grids(models("mlp"), inputs(models("mlp"), halves()), 0)
    assert (grids.method, grids.bias) == (heat_map.GRADIENT, 0)


def test_where_only_a_class_token_is_read_parts_of_the_picture_are_covered(models):
    model, pixels = models("class token"), halves()
    assert heat_map.gradient_grids(model, inputs(model, pixels), 0) is None
    made = heat_map.heat_map(model, heat_map.see(model.trunks, pixels), "blue")
    assert made.method == heat_map.COVERING
    assert np.isfinite(made.values).all() and made.values.any()


def test_covering_finds_the_part_of_a_picture_that_the_answer_rests_on(models):
    model, pixels = models("pooled"), halves("blue", "blue")
    pixels[:60, 60:] = halves("red", "red")[:60, 60:]
    grid = heat_map.covering_grid(model, pixels, model.classes.index("red"))
    assert grid.shape == (8, 8)
    assert grid[:4, 4:].mean() > np.delete(grid.ravel(), [8 * y + x for y in range(4) for x in range(4, 8)]).mean()


@pytest.mark.parametrize("kind", ["pooled", "joined", "mlp"])
def test_another_class_or_random_weights_of_the_head_give_another_map(models, kind):
    model, seen = models(kind), heat_map.see(models(kind).trunks, halves())
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=array.shape).astype(np.float32) for name, array in model.head_weights.items()}
    first = heat_map.heat_map(model, seen, "blue").values
    random = dataclasses.replace(model, head_weights=weights)
    for other in (heat_map.heat_map(model, seen, "red").values, heat_map.heat_map(random, seen, "blue").values):
        assert np.corrcoef(first.ravel(), other.ravel())[0, 1] < 0.95


@pytest.mark.parametrize("shape", [(120, 120), (60, 180), (200, 90)])
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_a_map_lies_where_the_network_saw_it_on_the_photograph(resize, shape):
    rule = Preprocess(size=96, resize=resize, crop_share=0.8, interpolation="bilinear")
    edges = [np.linspace(0, 255, side + 1) for side in shape]
    down, across = ((edge[1:] + edge[:-1]) / 2 for edge in edges)
    pixels = np.stack(np.broadcast_arrays(down[:, None], across[None], 0), axis=2).round().astype(np.uint8)
    made, (top, left, bottom, right) = rule(pixels).astype(float), rule.window(*shape)
    at = (np.arange(96) + 0.5) / 96
    for axis, (start, end) in enumerate([(top, bottom), (left, right)]):
        positions = start + (end - start) * at
        inside = (positions > 0.02) & (positions < 0.98)
        line = made[:, 48, 0] if axis == 0 else made[48, :, 1]
        np.testing.assert_allclose(line[inside], 255 * positions[inside], atol=3)


def test_a_photograph_is_seen_small_and_the_map_has_its_shape(models):
    model = models("joined")
    seen = heat_map.see(model.trunks, np.zeros((900, 1800, 3), np.uint8))
    assert seen.small.shape == (240, 480, 3)
    assert heat_map.heat_map(model, seen, "red").values.shape == (48, 96)
    thin = heat_map.see(model.trunks, np.zeros((3, 4000, 3), np.uint8))
    assert heat_map.heat_map(model, thin, "red").values.shape == (1, 96)


def test_threads_that_share_a_model_have_the_maps_that_each_would_have_alone(models):
    model, labels = models("joined"), ["blue", "green", "red"] * 4
    seen = [
        heat_map.see(model.trunks, halves(*pair)) for pair in [("blue", "red"), ("green", "blue"), ("red", "green")]
    ]
    jobs = [(model, seen[number % 3], label) for number, label in enumerate(labels)]
    expected = [heat_map.heat_map(*job).values for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda job: heat_map.heat_map(*job).values, jobs))
    for one, other in zip(made, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif("REGRAFT_DATA" not in os.environ, reason="REGRAFT_DATA names no folder of photographs")
@pytest.mark.parametrize("photographs", ["cats-dogs/validation", "pokemon"])
def test_of_real_pictures_of_two_halves_nine_in_ten_maps_fall_on_the_right_half(photographs, tmp_path):
    folder = Path(os.environ["REGRAFT_DATA"]) / photographs
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    report = regraft.train(folder, tmp_path / "model", split="0.7/0.3", preset="fast")
    rows, rng, right = report.index.used.rows, np.random.default_rng(0), []
    for _ in range(30):
        one, other = rng.choice(report.model.classes, 2, replace=False)
        pictures = [rng.choice([row for row in rows if row.label == label]) for label in (one, other)]
        opened = [Image.open(row.location.path).convert("RGBA").convert("RGB") for row in pictures]
        middles = [image.resize((384, 384)).crop((96, 0, 288, 384)) for image in opened]
        seen = heat_map.see(report.model.trunks, np.concatenate(middles, axis=1))
        for side, label in enumerate([one, other]):
            values = np.maximum(heat_map.heat_map(report.model, seen, str(label)).values, 0)
            masses = [half.sum() for half in np.array_split(values, 2, axis=1)]
            right.append(masses[side] > masses[1 - side])
    assert np.mean(right) >= 0.9
