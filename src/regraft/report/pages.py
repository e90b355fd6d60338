"""The report: one HTML file that opens anywhere, offline, and needs nothing beside it.

A `Page` enters (what is to be shown, read and counted already), the text of
the file leaves. The layout is in `report.html`, and for images of several
labels in `multilabel.html`; the look of all pages is in `base.html`. The pictures
are drawn in `curves`, the course of the training is judged in `verdict`.
Choosing the images is left to `serve/page`.
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
from matplotlib.figure import Figure
from PIL import Image

from regraft.core.text import percent
from regraft.evaluation import diagnosis as verdict
from regraft.evaluation.metrics import Evaluation, most_confused
from regraft.evaluation.multilabel import MultilabelEvaluation
from regraft.report import plots
from regraft.report.grids import Tile
from regraft.training.history import History

THUMBNAIL_SIDE = 160  # pixels
MATRIX_CLASSES = 30  # the confusion matrix is readable up to here; the pairs mixed up most stand in any report
LISTED_FILES = 50
LISTED_PAIRS = 10

# The further measures: the field of Evaluation, its name, its unit, what it says.
MEASURES = (
    ("balanced_accuracy", "Balanced accuracy", "%", "mean recall of the classes, each counted alike"),
    ("top_5_accuracy", "Top-5 accuracy", "%", "how often the true class is among the five most probable"),
    ("cohen_kappa", "Cohen's kappa", "", "agreement beyond that of chance; 1 is perfect, 0 is chance"),
    ("matthews", "Matthews correlation", "", "correlation of labels and answers, from -1 to 1"),
    ("roc_auc", "ROC AUC", "", "how often an image of one class is ranked above one of the other"),
    ("brier", "Brier score", "", "mean squared error of the probabilities, from 0 to 2; 0 is best"),
    ("calibration_error", "Calibration error", "%", "how far the sureness is from the accuracy, in 15 bins; 0 is best"),
)


class Answer(NamedTuple):
    """What the model said of one image."""

    path: str
    thumbnail: bytes | None  # JPEG or PNG, see `thumbnail`; None if there is no picture to show
    true: str
    predicted: str
    probability: float | None  # of the predicted class; None where it has several labels

    @property
    def wrong(self) -> bool:
        """Whether the image is of another class."""
        return self.predicted != self.true


class Phase(NamedTuple):
    """One phase of the training, and what it brought."""

    name: str
    epochs: int  # 0 if it was solved in one go
    loss: float  # of the part that judges, as is the accuracy
    accuracy: float
    kept: bool  # whether its weights are the model's
    verdict: str = ""  # whether it helped, as `measure.paired` says it


class LeftOut(NamedTuple):
    """One file that was not used."""

    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a report shows; what is empty is left out of it."""

    title: str
    evaluation: Evaluation | MultilabelEvaluation
    part: str  # what was evaluated, e.g. "test part"
    notes: Sequence[str] = ()  # what a reader of the number must know, e.g. that the model was trained on these images
    made: Mapping[str, str] = field(default_factory=dict)  # how the model was made: name → value, in order
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # part → class → images
    history: Sequence[Mapping[str, Any]] = ()  # rows as `graft.history` gives them
    watch: plots.Watch = "loss"  # the measure that said which epoch is best
    phases: Sequence[Phase] = ()
    seen: Sequence[Tile] = ()  # what the network sees of some training images
    answers: Sequence[Answer] = ()  # to a sample of the images, drawn at random
    mistakes: Sequence[Answer] = ()  # the surest first
    broken: Sequence[LeftOut] = ()
    ignored: Sequence[LeftOut] = ()


def render(found: Page) -> str:
    """Return the report as the text of one HTML file, to be written as UTF-8."""
    learning = plots.learning_curves(found.history, found.watch)
    classes = found.evaluation if isinstance(found.evaluation, Evaluation) else None
    return page(
        "report.html" if classes else "multilabel.html",
        page=found,
        evaluation=found.evaluation,
        seen=[(tile.caption, thumbnail(Image.fromarray(tile.image))) for tile in found.seen],
        verdict=verdict.sentence(History.from_list(found.history)),
        counts=picture(plots.class_counts(found.counts)) if found.counts else "",
        learning=picture(learning) if learning else "",
        listed_files=LISTED_FILES,
        **(_of_classes(classes) if classes else {}),
    )


def page(template: str, **values: Any) -> str:
    """Return a page as the text of one HTML file, to be written as UTF-8.

    template: a file of this folder. It extends `base.html`, which has the look of all pages, by the blocks title,
              style (rules of its own), main and footer.
    values:   what it shows; a name that is not valid text is shown with question marks.
    """
    html = _templates().get_template(template).render(values)
    return html.encode("utf-8", "replace").decode("utf-8")


def picture(figure: Figure) -> str:
    """Return a figure as an address that holds the picture itself, for an <img>."""
    return _data_uri(plots.svg(figure).encode())


def thumbnail(image: Image.Image) -> bytes:
    """Return an RGB image as a small JPEG, 160 pixels on its longer side at most; the image stays as it is."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    data = io.BytesIO()
    small.save(data, format="JPEG", quality=80)
    return data.getvalue()


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: files("regraft.report").joinpath("templates", name).read_text(encoding="utf-8")
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "data_uri": _data_uri}
    return environment


def _of_classes(evaluation: Evaluation) -> dict[str, Any]:
    """Return what `report.html` shows where each image is of one class."""
    readable = len(evaluation.classes) <= MATRIX_CLASSES
    return {
        "always_largest": max(scores["n"] for scores in evaluation.per_class.values()) / evaluation.n,
        "confused": most_confused(evaluation, LISTED_PAIRS),
        "measures": _measures(evaluation),
        "confusion": picture(plots.confusion_matrix(evaluation)) if readable else "",
    }


def _measures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of the further measures that there are."""
    return [
        (name, f"{percent(value)} %" if unit else f"{value:.3f}", meaning)
        for measure, name, unit, meaning in MEASURES
        if (value := getattr(evaluation, measure)) is not None
    ]


def _data_uri(data: bytes) -> str:
    """Return the picture as an address that holds the picture itself; in an <img>, its ids and styles stay its own."""
    kinds = {b"\x89PN": "png", b"\xff\xd8\xff": "jpeg"}
    return f"data:image/{kinds.get(data[:3], 'svg+xml')};base64,{base64.b64encode(data).decode()}"
