"""The page of one prediction: the picture, and the labels with their probabilities."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from regraft.core.text import percent
from regraft.data.decode import BrokenImage, decode
from regraft.model.predict import Prediction
from regraft.report import pages
from regraft.report.pages import Section


def render(prediction: Prediction) -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    rows = [[label, percent(probability)] for label, probability in prediction.ranked]
    lead = prediction.label or prediction.error
    table = Section("Labels", rows=[["", "probability, %"], *rows])
    return pages.plain(prediction.path, lead, [Section("Picture", _picture(prediction.path)), table])


def _picture(path: str) -> str:
    """Return the picture as an address that holds it; "" if it can't be read from this path."""
    try:
        image = Image.fromarray(decode(Path(path).read_bytes(), min_side=pages.THUMBNAIL_SIDE))
    except (OSError, ValueError, BrokenImage):
        return ""
    return pages.data_uri(pages.thumbnail(image))
