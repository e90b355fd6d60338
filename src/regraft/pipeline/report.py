"""Evaluation: a model and labelled images in, a Report out, for the terminal and for machines.

Which rows are evaluated is decided here, from what the model remembers of its
own run; the counting is left to `evaluation`, the page and its pictures to `report`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regraft.audit import shortcuts
from regraft.audit.shortcuts import Shortcuts
from regraft.core import options
from regraft.core.errors import DataError, RefusedFile, RegraftError, first_line
from regraft.core.results import Result
from regraft.core.text import count
from regraft.data.index import Index
from regraft.evaluation import diagnosis, multiclass, multilabel, strangers
from regraft.evaluation.multiclass import Evaluation
from regraft.evaluation.multilabel import MultilabelEvaluation
from regraft.evaluation.strangers import Strangers
from regraft.features.extract import Features
from regraft.features.store.store import Store
from regraft.model import calibration
from regraft.model.calibration import Calibrations
from regraft.model.model import Model
from regraft.model.predict import FALSE_ALARMS
from regraft.model.provenance import Predictions
from regraft.pipeline.known import ANOTHER, CROSS_VALIDATION, Known
from regraft.pipeline.options import TrainOptions
from regraft.training.losses import EVEN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from regraft.report.evaluation_page import Evaluated

SHOWN_ANSWERS = 24


@contextlib.contextmanager
def as_a_model_has_it() -> Iterator[None]:
    """Turn what an edited folder's measures, history or options bring about into RefusedFile."""
    try:
        yield
    except RegraftError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise RefusedFile(
            f"The model's measures, history or options are not as regraft writes them ({first_line(error)}). "
            "Train it again, or copy it again."
        ) from error


@dataclass(frozen=True, kw_only=True, repr=False)
class Report(Result):
    """What a model did on one part of a source.

    index:         the rows that were evaluated.
    probabilities: (n, n_classes), a row for each of them.
    notes:         what a reader must know before believing the numbers.
    source:        the whole index, with the broken and the ignored rows.
    calibrations:  by what the probabilities were calibrated; None where it was not kept.
    strangers:     how images of none of the classes were told from those of the classes, if that was measured.
    shortcuts:     how well size, format, brightness or border alone predict the class; None where it can't be told.
    trained_on:    how many of the rows, or other versions of them, were trained on: then nothing is measured.
    """

    model: Model
    part: str
    index: Index
    probabilities: np.ndarray
    evaluation: Evaluation | MultilabelEvaluation
    notes: tuple[str, ...]
    source: Index
    calibrations: Calibrations | None = None
    strangers: Strangers | None = None
    shortcuts: Shortcuts | None = None
    trained_on: int = 0

    def __repr__(self) -> str:
        """Return one line, for a session."""
        return f"<Report: {self.accuracy:.1%} of {self.evaluation.n} images, part {self.part}>"

    @property
    def accuracy(self) -> float:
        """The share of images whose most probable label is the true one; of several labels, whose all are right."""
        return _accuracy(self.evaluation)

    def to_dict(self) -> dict[str, Any]:
        """Return the measures, and which files of the source were left out, as JSON-able data."""
        left_out = [row for row in self.source if row.status != "used"]
        files = [{"path": row.path, "status": row.status, "reason": row.reason} for row in left_out]
        strangers = {"strangers": self.strangers._asdict()} if self.strangers else {}
        return {**self.measures(), **strangers, "left_out": files}

    def measures(self) -> dict[str, Any]:
        """Return the measures as JSON-able data."""
        trained_on = {"trained_on": self.trained_on} if self.trained_on else {}
        shortcuts = {"shortcuts": self.shortcuts.to_dict()} if self.shortcuts else {}
        return {"part": self.part, **trained_on, "notes": list(self.notes), **self.evaluation.to_dict(), **shortcuts}

    def text(self) -> str:
        """Return the measures as lines for a terminal."""
        broken, ignored = len(self.source.broken), len(self.source.ignored)
        left_out = [f"Left out of the source: {broken} broken, {ignored} ignored"] if broken or ignored else []
        warnings = self.shortcuts.warnings() if self.shortcuts else []
        notes = [f"Note: {note}" for note in (*self.notes, *warnings)]
        unlike = [f"\n{self.strangers.text()}"] if self.strangers else []
        part = f"Part: {self.part}"
        if self.trained_on:
            part += f", of which {self.trained_on:,} were trained on: no measure of new photographs"
        return "\n".join([*_course(self.model), *notes, *left_out, part, self.evaluation.text(), *unlike])

    def grid(self, count: int = SHOWN_ANSWERS) -> Figure:
        """Return a sample of the images, drawn at random, with label and percentage, the wrong ones marked."""
        from regraft.report import evaluation_page

        return evaluation_page.grid(self.model, self._evaluated(), count)

    @as_a_model_has_it()
    def html(self, command: str = "") -> str:
        """Return the report as one HTML file, with the most confident mistakes as thumbnails.

        command: what made it on the command line, for the page to say.
        """
        from regraft.report import evaluation_page

        made = _made(self.model, command, self.source.name)
        notes = (*self.notes, *([self.strangers.text()] if self.strangers else []))
        return evaluation_page.render(
            self.model, self.part, self.evaluation, notes, self._evaluated(), made, self.shortcuts
        )

    def _evaluated(self) -> Evaluated:
        from regraft.report.evaluation_page import Evaluated

        return Evaluated(self.index, self.probabilities, self.source, self.trained_on)


@as_a_model_has_it()
def model_page(model: Model, command: str = "") -> str:
    """Return what a model folder holds about itself as one HTML file, without photographs.

    command: what made it on the command line, for the page to say.
    Raises DataError for a model that was saved without measures.
    """
    from regraft.report import evaluation_page

    if not model.measures:
        raise DataError("This model was saved without measures; use `regraft evaluate MODEL SOURCE --report FILE`.")
    part, measures = next(iter(model.measures.items()))
    made = _made(model, command, "")
    known = Shortcuts.from_dict(measures["shortcuts"]) if "shortcuts" in measures else None
    return evaluation_page.render(model, part, measured(model, part), measures["notes"], made=made, shortcuts=known)


def _made(model: Model, command: str, source: str) -> dict[str, str]:
    """Return how a page of a model was made, with the command that trains such a model."""
    from regraft.report import pages

    return pages.made(command, source, training_command=_training_command(model))


def _training_command(model: Model) -> str:
    words = options.words(TrainOptions, model.options)
    return shlex.join(["regraft", "train", "SOURCE", "-o", "MODEL", *words])


def card(model: Model) -> str:
    """Return the model card, Markdown with a head in YAML."""
    from regraft.report import card

    return card.card(model, _training_command(model))


def measure(
    known: Known,
    features: Features,
    probabilities: np.ndarray | None = None,
    *,
    part: str,
    notes: Sequence[str],
    source: Index,
) -> Report:
    """Return the Report of a model on features of labelled images, by what it knows of them.

    probabilities: that the images were given, if not of their features alone.
    """
    model, notes = known.model, (*notes, *known.notes(features.rows))
    probabilities = model.probabilities(features) if probabilities is None else probabilities
    report = report_of(model, features.index, probabilities, part=part, notes=notes, source=source)
    return dataclasses.replace(report, trained_on=known.trained_on(features.rows))


def report_of(
    model: Model,
    index: Index,
    probabilities: np.ndarray,
    *,
    part: str,
    notes: Sequence[str],
    source: Index,
    calibrations: Calibrations | None = None,
    learned_from: float = 1.0,
) -> Report:
    """Return the Report of probabilities, (n, n_classes), that were given to the used rows of an index.

    calibrations: by what they were calibrated, where that was not the model; of a cross-validation None if it was not
                  kept.
    learned_from: the fraction of the images that each model of a cross-validation was trained on.
    """
    used = index.used
    if part != CROSS_VALIDATION and calibrations is None:
        calibrations = calibration.of_images(len(used), model.temperature, model.true_probabilities)
    flags, codes = used.label_flags, used.label_codes
    truth = np.array(flags(model.classes), np.float32) if model.loss.multilabel else np.array(codes(model.classes))
    return Report(
        model=model,
        part=part,
        index=used,
        probabilities=probabilities,
        evaluation=_evaluated(model, probabilities, truth, calibrations, np.array(used.picture_codes()), learned_from),
        calibrations=calibrations,
        notes=tuple(notes),
        source=source,
    )


def with_strangers(report: Report, known: np.ndarray | None, unlike: np.ndarray) -> Report:
    """Return the report with how images of none of the classes were told from those of the classes.

    known, unlike: (n,) the novelty of the evaluated images, and of the others; `known` is None for a cross-validation,
                   whose images the model has learned: it takes that of rows that the head was not trained on.
    """
    kept = report.model.evidence
    if kept is None:
        raise DataError("The model keeps no training images that tell the unknown. Train it again.")
    usual = kept.scores if known is None else known
    return dataclasses.replace(report, strangers=strangers.measure(usual, unlike, kept.threshold(FALSE_ALARMS)))


def with_shortcuts(report: Report, store: Path | None) -> Report:
    """Return the report with how well what is not the thing itself predicts the class of its source.

    store: folder of the feature store, which keeps small thumbnails.
    """
    return dataclasses.replace(report, shortcuts=shortcuts.measure(report.source, Store(store), report.model.seed))


def _evaluated(
    model: Model,
    probabilities: np.ndarray,
    truth: np.ndarray,
    calibrations: Calibrations | None,
    pictures: np.ndarray,
    learned_from: float,
) -> Evaluation | MultilabelEvaluation:
    known: dict[str, Any] = {"pictures": pictures, "learned_from": learned_from}
    if model.loss.multilabel:
        return multilabel.evaluate(probabilities, truth, model.classes, np.array(model.thresholds or EVEN), **known)
    if calibrations is None:
        return multiclass.evaluate(probabilities, truth, model.classes, **known)
    before = calibration.uncalibrated(probabilities, calibrations.temperatures[:, None], model.loss)
    sets = {
        coverage: calibration.prediction_sets(probabilities, least)
        for coverage, least in zip(calibration.COVERAGES, calibrations.least.T, strict=True)
        if not np.isnan(least).any()
    }
    return multiclass.evaluate(probabilities, truth, model.classes, before, sets=sets, **known)


def _accuracy(evaluation: Evaluation | MultilabelEvaluation) -> float:
    return evaluation.accuracy if isinstance(evaluation, Evaluation) else evaluation.exact_match


def measured(model: Model, part: str) -> Evaluation | MultilabelEvaluation:
    """Return what was measured when the model was trained."""
    kind = MultilabelEvaluation if model.loss.multilabel else Evaluation
    return kind.from_dict(model.measures[part])


def keep(report: Report) -> Model:
    """Return the report's model with what the report measured, and the probabilities that it was measured by."""
    ids = tuple(row.id for row in report.index)
    predictions = Predictions(ids, report.probabilities, report.calibrations)
    return dataclasses.replace(report.model, measures={report.part: report.measures()}, predictions=predictions)


@as_a_model_has_it()
def kept(model: Model, index: Index) -> Report | None:
    """Return the Report of what was measured when a model was trained, on the rows of an index that were measured.

    None if the model was saved without its predictions, or none of these rows was among them.
    """
    if model.predictions is None or not model.measures:
        return None
    part, measures = next(iter(model.measures.items()))
    numbers = {id: number for number, id in enumerate(model.predictions.ids)}
    rows = [row for row in index.used if row.id in numbers and (part == CROSS_VALIDATION or row.part == part)]
    if not rows:
        return None
    known, positions = model.predictions, [numbers[row.id] for row in rows]
    return report_of(
        model,
        index.with_rows(rows),
        known.probabilities[positions],
        part=part,
        notes=measures["notes"],
        source=index,
        learned_from=measures.get("learned_from", 1.0),
        calibrations=known.calibrations and Calibrations(*(values[positions] for values in known.calibrations)),
    )


def cross_validated(known: Known, index: Index) -> Report | None:
    """Return the Report of what cross-validation measured, of a model whose training left no image out; else None.

    Its probabilities for the images that it was trained on are no measure.
    """
    report = kept(known.model, index) if CROSS_VALIDATION in known.model.measures else None
    if report is None:
        return None
    versions = sum(row.id in known.versions for row in index.used)
    new = len(index.used) - len(report.index) - versions
    notes = list(report.notes)
    if new:
        notes.append(f"{new} images are new to the model and not evaluated; --part all takes them in")
    if versions:
        notes.append(f"{count(versions, 'image')}: a picture that was trained on, {ANOTHER}; not evaluated")
    return dataclasses.replace(report, notes=tuple(notes))


def _course(model: Model) -> list[str]:
    """Return what there is to say of how a model was trained: whether fine-tuning helped, how the losses went."""
    counts: dict[str, Counter[str]] = {}
    for label, part in model.images.values():
        counts.setdefault(part, Counter())[label] += 1
    sentences = (model.chosen.get("verdict"), diagnosis.sentence(model.history, diagnosis.chance(counts)))
    return [sentence for sentence in sentences if sentence]
