from __future__ import annotations

import io
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from regraft.core.errors import DataError
from regraft.features import augmentation
from regraft.network.preprocess import Preprocess
from regraft.report import grids
from regraft.report.grids import Tile
from regraft.report.plots import STYLE


def photo(colour, height=30, width=40):
    return np.full((height, width, 3), colour, np.uint8)


def png(figure):
    data = io.BytesIO()
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def captions(figure):
    return [axes.get_xlabel().replace("\n", " ") for axes in figure.axes if axes.get_visible()]


def test_the_grid_shows_every_image_with_its_caption_row_by_row():
    tiles = [Tile(photo(10 * number), f"image {number}") for number in range(8)]
    figure = grids.grid(tiles, columns=3)
    assert captions(figure) == [f"image {number}" for number in range(8)]
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert [image[0, 0, 0] for image in shown] == [10 * number for number in range(8)]
    assert [axes.get_visible() for axes in figure.axes] == [True] * 8 + [False]


def test_the_wrong_ones_are_marked_by_a_cross_and_a_frame_not_by_colour_alone():
    right, wrong = grids.grid([Tile(photo(1), "cat"), Tile(photo(2), "dog", wrong=True)]).axes
    assert (right.get_xlabel(), wrong.get_xlabel()) == ("cat", "\N{BALLOT X} dog")
    assert not any(spine.get_visible() for spine in right.spines.values())
    assert all(spine.get_visible() and spine.get_linewidth() == 3 for spine in wrong.spines.values())


def test_predictions_have_the_class_and_the_percentage_and_if_wrong_the_label():
    probabilities = np.array([[0.987, 0.013], [0.25, 0.75], [0.9999, 0.0001]])
    tiles = grids.predictions([photo(0)] * 3, probabilities, [0, 0, 0], ["cat", "dog"])
    assert [tile.caption for tile in tiles] == ["cat 98.7 %", "dog 75.0 %, labelled cat", "cat 99.9 %"]
    assert [tile.wrong for tile in tiles] == [False, True, False]


def test_what_the_network_sees_is_the_image_then_the_views_it_is_trained_on():
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    preprocess = Preprocess(size=32)
    views = augmentation.wanted(3, "standard", 7, [])
    clean, *drawn = grids.inputs("cat", pixels, preprocess, "some id", views)
    assert (clean.caption, [tile.caption for tile in drawn]) == ("cat", ["view 1", "view 2", "view 3"])
    assert np.array_equal(clean.image, preprocess(pixels))
    for tile, image in zip(drawn, augmentation.draw_views(pixels, preprocess, "some id", views), strict=True):
        assert np.array_equal(tile.image, image)
    assert augmentation.find("standard") == views[0].augmentation
    assert len(grids.inputs("cat", pixels, preprocess, "some id")) == 1


def test_a_sample_is_drawn_from_the_seed_without_repeats():
    assert grids.sample(1000, 24, seed=0) == grids.sample(1000, 24, seed=0) != grids.sample(1000, 24, seed=1)
    assert len(set(grids.sample(1000, 24, seed=0))) == 24
    assert grids.sample(5, 24, seed=0) == [0, 1, 2, 3, 4]
    assert grids.sample(0, 24, seed=0) == []
    drawn = np.bincount(np.concatenate([grids.sample(10, 3, seed) for seed in range(500)]), minlength=10)
    assert (np.abs(drawn - 150) < 50).all()  # each of ten about as often as another


def test_a_long_or_odd_caption_is_cut_to_what_fits():
    odd = "bell\x07 " + "very long name of a class " * 20
    [axes] = grids.grid([Tile(photo(0), odd)]).axes
    assert axes.get_xlabel().count("\n") <= 2
    assert len(axes.get_xlabel()) < 80
    assert "\x07" not in axes.get_xlabel()


@pytest.mark.parametrize("caption", ["猫", "$x^{$", "", "a" * 300])
def test_a_grid_becomes_a_png_whatever_the_captions(caption):
    data = png(grids.grid([Tile(photo(0), caption), Tile(photo(9, 300, 20), caption, wrong=True)]))
    assert Image.open(io.BytesIO(data)).format == "PNG"


def test_the_same_tiles_give_the_same_file():
    tiles = [Tile(photo(3), "a"), Tile(photo(9), "b", wrong=True)]
    assert png(grids.grid(tiles)) == png(grids.grid(tiles))


def test_no_tiles_are_refused_in_words():
    with pytest.raises(DataError, match="no photographs to show"):
        grids.grid([])
