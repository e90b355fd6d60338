from __future__ import annotations

import base64
import io
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import regraft
from regraft.report import pages, plots
from regraft.report.pages import chart, made, thumbnail


def test_every_page_of_the_folder_has_the_look_of_the_base():
    files = Path(pages.__file__).with_name("templates").glob("*.html")
    texts = [file.read_text("utf-8") for file in files if file.name not in ("base.html", "_parts.html")]
    assert texts
    assert all(text.startswith(('{% extends "base.html" %}', '{% extends "evaluation.html" %}')) for text in texts)


def test_a_chart_is_an_address_that_holds_it_drawn_for_a_wide_and_a_narrow_page():
    pictures = chart(partial(plots.class_counts, {"train": {"a": 3}}))
    widths = []
    for address in pictures:
        kind, data = address.split(";base64,")
        assert kind == "data:image/svg+xml"
        drawing = ElementTree.fromstring(base64.b64decode(data))
        assert drawing.tag.endswith("svg")
        widths.append(float(drawing.get("width").removesuffix("pt")))
    assert widths[0] > 600 > 350 > widths[1]


def test_what_draws_nothing_is_no_chart():
    assert chart(partial(plots.training_curves, [])) is None


def test_how_a_page_was_made_is_what_repeats_it():
    rows = made("regraft compare photos", "photos", seed=3)
    assert list(rows) == ["command", "data", "seed", "date", "made with"]
    assert (rows["command"], rows["seed"]) == ("regraft compare photos", "3")
    assert f"regraft {regraft.__version__}" in rows["made with"] and f"numpy {np.__version__}" in rows["made with"]
    assert list(made("", "")) == ["date", "made with"]


@pytest.mark.parametrize(("size", "small"), [((1600, 400), (480, 120)), ((300, 900), (160, 480)), ((8, 8), (8, 8))])
def test_a_thumbnail_is_small_and_the_image_stays(size, small):
    image = Image.new("RGB", size, (200, 30, 60))
    picture = Image.open(io.BytesIO(thumbnail(image)))
    assert (picture.format, picture.size, image.size) == ("WEBP", small, size)
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 60)).max() <= 6
