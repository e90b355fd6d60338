"""`regraft.load` and `regraft.predict`: a model folder is opened, and names what is on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.options import flat, takes_options
from regraft.data import read as reading
from regraft.inference.options import EngineOptions
from regraft.pipeline.options import PredictOptions

if TYPE_CHECKING:
    from torch import nn

    from regraft.data.index import Index
    from regraft.model.model import Model
    from regraft.model.predict import Prediction


@takes_options(EngineOptions)
def load(folder: str | Path, *, backbone: nn.Module | None = None, options: EngineOptions) -> Model:
    """Open a model folder.

    folder:   as `regraft train` or `Model.save` wrote it.
    backbone: the torch module that it was trained on, if that was one of your own: a folder holds weights, not code.
    Raises RefusedFile if it is edited, cut short, foreign or from a later format.
    """
    from regraft.inference import agreement
    from regraft.model import model

    return model.load(folder, agreement.choose(options), backbone)


@takes_options(PredictOptions)
def predict(model: Model, inputs: Any, *, options: PredictOptions) -> list[Prediction]:
    """Return one Prediction per input, in order.

    model:  from `load`, `fit`, or a Report.
    inputs: as for `Model.predict`.
    """
    return predictions(model, reading.read_inputs(inputs, options.source), options)


def predictions(model: Model, index: Index, options: PredictOptions, nearest: int = 0) -> list[Prediction]:
    """Return the prediction for each row of an index, with so many of the nearest training images."""
    return model.predict(index, **flat(options.top), **flat(options.tta), nearest=nearest, store=options.store.store)
