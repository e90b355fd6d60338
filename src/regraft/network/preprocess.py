"""Preprocessing: an upright RGB image becomes the network's input, S by S pixels.

Comes after data/decode, before the trunk, which normalises. The rule belongs to
the weights: it is what they were trained with, and it travels with them. "crop",
"squash" and "pad" are timm's "center", "squash" and "border", to the same levels;
with bilinear and bicubic filters they differ by up to 2 of 255, as torch's filter
weights, three times as fast, have fewer bits than Pillow's (and by more where a
bicubic filter overshoots 0…255: both clip after each pass, not always in the same
order).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from regraft.core.errors import UsageError
from regraft.core.options import make
from regraft.data.resize import by_pillow, resized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

Resize = Literal["crop", "pad", "squash"]
Colour = tuple[float, float, float]

RESIZES = ("crop", "pad", "squash")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")

_FROM_TIMM: dict[str, Resize] = {"center": "crop", "border": "pad", "squash": "squash"}

LARGEST = 4096  # pixels of a side, also of the resized image whose middle is kept

# "crop" resizes the whole image and crops its middle, as timm does. Of an image so long and thin that its resized
# long side would be more than so many times the short one, only the part that is kept is resized.
_LONGEST = 16


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the network's input, and how that is normalised.

    size:          side S of the input, in pixels.
    resize:        "crop": the short side to S / crop_share, the middle S by S is kept;
                   "pad": the long side to S / crop_share, the rest filled with `background`, the middle kept;
                   "squash": both sides to S / crop_share, the middle kept.
    crop_share:    timm's crop_pct; 1 keeps all of the resized image, above 1 leaves a (black) border.
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
        size = isinstance(self.size, int) and self.size is not True and 1 <= self.size <= LARGEST
        _require(size, "size", self.size, f"a whole number of pixels up to {LARGEST:,}")
        _require(self.resize in RESIZES, "resize", self.resize, f"one of {', '.join(RESIZES)}")
        filters = f"one of {', '.join(INTERPOLATIONS)}"
        _require(self.interpolation in INTERPOLATIONS, "interpolation", self.interpolation, filters)
        share = isinstance(self.crop_share, (int, float)) and self.size / LARGEST <= self.crop_share <= 2
        _require(share, "crop_share", self.crop_share, f"a number up to 2, and size / crop_share up to {LARGEST:,}")
        _require(_three(self.background, 0, 255), "background", self.background, "three numbers from 0 to 255")
        _require(_three(self.mean), "mean", self.mean, "three numbers")
        _require(_three(self.std) and min(self.std) > 0, "std", self.std, "three numbers above 0")

    def __call__(self, pixels: Pixels) -> Pixels:
        """Return the input of an upright image: (H, W, 3) uint8 → (S, S, 3) uint8, in C order, not normalised."""
        import numpy as np

        return np.ascontiguousarray({"crop": self._crop, "pad": self._pad, "squash": self._squash}[self.resize](pixels))

    def window(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return what the input shows of an upright image: top, left, bottom, right, as fractions of its sides.

        Below 0 and above 1 is what was filled in around it.
        """
        down, across = self._resized(height, width)
        top, left = _start(down, self.size), _start(across, self.size)
        return top / down, left / across, (top + self.size) / down, (left + self.size) / across

    @property
    def least_side(self) -> int:
        """The pixels that the shorter side must keep when an image is decoded at less than its size; 0 forbids it."""
        return 0 if self.interpolation == "nearest" else 2 * self.target

    def adapted(self, size: int | None = None, resize: Resize | None = None) -> Preprocess:
        """Return the rule for another size, or another way of resizing; "pad" and "squash" then keep everything."""
        changed = self if size is None else dataclasses.replace(self, size=size)
        if resize is None or resize == self.resize:
            return changed
        return dataclasses.replace(changed, resize=resize, crop_share=self.crop_share if resize == "crop" else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON-able values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocess:
        """Return the rule that `to_dict` wrote; raise UsageError if a value is invalid, or one has an unknown name."""
        return make(cls, {name: _plain(value) for name, value in values.items()})

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocess:
        """Return the rule of a timm `pretrained_cfg`; what it leaves out has timm's defaults."""
        from regraft.network.workaround_torchvision_nms import import_timm

        resolved = import_timm().data.resolve_data_config(pretrained_cfg=dict(config), verbose=False)
        channels, height, width = resolved["input_size"]
        _require(channels == 3, "in_chans", channels, "3: regraft feeds red, green and blue")
        _require(height == width, "size", (height, width), "a square input")
        return cls(
            size=height,
            resize=_FROM_TIMM[resolved["crop_mode"]],
            crop_share=float(resolved["crop_pct"]),
            interpolation=resolved["interpolation"],
            background=tuple(round(255 * value) for value in resolved["mean"]),
            mean=tuple(resolved["mean"]),
            std=tuple(resolved["std"]),
        )

    @classmethod
    def from_torchvision(cls, transforms: Any) -> Preprocess:
        """Return the rule of torchvision's `Weights.transforms()` for a classification network."""
        size, short_side = transforms.crop_size[0], transforms.resize_size[0]
        share = size / short_side
        while math.floor(size / share) < short_side:  # a rounding error below what the short side is resized to
            share = math.nextafter(share, 0)
        return cls(
            size=size,
            crop_share=share,
            interpolation=transforms.interpolation.value,
            mean=tuple(transforms.mean),
            std=tuple(transforms.std),
        )

    @property
    def target(self) -> int:
        """The side, in pixels, that the image is resized to before its middle is cropped."""
        return math.floor(self.size / self.crop_share)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides that an image is resized to before its middle is cropped."""
        if self.resize == "squash":
            return self.target, self.target
        short, long = min(height, width), max(height, width)
        if self.resize == "crop":
            scaled = int(self.target * long / short)
            return (self.target, scaled) if height <= width else (scaled, self.target)
        return max(1, round(height * self.target / long)), max(1, round(width * self.target / long))

    def _crop(self, pixels: Pixels) -> Pixels:
        sides = self._resized(*pixels.shape[:2])
        if max(sides) > _LONGEST * self.target:
            return self._placed(self._window(pixels, sides))
        return self._middle(pixels, sides)

    def _window(self, pixels: Pixels, sides: tuple[int, int]) -> Pixels:
        """Resize only the part of a long thin image that `_crop` keeps: the same window, in the image's own pixels."""
        height, width = (min(side, self.size) for side in sides)
        scales = [side / to for side, to in zip(pixels.shape, sides, strict=False)]
        top, left = _start(sides[0], height) * scales[0], _start(sides[1], width) * scales[1]
        box = (left, top, left + width * scales[1], top + height * scales[0])
        return by_pillow(pixels, (height, width), self.interpolation, box)

    def _squash(self, pixels: Pixels) -> Pixels:
        return self._middle(pixels, self._resized(*pixels.shape[:2]))

    def _pad(self, pixels: Pixels) -> Pixels:
        return self._middle(pixels, self._resized(*pixels.shape[:2]), self.background)

    def _middle(self, pixels: Pixels, sides: tuple[int, int], background: tuple[int, int, int] = (0, 0, 0)) -> Pixels:
        """Return the middle S by S of an image that is resized to (height, width) `sides`."""
        top, left = (max(_start(side, self.size), 0) for side in sides)
        kept = slice(top, top + self.size), slice(left, left + self.size)
        return self._placed(resized(pixels, sides, self.interpolation, kept), background)

    def _placed(self, middle: Pixels, background: tuple[int, int, int] = (0, 0, 0)) -> Pixels:
        """Return S by S; what is outside of what the image gave is black, as in torchvision, or a colour."""
        import numpy as np

        height, width, _ = middle.shape
        if height == width == self.size:
            return middle
        top, left = -_start(height, self.size), -_start(width, self.size)
        canvas = np.full((self.size, self.size, 3), background, np.uint8)
        canvas[top : top + height, left : left + width] = middle
        return canvas


def _start(side: int, size: int) -> int:
    """Return where the middle `size` of `side` pixels starts, below 0 if it is larger; rounded as torchvision does."""
    return round((side - size) / 2) if side >= size else -((size - side) // 2)


def _plain(value: Any) -> Any:
    """Return a list, an array or a tensor as a tuple, a number of one of their kinds as Python's."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, list) else value


def _three(values: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether these are three finite numbers in a range."""
    numbers = values if isinstance(values, tuple) and len(values) == 3 else [None]
    return all(
        isinstance(number, (int, float)) and math.isfinite(number) and low <= number <= high for number in numbers
    )


def _require(condition: bool, name: str, value: object, expected: str) -> None:
    if not condition:
        raise UsageError(f"The preprocessing's {name} is {value!r}; expected {expected}.")
