"""The page of one prediction: the picture, and the labels with their probabilities."""

from __future__ import annotations

from pathlib import Path

from regraft.core.text import percent
from regraft.data.index import Row
from regraft.data.sources.folder import FileLocation
from regraft.model.predict import Prediction
from regraft.report import pages
from regraft.report.pages import Photo, Section


def render(prediction: Prediction, command: str = "") -> str:
    """Return the page as the text of one HTML file, to be written as UTF-8."""
    rows = [[label, percent(probability)] for label, probability in prediction.ranked]
    lead = prediction.label or prediction.error
    if prediction.unknown:
        lead = f"unknown: unlike the training images; most likely of the classes: {prediction.label}"
    picture = pages.thumbnail_of(Row(path=prediction.path, location=FileLocation(prediction.path)))
    shown = [Photo(picture, Path(prediction.path).name)] if picture else []
    table = Section("Labels", rows=[["", "probability, %"], *rows])
    sections = [Section("Picture", photos=shown), table]
    return pages.plain(prediction.path, lead, sections, pages.made(command, prediction.path))
