"""`regraft.dataset`: the images of an index as a torch data set, with the preprocessing of a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regraft.core.options import select, takes_options
from regraft.data import read as reading
from regraft.features.options import FeatureOptions
from regraft.network.options import NetworkOptions
from regraft.pipeline.extract import build_network

if TYPE_CHECKING:
    from regraft.features.dataset import ImageDataset
    from regraft.model.model import Model


@takes_options(NetworkOptions)
def dataset(
    index: Any, part: str | None = None, *, model: Model | None = None, options: NetworkOptions
) -> ImageDataset:
    """Return a `torch.utils.data.Dataset` of (image, label), for a training loop of one's own.

    An image is decoded, turned upright, resized and normalised as the network's weights want it: (3, S, S) float32.
    Its label is its position among `.classes`.

    index: an Index, or a source as for `read`.
    part:  "train", "validation" or "test"; None: all used images.
    model: whose preprocessing is used; None: that of the network of the options.
    Raises DataError for a broken image, when it is read; UsageError for several backbones.
    """
    from regraft.features.dataset import ImageDataset

    rows = reading.read(index)
    runner = model.runner if model else build_network(select(FeatureOptions, options)).runner
    return ImageDataset(
        rows.part(part) if part else rows, model.classes if model else rows.classes, runner.trunk.preprocess
    )
