"""`regraft.explain`: predictions, and what they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.core.options import takes_options
from regraft.data import read as reading
from regraft.pipeline.options import PredictOptions
from regraft.pipeline.predict import predictions

if TYPE_CHECKING:
    from regraft.model.gallery import Gallery
    from regraft.model.model import Model

NEAREST = 5  # training images that an explanation names


@takes_options(PredictOptions)
def explain(model: Model, inputs: Any, *, label: str | None = None, options: PredictOptions) -> Gallery:
    """Return the Gallery of photographs: for each the prediction, the nearest training images, and a heat map.

    model:  from `load`, `fit`, or a Report.
    inputs: as for `Model.predict`.
    label:  whose evidence the heat maps show; None: that of the predicted label.
    """
    return gallery(model, inputs, options, label=label, explained=True)


def gallery(
    model: Model, inputs: Any, options: PredictOptions, *, label: str | None = None, explained: bool
) -> Gallery:
    """Return the Gallery of photographs; where they are not `explained`, of the predictions alone."""
    from regraft.model.gallery import Gallery

    index = reading.read_inputs(inputs, options.source)
    made = predictions(model, index, options, NEAREST if explained else 0)
    return Gallery(model=model, index=index, predictions=tuple(made), label=label, with_maps=explained)
