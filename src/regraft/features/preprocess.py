"""Preprocessing: an upright RGB image becomes the network's input.

Comes after data/decode, before the trunk. The rule belongs to the weights: it
is what they were trained with, and it travels with them. "crop", "squash" and
"pad" are timm's "center", "squash" and "border", to the same numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from regraft.core.options import require, require_choice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

Resize = Literal["crop", "pad", "squash"]
Colour = tuple[float, float, float]

RESIZES = ("crop", "pad", "squash")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")

_FROM_TIMM: dict[str, Resize] = {"center": "crop", "border": "pad", "squash": "squash"}

# "crop" resizes the whole image and cuts the middle out, as timm does. An image so long and thin that this would
# hold more than so many times the pixels of the square has only the window that is kept resized.
_LONGEST = 16


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the network's input.

    size:          side S of the square that the network sees, in pixels.
    resize:        "crop": the short side to S / crop_share, the middle S by S is kept;
                   "pad": the long side to S / crop_share, the rest filled with `background`, the middle kept;
                   "squash": both sides to S / crop_share, the middle kept.
    crop_share:    timm's crop_pct; 1 keeps everything that the resizing shows, above 1 leaves a (black) border.
    interpolation: Pillow's name of the filter.
    background:    red, green, blue, 0…255, for "pad".
    mean, std:     red, green, blue, of values in [0, 1].
    """

    size: int
    resize: Resize = "crop"
    crop_share: float = 0.875
    interpolation: str = "bicubic"
    background: tuple[int, int, int] = (0, 0, 0)
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        require(self.size >= 1, "size", self.size, "at least 1 pixel")
        require_choice("resize", self.resize, RESIZES)
        require_choice("interpolation", self.interpolation, INTERPOLATIONS)
        require(0 < self.crop_share <= 2, "crop_share", self.crop_share, "a share above 0 and up to 2")
        require(_three_numbers(self.mean), "mean", self.mean, "three numbers")
        require(_three_numbers(self.std) and min(self.std) > 0, "std", self.std, "three numbers above 0")

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the input of an RGB image: (3, S, S), float32, normalised."""
        import numpy as np

        square = {"crop": self._crop, "pad": self._pad, "squash": self._squash}[self.resize](image)
        pixels = np.asarray(square, np.float32).transpose(2, 0, 1) / np.float32(255)  # (3, S, S), in [0, 1]
        mean = np.array(self.mean, np.float32).reshape(3, 1, 1)
        return np.ascontiguousarray((pixels - mean) / np.array(self.std, np.float32).reshape(3, 1, 1))

    def adapted(self, size: int | None = None, resize: Resize | None = None) -> Preprocess:
        """Return the rule for another size, or another way of resizing; "pad" and "squash" then show everything."""
        changed = self if size is None else dataclasses.replace(self, size=size)
        if resize is None or resize == self.resize:
            return changed
        return dataclasses.replace(changed, resize=resize, crop_share=self.crop_share if resize == "crop" else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON-able values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Return the rule that `to_dict` wrote."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocess:
        """Return the rule of a timm `pretrained_cfg`; what it leaves open is as timm has it."""
        from regraft.features._torchvision import import_timm

        resolved = import_timm().data.resolve_data_config(pretrained_cfg=dict(config), verbose=False)
        channels, height, width = resolved["input_size"]
        require(channels == 3, "in_chans", channels, "3: regraft feeds red, green and blue")
        require(height == width, "size", (height, width), "a square input")
        return cls(
            size=height,
            resize=_FROM_TIMM[resolved["crop_mode"]],
            crop_share=float(resolved["crop_pct"]),
            interpolation=resolved["interpolation"],
            background=tuple(round(255 * value) for value in resolved["mean"]),
            mean=tuple(resolved["mean"]),
            std=tuple(resolved["std"]),
        )

    @property
    def _target(self) -> int:
        """The side, in pixels, that the image is resized to before the middle is cut out."""
        return math.floor(self.size / self.crop_share)

    def _resample(self, image: Image.Image, size: tuple[int, int], box: Any = None) -> Image.Image:
        from PIL import Image

        return image.resize(size, Image.Resampling[self.interpolation.upper()], box)

    def _crop(self, image: Image.Image) -> Image.Image:
        short, long = sorted(image.size)
        scaled = int(self._target * long / short)
        if scaled > _LONGEST * self._target:
            return self._window(image, scaled)
        size = (self._target, scaled) if image.width <= image.height else (scaled, self._target)
        return self._middle(self._resample(image, size))

    def _window(self, image: Image.Image, scaled: int) -> Image.Image:
        """Resize only the part of a long thin image that `_crop` keeps: the same window, in the image's own pixels."""
        sides = [self._target if side == min(image.size) else scaled for side in image.size]
        kept = [min(side, self.size) for side in sides]
        scales = [side / to for side, to in zip(image.size, sides, strict=True)]
        starts = [_start(side, keep) * scale for side, keep, scale in zip(sides, kept, scales, strict=True)]
        ends = [start + keep * scale for start, keep, scale in zip(starts, kept, scales, strict=True)]
        return self._middle(self._resample(image, (kept[0], kept[1]), (*starts, *ends)))

    def _squash(self, image: Image.Image) -> Image.Image:
        return self._middle(self._resample(image, (self._target, self._target)))

    def _pad(self, image: Image.Image) -> Image.Image:
        from PIL import Image

        long = max(image.size)
        width, height = (max(1, round(side * self._target / long)) for side in image.size)
        canvas = Image.new("RGB", (self.size, self.size), self.background)
        canvas.paste(self._resample(image, (width, height)), (-_start(width, self.size), -_start(height, self.size)))
        return canvas

    def _middle(self, image: Image.Image) -> Image.Image:
        """Return the middle S by S of an image; what lies outside of it is black, as in torchvision."""
        left, top = (_start(side, self.size) for side in image.size)
        return image.crop((left, top, left + self.size, top + self.size))


def _start(side: int, size: int) -> int:
    """Return where the middle `size` of `side` pixels starts, below 0 if it is larger; rounded as torchvision does."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)


def _three_numbers(values: tuple[float, ...]) -> bool:
    return len(values) == 3 and all(math.isfinite(value) for value in values)
