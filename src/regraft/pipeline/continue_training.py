"""Training of a trained model is continued: what a run takes over from it, and what it may not change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError, UsageError
from regraft.core.options import change, fields, flag
from regraft.core.progress import log
from regraft.core.text import listed
from regraft.data.index import Index
from regraft.pipeline.fit import plain
from regraft.pipeline.options import TrainOptions
from regraft.pipeline.own_module import module_of

if TYPE_CHECKING:
    from regraft.model.model import Model

SAME = ("backbone", "weights", "size", "resize", "cut", "end", "pool", "tail", "head", "head_options")
OF_A_RUN = ("continue_", "engine", "precision")  # options that a run chooses itself


def start_model(options: TrainOptions) -> Model | None:
    """Return the model to continue from, if there is one; raise RefusedFile for a folder that is none."""
    from regraft.inference import agreement
    from regraft.model import model

    folder = options.start.continue_
    if not folder:
        return None
    own = module_of(options.features.network.backbone)
    return model.load(folder, agreement.choose(options.features.engine), own)


def taken_over(options: TrainOptions, model: Model) -> TrainOptions:
    """Return the options with the model's own where the default stands; what was taken over is logged.

    Raises UsageError for one that asks for another network or head.
    """
    defaults = {name: field.default for name, field in fields(TrainOptions).items()}
    of_model: dict[str, Any] = {name: model.options[name] for name in defaults if name in model.options}
    requested = plain(options)
    for name in SAME:
        if name in of_model and requested[name] not in (defaults[name], of_model[name]):
            raise UsageError(
                f"{flag(name)} is {requested[name]!r}, and the model to continue from has {of_model[name]!r}. "
                f"Leave {flag(name)} out, or --continue."
            )
    kept = {
        name: value
        for name, value in of_model.items()
        if name not in OF_A_RUN and requested[name] == defaults[name] != value
    }
    if kept:
        log.info(
            "Options of the run before, kept: %s", ", ".join(f"{flag(name)} {value}" for name, value in kept.items())
        )
    return change(options, **kept)


def parts(index: Index, model: Model) -> dict[str, str]:
    """Return the parts that the model's images had, id → part, so that none that it was trained on is held out now.

    Raises UsageError if the classes differ, DataError if the model was trained on all of its images.
    """
    if index.classes != model.classes:
        raise UsageError(
            f"The classes of {index.name} are {listed(index.classes)}; the model to continue from has "
            f"{listed(model.classes)}. Train a new model, without --continue."
        )
    known = {id: part for id, (_, part) in model.images.items()}
    if set(known.values()) == {"train"}:
        raise DataError(
            "The model to continue from was trained on all of its images: none is left to evaluate it on. Train it "
            "with a held-out part first, such as --split 0.8/0.1/0.1."
        )
    return known
