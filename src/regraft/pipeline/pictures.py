"""Small pictures of training images that a model keeps, so that it can show which of them a new one is like."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from regraft.data.index import Index
    from regraft.model.model import Model
    from regraft.training.options import FitOptions

PICTURES = 500  # kept at most, evenly of all classes: some 0.8 MB
SIDE, QUALITY = 96, 60  # pixels of the longer side, and of JPEG
LEAST_SIDE = 64  # pixels of the shorter side that a JPEG keeps when it is decoded for it


def pictured(model: Model, index: Index, options: FitOptions) -> Model:
    """Return the model with pictures of its references, read from the index they come of, unless they are off.

    A picture that can't be read any more is left out.
    """
    kept = model.evidence
    if options.pictures == "off" or kept is None or not kept.named:
        return model
    import numpy as np

    from regraft.core.rng import generator
    from regraft.features import worker
    from regraft.model import evidence

    labels = np.unique([model.images[each.id][0] for each in kept.named], return_inverse=True)[1]
    numbers = evidence.choose(labels, generator(model.seed, "pictures"), PICTURES)
    rows = {row.id: row for row in index.used}
    made = worker.of_pixels([rows[kept.named[number].id] for number in numbers], LEAST_SIDE, _small)
    pictures = {number: picture for number, picture in zip(numbers, made, strict=True) if isinstance(picture, bytes)}
    named = tuple(each._replace(picture=pictures.get(number, b"")) for number, each in enumerate(kept.named))
    return dataclasses.replace(model, evidence=dataclasses.replace(kept, named=named))


def _small(pixels: np.ndarray) -> bytes:
    from PIL import Image

    image, data = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=1.0)
    image.save(data, "JPEG", quality=QUALITY, optimize=True)  # WebP takes four times as long, for a tenth of the bytes
    return data.getvalue()
