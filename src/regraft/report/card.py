"""The model card: what a model is, what it learned from, what was measured, its limits, how to repeat it, as Markdown.

Its head is YAML in the form that model hubs read.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from regraft.core.text import listed, percent, printable
from regraft.core.version import __version__
from regraft.model.folder import CARD_MARK

if TYPE_CHECKING:
    from regraft.model.model import Model
    from regraft.network.trunk import Trunk

SHOWN_CLASSES = 100
PARTS = ("train", "validation", "test")
MEASURES = {"accuracy": "accuracy", "exact_match": "images all of whose labels are right"}
_TAIL = ", below a part that was trained too"
MORE = {"balanced_accuracy": "balanced accuracy", "log_loss": "log loss", "calibration_error": "calibration error"}


def card(model: Model, command: str) -> str:
    """Return the card of a model.

    command: what trains such a model, on the command line.
    """
    return "\n".join(
        [
            *_head(model),
            f"# {_title(model)}",
            "",
            "Gives photographs the probabilities of its classes.",
            f"Trained by transfer learning with regraft {__version__}, on {_networks(model)}.",
            f"That part is frozen{_TAIL if model.tail else ''}; the head is `{model.head_name}`.",
            "",
            *_section("Data", _data(model)),
            *_section("Measures", _measures(model)),
            *_section("Limits", _limits(model)),
            *_section("Use and repeat", _use(command)),
        ]
    )


def _head(model: Model) -> list[str]:
    licences = {str(trunk.recipe.weights.get("licence") or "other") for trunk in model.trunks}
    lines = [
        CARD_MARK,
        "pipeline_tag: image-classification",
        f"license: {licences.pop() if len(licences) == 1 else 'other'}",
        f"tags: {json.dumps(['regraft', 'transfer-learning', *_names(model)])}",
    ]
    return ["---", *lines, *_results(model), "---", ""]


def _results(model: Model) -> list[str]:
    """Return the measures as a model index, of data that have no public name."""
    metrics = [
        f"          - {{type: {name}, value: {measures[name]:.6g}, name: {json.dumps(f'{name} ({part})')}}}"
        for part, measures in model.measures.items()
        for name in (*MEASURES, *MORE)
        if measures.get(name) is not None
    ]
    if not metrics:
        return []
    task = "      - task: {type: image-classification}"
    data = "        dataset: {type: images, name: photographs of its own}"
    return [
        "model-index:",
        f"  - name: {json.dumps(_title(model))}",
        "    results:",
        task,
        data,
        "        metrics:",
        *metrics,
    ]


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _title(model: Model) -> str:
    return listed([_cell(name) for name in model.classes], 3)


def _names(model: Model) -> list[str]:
    return list(dict.fromkeys(trunk.recipe.architecture for trunk in model.trunks))


def _networks(model: Model) -> str:
    return " and ".join(_network(trunk) for trunk in model.trunks)


def _network(trunk: Trunk) -> str:
    weights = trunk.recipe.weights
    name = weights.get("name") or weights.get("source")
    return f"`{trunk.recipe.architecture}` with the weights {name} at {trunk.preprocess.size} pixels"


def _data(model: Model) -> list[str]:
    counts = Counter(model.images.values())
    rows = [[name, *(f"{counts[name, part]:,}" for part in PARTS)] for name in model.classes[:SHOWN_CLASSES]]
    more = [f"and {len(model.classes) - SHOWN_CLASSES:,} more classes"] if model.classes[SHOWN_CLASSES:] else []
    if model.loss.multilabel:
        return [f"{len(model.images):,} images, each with any of {len(model.classes):,} labels."]
    return [*_table(["images", *PARTS], rows), "", *more]


def _measures(model: Model) -> list[str]:
    if not model.measures:
        return ["None: it was saved without."]
    rows = [row for part, measures in model.measures.items() for row in _rows(part, measures)]
    notes = [f"- {note}" for measures in model.measures.values() for note in measures.get("notes", [])]
    return [*_table(["", "of", "images", "value", "95 % interval"], rows), "", *notes]


def _rows(part: str, measures: Mapping[str, Any]) -> Iterable[list[str]]:
    for name, words in MEASURES.items():
        if name in measures:
            low, high = (f"{percent(side)} %" for side in measures[f"{name}_interval"])
            yield [words, part, f"{measures['n']:,}", f"{percent(measures[name])} %", f"{low} to {high}"]
    for name, words in MORE.items():
        if measures.get(name) is not None:
            yield [words, part, f"{measures['n']:,}", f"{measures[name]:.4f}", ""]


def _limits(model: Model) -> list[str]:
    known = "one or more" if model.loss.multilabel else "one"
    strangers = (
        "A picture that is unlike the training images is called `unknown`, but not every stranger is."
        if model.evidence
        else "It cannot tell a picture of something else: that gets one of the classes too."
    )
    return [
        f"- It names {known} of its {len(model.classes):,} classes. {strangers}",
        "- The measures hold for pictures like those it was measured on: other cameras, light or places may do worse.",
        "- Whatever bias the photographs have, and those that the network was first trained on, it has too.",
    ]


def _use(command: str) -> list[str]:
    return [
        "```sh",
        "pip install regraft",
        "regraft predict MODEL PHOTO",
        f"{command}  # trains such a model",
        "```",
        "",
        "`MODEL` is this folder. `model.json` holds every option, the versions and the history.",
    ]


def _table(titles: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return [f"| {' | '.join(map(_cell, line))} |" for line in lines]


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("<", "&lt;")
