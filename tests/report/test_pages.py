from __future__ import annotations

import base64
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from regraft.report import pages, plots
from regraft.report.pages import picture, thumbnail


def test_every_page_of_the_folder_has_the_look_of_the_base():
    files = Path(pages.__file__).with_name("templates").glob("*.html")
    texts = [file.read_text("utf-8") for file in files if file.name != "base.html"]
    assert texts
    assert all(text.startswith(('{% extends "base.html" %}', '{% extends "evaluation.html" %}')) for text in texts)


def test_a_figure_becomes_an_address_that_holds_it():
    kind, data = picture(plots.class_counts({"train": {"a": 3}})).split(";base64,")
    assert kind == "data:image/svg+xml"
    assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")


@pytest.mark.parametrize(("size", "small"), [((1600, 400), (160, 40)), ((300, 900), (53, 160)), ((8, 8), (8, 8))])
def test_a_thumbnail_is_small_and_the_image_stays(size, small):
    image = Image.new("RGB", size, (200, 30, 60))
    picture = Image.open(io.BytesIO(thumbnail(image)))
    assert (picture.format, picture.size, image.size) == ("JPEG", small, size)
    assert np.abs(np.asarray(picture).astype(int) - (200, 30, 60)).max() <= 3
