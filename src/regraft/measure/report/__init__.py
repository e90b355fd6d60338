"""The report: one HTML file that opens anywhere, offline, and needs nothing beside it.

A `Page` enters (what is to be shown, read and counted already), the text of
the file leaves. The layout is in `report.html`; the pictures are drawn in
`curves`. Choosing the images is left to `serve/evaluate`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import jinja2
from PIL import Image

from regraft.measure import curves
from regraft.measure.metrics import Evaluation, most_confused, percent

THUMBNAIL_SIDE = 160  # pixels
MATRIX_CLASSES = 30  # the confusion matrix is readable up to here; the pairs mixed up most stand in any report
LISTED_FILES = 50
LISTED_PAIRS = 10


class Mistake(NamedTuple):
    """One image that was classified wrong."""

    path: str
    thumbnail: bytes | None  # JPEG or PNG, see `thumbnail`; None if there is no picture to show
    true: str
    predicted: str
    probability: float  # of the predicted class


class LeftOut(NamedTuple):
    """One file that was not used."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a report shows; what is empty is left out of it."""

    title: str
    evaluation: Evaluation
    part: str  # what was evaluated, e.g. "test part"
    notes: Sequence[str] = ()  # what a reader of the number must know, e.g. that the model was trained on these images
    made: Mapping[str, str] = field(default_factory=dict)  # how the model was made: name → value, in order
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # part → class → images
    history: Sequence[Mapping[str, Any]] = ()  # rows as `graft.history` gives them
    mistakes: Sequence[Mistake] = ()  # the surest first
    broken: Sequence[LeftOut] = ()
    ignored: Sequence[LeftOut] = ()


def render(page: Page) -> str:
    """Return the report as the text of one HTML file, to be written as UTF-8."""
    learning = curves.learning_curves(page.history)
    html = _template().render(
        page=page,
        evaluation=page.evaluation,
        always_largest=max(scores["n"] for scores in page.evaluation.per_class.values()) / page.evaluation.n,
        confused=most_confused(page.evaluation, LISTED_PAIRS),
        counts=_picture(curves.class_counts(page.counts)) if page.counts else "",
        learning=_picture(learning) if learning else "",
        confusion=_picture(curves.confusion_matrix(page.evaluation)) if _has_matrix(page.evaluation) else "",
        listed_files=LISTED_FILES,
    )
    return html.encode("utf-8", "replace").decode("utf-8")  # a file's name need not be valid text


def thumbnail(image: Image.Image) -> bytes:
    """Return an RGB image as a small JPEG, 160 pixels on its longer side at most; the image stays as it is."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    data = io.BytesIO()
    small.save(data, format="JPEG", quality=80)
    return data.getvalue()


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "data_uri": _data_uri}
    return environment.from_string(files(__name__).joinpath("report.html").read_text(encoding="utf-8"))


def _has_matrix(evaluation: Evaluation) -> bool:
    return len(evaluation.classes) <= MATRIX_CLASSES


def _picture(figure: Any) -> str:
    return _data_uri(curves.svg(figure).encode())


def _data_uri(data: bytes) -> str:
    """Return the picture as an address that holds the picture itself; in an <img>, its ids and styles stay its own."""
    kinds = {b"\x89PN": "png", b"\xff\xd8\xff": "jpeg"}
    return f"data:image/{kinds.get(data[:3], 'svg+xml')};base64,{base64.b64encode(data).decode()}"
