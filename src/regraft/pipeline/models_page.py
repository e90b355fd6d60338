"""Models side by side on one page: their measures, by how much they differ on the same images, their recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regraft.core import options
from regraft.core.errors import DataError
from regraft.core.text import percent
from regraft.data.labels import LABEL_SEPARATOR
from regraft.evaluation.significance import Paired, holm_bonferroni, mcnemar, points
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.report import as_a_model_has_it

if TYPE_CHECKING:
    from regraft.model.model import Model

MEASURED = ("measured on", "images", "accuracy, %", "95 % interval", "log loss", "MB")
COMPARED = ("images", "accuracy, points", "95 % interval", "p", "better or worse")
NONE = ("none in common", "", "", "", "")
ACCURACIES = ("accuracy", "exact_match")  # of one label, of several


@as_a_model_has_it()
def models_page(models: Mapping[str, Model], command: str = "") -> str:
    """Return models, by name, as one HTML file; the first is what the others are compared with.

    command: what made it on the command line, for the page to say.
    Raises DataError for a model that was saved without measures.
    """
    from regraft.report import pages
    from regraft.report.pages import Section

    for name, model in models.items():
        if not model.measures:
            raise DataError(f"{name} was saved without measures; train it again to compare it.")
    measured = [[name, *_measures(model)] for name, model in models.items()]
    differing = _differing({name: model.options for name, model in models.items()})
    first = next(iter(models))
    return pages.plain(
        f"{len(models)} models",
        f"The first, {first}, is what the others are compared with, on images that both were measured on.",
        [
            Section("Measures", rows=[["", *MEASURED], *measured], texts=[1, 4]),
            Section("On the same images", rows=[["", *COMPARED], *_compared(models)], texts=[1, 3, 5]),
            Section("Recipes", rows=[["", *models], *differing], texts=list(range(1, len(models) + 1))),
        ],
        pages.made(command, ""),
        [f"{name}: {note}" for name, model in models.items() for note in _first(model)[1].get("notes", [])],
    )


def _first(model: Model) -> tuple[str, Mapping[str, Any]]:
    return next(iter(model.measures.items()))


def _measures(model: Model) -> list[str]:
    part, measures = _first(model)
    (name,) = (name for name in ACCURACIES if name in measures)
    low, high = measures[f"{name}_interval"]
    size = sum(array.nbytes for trunk in model.trunks for array in trunk.tensors().values())
    loss = measures.get("log_loss")
    return [
        *(part, f"{measures['n']:,}", percent(measures[name]), f"{percent(low)} to {percent(high)}"),
        *("" if loss is None else f"{loss:.4f}", f"{size / 1e6:.1f}"),
    ]


def _compared(models: Mapping[str, Model]) -> list[list[str]]:
    """Return a row for each but the first: how it compares with that on the images both were measured on."""
    (_, right), *others = ((name, _right(model)) for name, model in models.items())
    pairs: dict[str, Paired] = {}
    for name, other in others:
        if common := sorted(right.keys() & other.keys()):
            pairs[name] = mcnemar([right[id] for id in common], [other[id] for id in common])
    corrected = dict(zip(pairs, holm_bonferroni(list(pairs.values())), strict=True))
    return [[name, *(_against(corrected[name]) if name in corrected else NONE)] for name, _ in others]


def _against(pair: Paired) -> list[str]:
    difference, low, high = (points(value) for value in (pair.difference, pair.low, pair.high))
    return [pair.basis, difference, f"{low} to {high}", f"{pair.p_value:.3f}", pair.outcome]


def _right(model: Model) -> dict[str, bool]:
    """Return for each image by id that the model was measured on whether all of its labels were right."""
    if model.predictions is None:
        return {}
    probabilities = model.predictions.probabilities
    if model.loss.multilabel:
        labels = [LABEL_SEPARATOR.join(row) for row in model.predicted_labels(probabilities)]
    else:
        labels = [model.classes[code] for code in probabilities.argmax(1)]
    each = zip(model.predictions.ids, labels, strict=True)
    return {id: model.images[id][0] == label for id, label in each if id in model.images}


def _differing(recipes: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return a row for each option that is not the same in all recipes."""
    names = [name for name in options.fields(TrainOptions) if any(name in recipe for recipe in recipes.values())]
    rows = [[name, *(str(recipe.get(name)) for recipe in recipes.values())] for name in names]
    return [row for row in rows if len({*row[1:]}) > 1]
