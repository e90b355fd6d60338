"""Images as a torch data set, for a training loop of one's own: each is decoded, resized and normalised by one rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import Dataset

from regraft.core.errors import DataError
from regraft.data.decode import BrokenImage, decode
from regraft.data.index import Index
from regraft.network.preprocess import Preprocess


class ImageDataset(Dataset[tuple[torch.Tensor, Any]]):
    """The used images of an index.

    An item is the image as the network sees it, (3, S, S) float32, normalised, and its label: its position among
    `classes`, or, where an image may have several labels, (n_classes,) float32 of 0 and 1.

    Reading a broken image raises DataError, naming the file; so does a label that is not among the classes.
    """

    def __init__(self, index: Index, classes: Sequence[str], preprocess: Preprocess) -> None:
        used = index.used
        self.rows, self.classes, self.preprocess = used.rows, tuple(classes), preprocess
        self._labels: Any = used.label_flags(self.classes) if index.multilabel else used.label_codes(self.classes)
        self._mean, self._std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, Any]:
        row, label = self.rows[number], self._labels[number]
        try:
            pixels = self.preprocess(decode(row.location.read(), self.preprocess.least_side))
        except (OSError, BrokenImage) as error:
            raise DataError(f"{row.path} can't be read: {error}") from error
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return (image - self._mean) / self._std, torch.tensor(label).float() if isinstance(label, list) else label
