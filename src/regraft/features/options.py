"""Options of the augmentation of training images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regraft.core.options import option, require, require_choice
from regraft.features.augmentation import find

MAX_VIEWS = 1000


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """Augmentation of the training images; what is held out is never augmented."""

    views: int | Literal["auto"] = option(
        "auto", "augmented views that are stored of each training image; auto: many where images are few, else none"
    )
    augmentation: str = option(
        "standard", "how views differ from the image: light, standard, strong, or the like of strong,rotation=40"
    )
    augment: Literal["stored", "fresh"] = option(
        "stored", "fresh: new views in every epoch, for which the frozen part is run every time"
    )

    def __post_init__(self) -> None:
        fit = self.views == "auto" or (isinstance(self.views, int) and 0 <= self.views <= MAX_VIEWS)
        require(fit, "views", self.views, f"auto, or 0 to {MAX_VIEWS}")
        require_choice("augment", self.augment, ("stored", "fresh"))
        find(self.augmentation)

    @property
    def number(self) -> int | str:
        """How many views are wanted: fresh ones are all drawn like one, also where images are many."""
        return 1 if self.augment == "fresh" and self.views == "auto" else self.views
