"""Going on from a trained model: what a run takes over from it, and what it may not change."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from regraft.core.errors import DataError, UsageError
from regraft.core.options import flag
from regraft.data.index import Index
from regraft.pipeline.fit import plain
from regraft.pipeline.options import TrainOptions

if TYPE_CHECKING:
    from regraft.model.model import Model

TAKEN_OVER = ("backbone", "weights", "size", "resize", "cut", "end", "pool", "tail", "head", "head_options")


def before(options: TrainOptions) -> Model | None:
    """Return the model to go on from, if there is one; raise RefusedFile for a folder that is none."""
    from regraft.model import model
    from regraft.network import agreement

    return model.load(options.continue_, agreement.choose(options)) if options.continue_ else None


def taken_over(options: TrainOptions, model: Model) -> TrainOptions:
    """Return the options with the model's own network and head; raise UsageError for one that asks for another."""
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    own: dict[str, Any] = {name: model.options[name] for name in TAKEN_OVER if name in model.options}
    asked = plain(options)
    for name, value in own.items():
        if asked[name] not in (defaults[name], value):
            raise UsageError(
                f"{flag(name)} is {asked[name]!r}, and the model to go on from has {value!r}. "
                f"Leave {flag(name)} out, or --continue."
            )
    return dataclasses.replace(options, **own)


def parts(index: Index, model: Model) -> dict[str, str]:
    """Return the parts that the model's images had: id → part, so that none that it learnt from is held out now.

    Raises UsageError if the classes are others, DataError if the model has learnt from all it knew.
    """
    if index.classes != model.classes:
        raise UsageError(
            f"The classes of {index.name} are {', '.join(index.classes)}; the model to go on from knows "
            f"{', '.join(model.classes)}. Train anew, without --continue."
        )
    known = {id: part for id, (_, part) in model.images.items()}
    if set(known.values()) == {"train"}:
        raise DataError(
            "The model to go on from has learnt from all of its images, so that nothing could be measured. Train it "
            "with parts that are held out first, such as --split 0.8/0.1/0.1."
        )
    return known
